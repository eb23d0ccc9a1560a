"""The parts of `csl.ops.inplace_abn` in plain PyTorch: what each kernel of abn_triton.py computes.

Synchronised statistics on a CPU run on these, as a process group must step in between the sums and their use.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def statistics(x: Tensor) -> Tensor:
    """Mean and biased variance of every channel of x [B, C, ...]: [2, C] in float32 (float64 for float64)."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    return torch.stack(torch.var_mean(_wide(x), axes, correction=0)[::-1])


def normalise(
    x: Tensor, mean: Tensor, factor: Tensor, bias: Tensor, slope: float, shortcut: Tensor | None = None
) -> Tensor:
    """act((x - mean) factor + bias) of x [B, C, ...] and [C] each, in x's dtype and memory format.

    With a shortcut of x's shape, relu(that + shortcut).
    """
    mean, factor, bias = (_broad(t, x) for t in (mean, factor, bias))
    z = torch.addcmul(bias, _wide(x) - mean, factor)
    if slope != 1.0:
        z = F.leaky_relu_(z, slope)
    return (z if shortcut is None else z.add_(shortcut).relu_()).to(x.dtype)


def backward_sums(dy: Tensor, y: Tensor, bias: Tensor, inverse: Tensor, slope: float) -> Tensor:
    """Sums of dz and dz xhat over every channel: [2, C]; inverse [C] is 1 / (|w| + eps)."""
    dz, xhat = _before_activation(dy, y, bias, inverse, slope)
    axes = [axis for axis in range(y.dim()) if axis != 1]
    return torch.stack([dz.sum(axes), (dz * xhat).sum(axes)])


def backward_input(
    dy: Tensor, y: Tensor, bias: Tensor, inverse: Tensor, factor: Tensor, means: Tensor, slope: float
) -> Tensor:
    """Gradient of x: factor (dz - means[0] - xhat means[1]); means [2, C] is 0 for fixed statistics."""
    dz, xhat = _before_activation(dy, y, bias, inverse, slope)
    mean1, mean2 = (_broad(t, y) for t in means)
    return (_broad(factor, y) * (dz - mean1 - xhat * mean2)).to(y.dtype)


def _before_activation(dy, y, bias, inverse, slope):
    dz, z = _wide(dy), _wide(y)
    if slope != 1.0:
        # Negative is what is not over 0, so that a slope * z that underflowed to -0 is on its own side.
        dz = torch.ops.aten.leaky_relu_backward(dz, z, slope, True)
        z = F.leaky_relu(z, 1 / slope)
    return dz, (z - _broad(bias, y)) * _broad(inverse, y)


def _wide(x):
    return x if x.dtype == torch.float64 else x.float()


def _broad(t, x):
    """[C] against [B, C, ...]."""
    return t.view(1, -1, *[1] * (x.dim() - 2))
