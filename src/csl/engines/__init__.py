"""What runs a trained network on a CPU: PyTorch, OpenVINO or ONNX Runtime, and the exported file that the latter two read."""

from csl.engines.choice import ENGINES, Engine, choose_engine
from csl.engines.exported import ExportedNetwork
from csl.engines.form import ExportForm

__all__ = ["ENGINES", "Engine", "ExportForm", "ExportedNetwork", "choose_engine"]
