"""Data sets made ready for training: what `python -m csl prepare` does."""
