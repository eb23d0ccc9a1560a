"""Which implementation `csl.ops.inplace_abn` runs on: Triton kernels, PyTorch's operators or the inplace-abn package."""

import importlib.util
import os
import warnings

import torch

from csl.errors import InputError

BACKENDS = ("auto", "triton", "torch", "inplace-abn")
"""auto: Triton on a CUDA device where it works, else PyTorch. inplace-abn: the compiled package, where it is installed."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # which Triton, too, reads when it is imported

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


@torch.compiler.assume_constant_result
def backend_for(device_type: str) -> str:
    """The backend of a call on tensors of that device type: "triton", "torch" or "inplace-abn"."""
    unknown = (_chosen, device_type) not in _resolved
    backend, reason = current_backend(device_type)
    if unknown and device_type == "cuda" and _chosen == "auto" and backend == "torch":  # nobody has said so yet
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
    """Why the kernels cannot run on a device, or None: the way to know is to run them, and to look at the numbers."""
    if device.type != "cuda" and not INTERPRETED:
        return f"it needs a CUDA device, not {device.type}"
    try:
        from csl.ops import inplace_abn_torch, inplace_abn_triton

        with torch.autocast(device.type, enabled=False):
            pairs = zip(_one_step(inplace_abn_triton, device), _one_step(inplace_abn_torch, device), strict=True)
            for kernels, plain in (*pairs, *_other_kernels(device)):
                torch.testing.assert_close(kernels, plain, rtol=1e-4, atol=1e-4)
    except Exception as error:  # a missing compiler, driver or package: each its own exception
        return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    return None


def _one_step(parts, device):
    """A small forward and backward by the parts of a backend: statistics, output, sums and input gradient."""
    x = torch.linspace(-2, 3, 96, dtype=torch.float32, device=device).sin().view(2, 3, 4, 4) * 3  # [B, C, H, W]
    factor, bias = torch.tensor([[0.5, 1.0, 2.0], [0.1, -0.2, 0.0]], dtype=torch.float32, device=device)
    statistics = parts.statistics(x)
    y = parts.normalise(x, statistics[0], factor, bias, 1e-2)
    sums = parts.backward_sums(x.cos(), y, bias, 1 / factor, 1e-2)
    return statistics, y, sums, parts.backward_input(x.cos(), y, bias, 1 / factor, factor, sums / 32, 1e-2)


def _other_kernels(device):
    """What the kernels of blur and squeeze-and-excitation give, and what they should."""
    from csl.ops import blur_triton, squeeze_excite_triton
    from csl.ops.blur import blur_ref

    x = torch.linspace(-2, 3, 150, dtype=torch.float32, device=device).sin().view(2, 3, 5, 5)  # [B, C, H, W]
    attention = torch.linspace(0.1, 0.9, 6, dtype=torch.float32, device=device).view(2, 3)
    blurred = blur_ref(x)  # [B, C, 3, 3]
    yield blur_triton.blur(x), blurred
    # The adjoint's definition: autograd may be off here.
    yield (blur_triton.blur_backward(blurred.cos(), 5, 5) * x).sum(), (blurred.cos() * blurred).sum()
    joined = torch.relu(x * attention[:, :, None, None] + x.cos())
    yield squeeze_excite_triton.join(x, attention, x.cos()), joined
    dz = x.sin() * (joined > 0)
    yield squeeze_excite_triton.backward_sums(x.sin(), x, joined), (dz, (dz * x).sum((2, 3)))
