"""Pixels: image files, transforms, the data set and its loaders, the drawn demo set."""
