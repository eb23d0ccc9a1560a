"""OpenImages: its rows, its classes and its files."""

from csl.labels.openimages.classes import read_class_descriptions
from csl.labels.openimages.reader import read_openimages

__all__ = ["read_class_descriptions", "read_openimages"]
