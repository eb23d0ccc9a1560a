"""The trial run of the Triton kernels: one small problem each, compared with plain PyTorch."""

import torch
import torch.nn.functional as F

from csl.ops import abn_parts, blur_pool_triton, excitation_triton


def compare_kernels(device: torch.device) -> None:
    """Run every kernel on a device.

    Raises:
        Exception: whatever a missing compiler, driver or package raises; AssertionError where the numbers differ.
    """
    with torch.autocast(device.type, enabled=False):
        pairs = [
            pair
            for layout in (torch.contiguous_format, torch.channels_last)
            for pair in zip(*(_one_step(backend, layout, device) for backend in ("triton", "torch")), strict=True)
        ]
        for kernels, plain in (*pairs, *_other_kernels(device)):
            torch.testing.assert_close(kernels, plain, rtol=1e-4, atol=1e-4)


def _one_step(backend, layout, device):
    """A small forward and backward on a backend, of a leaky layer and of one that ends a block: all that they compute."""
    x = torch.linspace(-2, 3, 5100, dtype=torch.float32, device=device).sin().view(2, 3, 25, 34) * 3 + 5  # [B, C, H, W]
    x = x.contiguous(memory_format=layout)
    weight, bias = torch.tensor([[0.5, -1.0, 2.0], [0.1, -0.2, 0.0]], dtype=torch.float32, device=device)
    parts = abn_parts.parts_of(backend)
    found = [parts.statistics(x), parts.backward_sums(x.cos(), x, bias, 1e-2)]
    for slope, shortcut in ((1e-2, None), (1.0, x.cos())):
        running = tuple(torch.full((3,), value, dtype=torch.float32, device=device) for value in (0.0, 1.0))
        batches = torch.zeros((), dtype=torch.int64, device=device)
        made, share = abn_parts.prepare(x, weight, *running, batches, 0.1, 1e-5, backend, None)
        y = parts.normalise(x, made, bias, slope, shortcut)
        recovered = (y, bias, 3) if shortcut is None else (x, made[0], 1)  # output, bias, row
        gradients = abn_parts.gradients(
            y.cos(), recovered[0], weight, recovered[1], made, recovered[2], share, slope, backend, None,
            None if shortcut is None else y,
        )  # fmt: skip
        found += [*running, batches, made, y, *gradients]
    return found


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
