"""Exported networks, `.onnx` and `.pt2`: what such a file says of itself, and how it runs as a network does."""

from csl.models.exported.description import INPUT, SUFFIXES, Description, read_description
from csl.models.exported.onnx import OnnxNetwork
from csl.models.exported.pt2 import Pt2Network

__all__ = ["INPUT", "SUFFIXES", "Description", "OnnxNetwork", "Pt2Network", "read_description"]
