"""An exported `.onnx` file, run by OpenVINO."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from csl.engines.exported import Copy, ExportedNetwork, NotInstalled
from csl.errors import InputError, in_words

INSTALL = "pip install openvino onnx"

PRECISIONS = {"float32": "f32", "bf16": "bf16"}
"""What OpenVINO calls them."""


class OpenVinoNetwork(ExportedNetwork):
    """An `ExportedNetwork` in OpenVINO, on a CPU, on as many threads as PyTorch has.

    The batch stays open in the compiled network, so that one of another size, such as the last, compiles nothing.

    Args:
        path: of `python -m csl export --format onnx`.
        image_size: side, or (H, W), of all images to come; None for the file's own.
        precision: "float32", or "bf16" where the processor computes in it.
        threads: None for PyTorch's.

    Raises:
        InputError: OpenVINO is missing, the file is foreign or damaged, or the network does not take that size.
    """

    def __init__(
        self,
        path: str | Path,
        image_size: int | tuple[int, int] | None = None,
        precision: str = "float32",
        threads: int | None = None,
    ):
        super().__init__()
        self.path, self._precision = Path(path), precision
        self._threads = threads or torch.get_num_threads()
        self._core = import_openvino().Core()
        try:
            self._network = self._core.read_model(str(path))
            self.describe(*self._interface(), image_size)
            self._network.reshape([-1, 3, *self.height_width])
            self._run = _Request(self._compiled("LATENCY"))
        except (RuntimeError, UnicodeDecodeError) as error:
            reason = in_words(error)
            raise InputError(f"{path}: not a network that OpenVINO reads, or a damaged one ({reason})") from error

    def run(self, images: np.ndarray) -> np.ndarray:
        """As `ExportedNetwork.run`; threads that call it at once take turns."""
        return self._run(images)

    def copies(self, count: int) -> list[nn.Module]:
        """As `ExportedNetwork.copies`: a stream of OpenVINO's each."""
        compiled = self._compiled("THROUGHPUT", NUM_STREAMS=count)
        return [Copy(self, _Request(compiled)) for _ in range(count)]

    def _interface(self):
        """Shapes of the inputs, of the outputs, and metadata."""
        sides = [
            [[side.get_length() if side.is_static else None for side in node.partial_shape] for node in nodes]
            for nodes in (self._network.inputs, self._network.outputs)
        ]
        facts = dict(self._network.rt_info).get("framework", {})  # what an .onnx file says of itself
        return *sides, {name: fact.astype(str) for name, fact in facts.items()}

    def _compiled(self, hint, **more):
        settings = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": PRECISIONS[self._precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "ENABLE_CPU_PINNING": False,  # the processes that decode, and other programs, move about on the same cores
        }
        return self._core.compile_model(self._network, "CPU", settings | more)


class _Request:
    """One call at a time of a compiled network."""

    def __init__(self, compiled):
        self._lock, self._request = threading.Lock(), compiled.create_infer_request()

    def __call__(self, images):
        with self._lock:
            return self._request.infer([images], share_inputs=True)[0].copy()


def import_openvino() -> ModuleType:
    """Import the openvino package, which takes a moment.

    Raises:
        NotInstalled: it is not there.
    """
    try:
        import openvino
    except (ImportError, OSError) as error:  # the latter of a library that is not there
        raise NotInstalled(f"OpenVINO is not installed ({error}): {INSTALL}") from error
    return openvino
