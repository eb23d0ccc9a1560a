"""Multi-label image classification when most labels are unknown: the Class-aware Selective Loss (arXiv 2110.10955)."""

from csl.errors import InputError

__all__ = ["InputError"]
__version__ = "0.1.0"
