"""An exported `.onnx` file, run by ONNX Runtime behind the call that a PyTorch network has."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from csl.errors import InputError, in_words
from csl.machine.image_size import height_width
from csl.models.description import INPUT, Description, read_description

INSTALL = "pip install onnx onnxruntime onnxscript"

SIZE_NAMES = ("height", "width")
"""Names of the dimensions of an input of any size."""

_SILENT = 3  # errors only: notes about optimisations do not concern the user


class OnnxNetwork(nn.Module):
    """Images [B, 3, H, W] in [0, 1] to logits [B, C], like the network that was exported.

    On the CPU it runs on as many threads as PyTorch does (`torch.set_num_threads`, OMP_NUM_THREADS, the cores that this
    process may use); on a GPU where the installed ONNX Runtime has CUDA.

    Args:
        path: of `python -m csl export --format onnx`.
        image_size: side, or (H, W), of all images to come; None for the file's own.
        device: "cpu" or "cuda".
        threads: None for PyTorch's.

    Attributes:
        description: the metadata of the file.

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
        runtime = import_onnxruntime()
        if self.device.type == "cuda" and "CUDAExecutionProvider" not in runtime.get_available_providers():
            raise InputError(
                f"--device {device}: this ONNX Runtime has no CUDA, use --device cpu or pip install onnxruntime-gpu"
            )
        if self.device.type not in ("cpu", "cuda"):
            raise InputError(f"--device {device}: ONNX Runtime runs on cpu and cuda here, expected one of them")
        plain = self._open(1, None, optimise=False)
        inputs, outputs, metadata = self._interface(plain)
        shapes = [shape for _, shape in inputs + outputs]
        if len(inputs) != 1 or len(outputs) != 1 or list(map(len, shapes)) != [4, 2]:
            raise InputError(
                f"{path}: {len(inputs)} inputs and {len(outputs)} outputs, expected images [B, 3, H, W] to [B, C]"
            )
        count = shapes[1][1]
        self.description: Description = read_description(metadata, self.path, count if isinstance(count, int) else None)
        size = self.description.height_width if image_size is None else image_size
        self.height_width = height_width(size)
        fixed = tuple(shapes[0][2:])
        if all(isinstance(side, int) for side in fixed) and fixed != self.height_width:
            raise InputError(
                f"--image_size {self.height_width[0]}x{self.height_width[1]}: {path} takes {fixed[0]}x{fixed[1]} alone"
            )
        del plain
        self._lock, self._single = threading.Lock(), None
        self._session = self._open(threads or torch.get_num_threads(), self.height_width)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1], of `height_width`, to float32 logits [B, C] on the device of `x`."""
        return self._logits(self._session, x)

    def outputs(self, x: Tensor) -> Tensor:
        """The logits or probabilities that the file computes: [B, 3, H, W] -> [B, C]."""
        return self._run(self._session, x)

    def on_one_thread(self) -> nn.Module:
        """The same network for calls from several threads at once; each call runs on its own thread."""
        with self._lock:
            if self._single is None:
                self._single = self._open(1, self.height_width)
        return _Shared(self, self._single)

    def _interface(self, session):
        """Inputs [(name, shape)], outputs [(name, shape)] and metadata; ONNX Runtime decodes the texts here."""
        try:
            sides = [
                [(node.name, node.shape) for node in nodes] for nodes in (session.get_inputs(), session.get_outputs())
            ]
            return *sides, dict(session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: a name or text in it is not UTF-8 ({error.reason})") from error

    def _run(self, session, x):
        images = np.ascontiguousarray(x.detach().float().cpu().numpy())  # [B, 3, H, W], channels first in memory
        return torch.from_numpy(session.run(None, {INPUT: images})[0]).to(x.device)

    def _logits(self, session, x):
        values = self._run(session, x)
        return torch.logit(values) if self.description.sigmoid else values

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
            return runtime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            reason = in_words(error)
            raise InputError(
                f"{self.path}: not a network that ONNX Runtime reads, or a damaged one ({reason})"
            ) from error


class _Shared(nn.Module):
    """An `OnnxNetwork` on another session."""

    def __init__(self, network, session):
        super().__init__()
        self._logits, self._session = network._logits, session

    def forward(self, x: Tensor) -> Tensor:
        """As `OnnxNetwork.forward`."""
        return self._logits(self._session, x)


def import_onnxruntime() -> ModuleType:
    """Import the onnxruntime package, which takes a moment.

    Raises:
        InputError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"ONNX Runtime is not installed ({error}): {INSTALL}") from error
    return onnxruntime
