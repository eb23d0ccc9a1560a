"""An exported `.onnx` file, run by ONNX Runtime."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from csl.engines.exported import Copy, ExportedNetwork, NotInstalled
from csl.errors import InputError, in_words
from csl.models.description import INPUT

INSTALL = "pip install onnx onnxruntime onnxscript"

SIZE_NAMES = ("height", "width")
"""Names of the dimensions of an input of any size."""

_SILENT = 3  # errors only: notes about optimisations do not concern the user


class OnnxNetwork(ExportedNetwork):
    """An `ExportedNetwork` in ONNX Runtime.

    On the CPU it runs on as many threads as PyTorch does (`torch.set_num_threads`, OMP_NUM_THREADS, the cores that this
    process may use); on a GPU where the installed ONNX Runtime has CUDA.

    Args:
        path: of `python -m csl export --format onnx`.
        image_size: side, or (H, W), of all images to come; None for the file's own.
        device: "cpu" or "cuda".
        threads: None for PyTorch's.

    Raises:
        InputError: ONNX Runtime is missing or has no CUDA, the file is foreign or damaged, or the network does not take
            that size.
    """

    def __init__(
        self,
        path: str | Path,
        image_size: int | tuple[int, int] | None = None,
        device: str | torch.device = "cpu",
        threads: int | None = None,
    ):
        super().__init__()
        self.path, self.device = Path(path), torch.device(device)
        self._content: bytes | None = None  # of the file, which may be gone or another one when `copies` is called
        runtime = import_onnxruntime()
        if self.device.type == "cuda" and "CUDAExecutionProvider" not in runtime.get_available_providers():
            raise InputError(
                f"--device {device}: this ONNX Runtime has no CUDA, use --device cpu or pip install onnxruntime-gpu"
            )
        if self.device.type not in ("cpu", "cuda"):
            raise InputError(f"--device {device}: ONNX Runtime runs on cpu and cuda here, expected one of them")
        plain = self._open(1, None, optimise=False)
        self.describe(*self._interface(plain), image_size)
        del plain
        self._lock, self._single = threading.Lock(), None
        self._threads = threads or torch.get_num_threads()
        self._session = self._open(self._threads, self.height_width)

    def run(self, images: np.ndarray) -> np.ndarray:
        """As `ExportedNetwork.run`; several threads may call it at once."""
        return self._session.run(None, {INPUT: images})[0]

    def copies(self, count: int) -> list[nn.Module]:
        """As `ExportedNetwork.copies`, on a thread each; this one alone where there are more threads."""
        if self._threads > count:
            return [self]
        with self._lock:
            if self._single is None:
                self._single, self._content = self._open(1, self.height_width), None
        return [Copy(self, lambda images: self._single.run(None, {INPUT: images})[0])] * count

    def _interface(self, session):
        """Shapes of the inputs, of the outputs, and metadata; ONNX Runtime decodes the texts here."""
        try:
            inputs, outputs = (
                [node.shape for node in nodes] for nodes in (session.get_inputs(), session.get_outputs())
            )
            return inputs, outputs, dict(session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: a name or text in it is not UTF-8 ({error.reason})") from error

    def _open(self, threads, height_width, optimise=True):
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        if not optimise:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        for name, side in zip(SIZE_NAMES, height_width or (), strict=False):
            # With the size known, additions join the convolutions before them; the batch may still be any.
            options.add_free_dimension_override_by_name(name, side)
        providers = ["CPUExecutionProvider"]
        if self.device.type == "cuda" and optimise:
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": self.device.index or 0}))
        try:
            self._content = self._content or self.path.read_bytes()
            return runtime.InferenceSession(self._content, options, providers=providers)
        except Exception as error:  # OSError, and ONNX Runtime's exceptions have no common base
            reason = in_words(error)
            raise InputError(
                f"{self.path}: not a network that ONNX Runtime reads, or a damaged one ({reason})"
            ) from error


def import_onnxruntime() -> ModuleType:
    """Import the onnxruntime package, which takes a moment.

    Raises:
        NotInstalled: it is not there.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise NotInstalled(f"ONNX Runtime is not installed ({error}): {INSTALL}") from error
    return onnxruntime
