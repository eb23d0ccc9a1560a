"""csl.ops.squeeze_excite and csl.ops.blur against their plain twins: values and every gradient."""

import pytest
import torch

from csl.ops import blur, blur_ref, squeeze_excite, squeeze_excite_ref


def example(shape, inner, dtype=torch.float64, channels_last=True):
    g = torch.Generator().manual_seed(0)
    c = shape[1]
    x, shortcut = (torch.randn(shape, generator=g, dtype=dtype) for _ in range(2))
    if channels_last:
        x, shortcut = (t.contiguous(memory_format=torch.channels_last) for t in (x, shortcut))
    sizes = (inner, c, 1, 1), (inner,), (c, inner, 1, 1), (c,)
    return [x, *(torch.randn(s, generator=g, dtype=dtype) for s in sizes), shortcut]


def gradients(function, arguments):
    leaves = [t.detach().clone().requires_grad_() for t in arguments]
    y = function(*leaves)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape))
    return [y.detach(), *(t.grad for t in leaves)]


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 3, 1, 1), (3, 8, 7, 2)])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_squeeze_excite_equals_its_plain_twin(shape, residual, channels_last):
    arguments = example(shape, 4, channels_last=channels_last)
    arguments = arguments if residual else arguments[:-1]
    for ours, ref in zip(*(gradients(f, arguments) for f in (squeeze_excite, squeeze_excite_ref)), strict=True):
        torch.testing.assert_close(ours, ref)


@pytest.mark.parametrize("residual", [True, False])
def test_squeeze_excite_in_half_precision_keeps_the_parameters_gradients_in_float32(residual):
    arguments = example((4, 8, 5, 5), 6, torch.float32)
    arguments = arguments if residual else arguments[:-1]
    exact = gradients(squeeze_excite_ref, arguments)
    half = [t.bfloat16() if t.shape == arguments[0].shape else t for t in arguments]
    for ours, ref in zip(gradients(squeeze_excite, half), exact, strict=True):
        assert (ours.float() - ref).abs().max() <= 0.05 * ref.abs().max()
        assert ours.dtype == (torch.bfloat16 if ours.shape == half[0].shape else torch.float32)


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (4, 4), (5, 4), (4, 7), (9, 9), (14, 14)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_blur_equals_its_plain_twin(size, channels_last):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    tap = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    kernel = torch.outer(tap, tap).repeat(3, 1, 1, 1)
    for ours, ref in zip(gradients(lambda t: blur(t, kernel), [x]), gradients(blur_ref, [x]), strict=True):
        torch.testing.assert_close(ours, ref)


@pytest.mark.parametrize("residual", [True, False])
def test_float32_under_autocast_equals_its_plain_twin(residual):
    arguments = example((2, 8, 5, 3), 6, torch.float32)
    arguments = arguments if residual else arguments[:-1]
    found = []
    for function in (squeeze_excite, squeeze_excite_ref):
        leaves = [t.clone().requires_grad_() for t in arguments]
        with torch.autocast("cpu", torch.bfloat16):
            y = function(*leaves)
        y.cos().sum().backward()
        found.append([y, *(t.grad for t in leaves)])
    for ours, ref in zip(*found, strict=True):
        assert ours.dtype == ref.dtype == torch.float32
        torch.testing.assert_close(ours, ref, rtol=0.05, atol=0.05)
