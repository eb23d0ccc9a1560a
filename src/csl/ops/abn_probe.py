"""The trial run of the Triton kernels: one small problem each, compared with plain PyTorch."""

import torch
import torch.nn.functional as F

from csl.ops import abn_torch, abn_triton, blur_pool_triton, excitation_triton


def compare_kernels(device: torch.device) -> None:
    """Run every kernel on a device.

    Raises:
        Exception: whatever a missing compiler, driver or package raises; AssertionError where the numbers differ.
    """
    with torch.autocast(device.type, enabled=False):
        pairs = zip(_one_step(abn_triton, device), _one_step(abn_torch, device), strict=True)
        for kernels, plain in (*pairs, *_other_kernels(device)):
            torch.testing.assert_close(kernels, plain, rtol=1e-4, atol=1e-4)


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
    x = torch.linspace(-2, 3, 150, dtype=torch.float32, device=device).sin().view(2, 3, 5, 5)  # [B, C, H, W]
    attention = torch.linspace(0.1, 0.9, 6, dtype=torch.float32, device=device).view(2, 3)
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=device) / 4
    kernel = torch.outer(taps, taps).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=3)  # [B, C, 3, 3]
    yield blur_pool_triton.blur(x), blurred
    # The adjoint's definition: autograd may be off here.
    yield (blur_pool_triton.blur_backward(blurred.cos(), 5, 5) * x).sum(), (blurred.cos() * blurred).sum()
    joined = torch.relu(x * attention[:, :, None, None] + x.cos())
    yield excitation_triton.join(x, attention, x.cos()), joined
    dz = x.sin() * (joined > 0)
    yield excitation_triton.backward_sums(x.sin(), x, joined), (dz, (dz * x).sum((2, 3)))
