"""The parts of `csl.ops.inplace_abn` in plain PyTorch: what each kernel of abn_triton.py computes.

Synchronised statistics on a CPU run on these, as a process group must step in between the sums and their use.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def statistics(x: Tensor) -> Tensor:
    """Count, mean and sum of squared deviations of every channel of x [B, C, ...]: [3, C], float32 (float64 for float64)."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    var, mean = torch.var_mean(_wide(x), axes, correction=0)
    count = torch.full_like(mean, x.numel() // x.shape[1])
    return torch.stack([count, mean, var * count])


def normalise(x: Tensor, constants: Tensor, bias: Tensor, slope: float, shortcut: Tensor | None = None) -> Tensor:
    """act((x - mean) factor + bias) of x [B, C, ...], in x's dtype and memory format; mean and factor of `constants`.

    With a shortcut of x's shape, relu(that + shortcut).
    """
    mean, factor, bias = (_broad(t, x) for t in (constants[0], constants[2], bias))
    z = torch.addcmul(bias, _wide(x) - mean, factor)
    if slope != 1.0:
        z = F.leaky_relu_(z, slope)
    return (z if shortcut is None else z.add_(shortcut).relu_()).to(x.dtype)


def backward_sums(dy: Tensor, y: Tensor, bias: Tensor, slope: float) -> Tensor:
    """Sums of dz and dz (z - bias) over every channel: [2, C]."""
    dz, centred = _before_activation(dy, y, bias, slope)
    axes = [axis for axis in range(y.dim()) if axis != 1]
    return torch.stack([dz.sum(axes), (dz * centred).sum(axes)])


def backward_input(dy: Tensor, y: Tensor, bias: Tensor, coefficients: Tensor, slope: float) -> Tensor:
    """Gradient of x: c0 dz - c1 - c2 (z - bias), of the coefficients [3, C]."""
    dz, centred = _before_activation(dy, y, bias, slope)
    factor, shift, share = (_broad(t, y) for t in coefficients)
    return (factor * dz - shift - share * centred).to(y.dtype)


def _before_activation(dy, y, bias, slope):
    dz, z = _wide(dy), _wide(y)
    if slope != 1.0:
        # Negative is what is not over 0, so that a slope * z that underflowed to -0 is on its own side.
        dz = torch.ops.aten.leaky_relu_backward(dz, z, slope, True)
        z = F.leaky_relu(z, 1 / slope)
    return dz, z - _broad(bias, y)


def _wide(x):
    return x if x.dtype == torch.float64 else x.float()


def _broad(t, x):
    """[C] against [B, C, ...]."""
    return t.view(1, -1, *[1] * (x.dim() - 2))
