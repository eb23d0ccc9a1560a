"""Prepare data sets for training: the tools behind `python -m csl prepare`."""
