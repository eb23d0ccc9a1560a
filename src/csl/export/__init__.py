"""`python -m csl export`: a trained network as a file that other programs run, and the proof that it gives the same numbers."""

from csl.engines.form import ExportForm
from csl.export.command import ExportOptions, export
from csl.export.int8 import quantise

__all__ = ["ExportForm", "ExportOptions", "export", "quantise"]
