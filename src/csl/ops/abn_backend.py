"""Which implementation `csl.ops.inplace_abn` runs on: Triton kernels, PyTorch's operators or the inplace-abn package."""

import importlib.util
import warnings

import torch

from csl.errors import InputError
from csl.ops.constant import assume_constant_result
from csl.ops.interpreter import INTERPRETED

BACKENDS = ("auto", "triton", "torch", "inplace-abn")
"""auto: Triton on a CUDA device where it works, else PyTorch. inplace-abn: the compiled package, where it is installed."""

_chosen = "auto"
_resolved: dict[tuple[str, str], tuple[str, str]] = {}  # (name, device type) -> backend, reason


def set_abn_backend(name: str) -> None:
    """Choose the backend of every later call, of all models, in this process. State dicts are the same for all.

    Raises:
        InputError: not one of `BACKENDS`, or a package that is not installed.
    """
    global _chosen
    if name not in BACKENDS:
        raise InputError(f"--abn {name}: unknown, expected one of {', '.join(BACKENDS)}")
    if name == "inplace-abn" and importlib.util.find_spec("inplace_abn") is None:
        raise InputError("--abn inplace-abn: the package is not installed, expected auto, triton or torch")
    _chosen = name


def get_abn_backend() -> str:
    """The name last set, "auto" at the start."""
    return _chosen


def resolve_backend(name: str, device: torch.device | str) -> tuple[str, str]:
    """What `name` means on a device: ("triton" | "torch" | "inplace-abn", the reason in a few words).

    Raises:
        InputError: an unknown name, a package that is not installed, or Triton where it cannot run.
    """
    device = torch.device(device)
    if name not in BACKENDS:
        raise InputError(f"--abn {name}: unknown, expected one of {', '.join(BACKENDS)}")
    if name == "inplace-abn":
        if importlib.util.find_spec("inplace_abn") is None:
            raise InputError("--abn inplace-abn: the package is not installed, expected auto, triton or torch")
        return name, "as asked"
    if name == "torch":
        return name, "as asked"
    if name == "auto" and device.type != "cuda":
        return "torch", f"Triton needs a CUDA device, not {device.type}"
    obstacle = _triton_obstacle(device)
    if obstacle is None:
        return "triton", "as asked" if name == "triton" else "a CUDA device"
    if name == "triton":
        raise InputError(f"--abn triton: {obstacle}, expected auto or torch")
    return "torch", f"Triton does not run here: {obstacle}"


def current_backend(device: torch.device | str) -> tuple[str, str]:
    """What the chosen backend means on a device, and why, as `resolve_backend`: tried once for a kind of device."""
    key = _chosen, torch.device(device).type
    if key not in _resolved:
        _resolved[key] = resolve_backend(*key)
    return _resolved[key]


@assume_constant_result
def backend_for(device_type: str) -> str:
    """The backend of a call on tensors of that device type: "triton", "torch" or "inplace-abn"."""
    known = _resolved.get((_chosen, device_type))
    if known is not None:
        return known[0]
    backend, reason = current_backend(device_type)
    if device_type == "cuda" and _chosen == "auto" and backend == "torch":  # nobody has said so yet
        warnings.warn(f"csl.ops: PyTorch's operators, which are slower. {reason}", stacklevel=2)
    return backend


def runs_on_triton(x: torch.Tensor) -> bool:
    """Whether what stands beside InPlace-ABN takes its Triton kernels for x, too, where those can be had.

    A graph that is exported or traced keeps to PyTorch's operators, which every reader of its file knows.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing() or not (x.is_cuda or INTERPRETED):
        return False
    return backend_for(x.device.type) == "triton"


def _triton_obstacle(device):
    """Why the kernels cannot run on a device, in a few words, or None."""
    if device.type != "cuda" and not INTERPRETED:
        return f"it needs a CUDA device, not {device.type}"
    try:
        from csl.ops.abn_probe import compare_kernels  # importing Triton takes a second

        compare_kernels(device)
    except Exception as error:  # a missing compiler, driver or package: each its own exception
        return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    return None
