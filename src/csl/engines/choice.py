"""Which engine runs a network on a CPU: the fastest that is installed, once it was proved to give PyTorch's numbers."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from csl.engines.exported import NotInstalled
from csl.engines.form import ExportForm
from csl.engines.kept import KeptExport
from csl.engines.onnx_file import write_onnx
from csl.engines.onnx_network import OnnxNetwork, import_onnxruntime
from csl.engines.openvino_network import INSTALL, OpenVinoNetwork, import_openvino
from csl.engines.proof import drawn_photos, prove
from csl.errors import InputError
from csl.machine import distributed
from csl.models.description import Description

ENGINES = ("auto", "torch", "openvino", "onnx")

VARIABLE = "CSL_ENGINE"
"""Environment variable that says what "auto" is."""

OTHERS: dict[str, tuple[str, Callable[[], ModuleType]]] = {
    "openvino": ("OpenVINO", import_openvino),
    "onnx": ("ONNX Runtime", import_onnxruntime),
}
"""The engines beside PyTorch: title, and what imports the package. The fastest stands first."""

PRECISIONS = {None: "float32", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Engine:
    """What runs a network.

    Attributes:
        network: images [B, 3, H, W] in [0, 1] to logits [B, C].
        name: the engine, with its version and precision where it is not PyTorch.
        line: one line that says which engine it is and why.
    """

    network: nn.Module
    name: str
    line: str


def wanted_engine(given: str) -> str:
    """The engine that is asked for: "auto" is what the variable `VARIABLE` says, if it says anything.

    Raises:
        InputError: no engine has that name.
    """
    found, where = given, "--engine"
    if given == "auto" and os.environ.get(VARIABLE):
        found, where = os.environ[VARIABLE], VARIABLE
    if found not in ENGINES:
        raise InputError(f"{where} {found}: unknown, expected one of {', '.join(ENGINES)}")
    return found


def choose_engine(
    wanted: str,
    model: nn.Module,
    pytorch: nn.Module,
    checkpoint: Path,
    description: Description,
    device: torch.device,
    dtype: torch.dtype | None = None,
    settings: Mapping[str, object] | None = None,
    obstacle: str | None = None,
) -> Engine:
    """The engine for a checkpoint's network.

    Args:
        wanted: one of `ENGINES`. "auto" goes on with PyTorch where no other engine will do; any other is insisted on.
        model: as `csl.models.create_model` made it, with its weights.
        pytorch: the same as PyTorch runs it.
        checkpoint: its file; exported files are kept beside it (`csl.engines.kept`).
        description: of the network.
        device: where it shall run.
        dtype: of autocast, None for float32.
        settings: what the network depends on beside its tensors and its description, as plain values.
        obstacle: why only PyTorch can run it, None if nothing speaks for that.

    Raises:
        InputError: no engine has that name, or the one that is insisted on will not do.
    """
    wanted = wanted_engine(wanted)
    if wanted == "torch":
        return _pytorch(pytorch, "as asked for")
    if (why := obstacle or _obstacle(device, dtype)) is not None:
        if wanted != "auto":
            raise InputError(f"--engine {wanted}: {why}")
        return _pytorch(pytorch, why)
    failures = []
    for name in OTHERS if wanted == "auto" else (wanted,):
        try:
            title = _installed(name)
            if name == "onnx" and dtype is not None:
                raise InputError(f"{title} computes in float32 on a CPU, not in bf16")
            with KeptExport(
                checkpoint,
                model,
                description.height_width,
                {**description.to_metadata(), **(settings or {})},
                lambda path: write_onnx(ExportForm(model), description, path, any_size=False),
            ) as kept:
                return _proved(name, title, kept, pytorch, description, dtype)
        except InputError as error:
            if wanted != "auto":
                raise InputError(f"--engine {wanted}: {error}") from error
            if not isinstance(error, NotInstalled):
                failures.append(str(error))
    return _pytorch(pytorch, "; ".join(failures) or f"no other engine is installed: {INSTALL}")


def run_exported(wanted: str, path: Path, image_size: int | tuple[int, int] | None, device: torch.device) -> Engine:
    """The engine for a file of `python -m csl export --format onnx`, whose numbers were compared when it was written.

    Args:
        wanted: one of `ENGINES`. "auto" is ONNX Runtime, and OpenVINO where that is not installed.
        path: the file.
        image_size: as of `ExportedNetwork`.
        device: where it shall run.

    Raises:
        InputError: as the engine's network, or PyTorch is asked for.
    """
    if wanted == "torch":
        raise InputError(f"--engine torch: {path} is exported, expected openvino, onnx, or a checkpoint")
    wanted, missing = wanted_engine(wanted), []
    for name in (wanted,) if wanted in OTHERS else ("onnx", "openvino"):
        try:
            title = _installed(name)
            break
        except InputError as error:
            missing.append(error)
    else:
        raise missing[0]
    return Engine(_load(name, path, image_size, device), title, f"engine: {title} ({path.name} is an exported network)")


def _pytorch(network, why):
    return Engine(network, "PyTorch", f"engine: PyTorch ({why})")


def _obstacle(device, dtype):
    """Why no other engine than PyTorch can run a network there, or None."""
    if device.type != "cpu":
        return f"the others run on a CPU, this is {device}"
    if distributed.world_size() > 1:
        return "one of several processes"
    return None if dtype in PRECISIONS else f"no other computes in {dtype}"


def _installed(name):
    """Title and version of an engine; InputError where it is not installed."""
    title, load = OTHERS[name]
    return f"{title} {load().__version__.partition('-')[0]}"


def _load(name, path, image_size, device, precision="float32"):
    if name == "onnx":
        return OnnxNetwork(path, image_size, device)
    if device.type != "cpu":
        raise InputError(f"--engine {name}: {_obstacle(device, None)}")
    return OpenVinoNetwork(path, image_size, precision)


def _proved(name, title, kept, pytorch, description, dtype):
    """The engine on the kept file, whose numbers are compared with PyTorch's if they never were."""
    how = f"{title} in {PRECISIONS[dtype]}"
    network = _load(name, kept.file, description.image_size, torch.device("cpu"), PRECISIONS[dtype])
    if how not in kept.proofs:
        try:
            kept.add_proof(how, prove(network, pytorch, drawn_photos(description), dtype))
        except InputError as error:
            kept.add_proof(how, str(error))
    found = kept.proofs[how]
    if isinstance(found, str):
        raise InputError(found)
    return Engine(network, how, f"engine: {how}, equal to PyTorch's to {found:.1g} ({kept.place})")
