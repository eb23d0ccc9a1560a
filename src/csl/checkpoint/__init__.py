"""Weights and checkpoints of any origin, read and written (`file`), and in a network (`network`)."""

from csl.checkpoint.file import FORMAT, WITH_NORM, Checkpoint, check_whole, locate, read, with_entry, write
from csl.checkpoint.network import load_backbone, load_model, load_weights

__all__ = [
    "FORMAT", "WITH_NORM", "Checkpoint", "check_whole", "load_backbone", "load_model", "load_weights", "locate", "read",
    "with_entry", "write",
]  # fmt: skip
