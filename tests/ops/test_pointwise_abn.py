"""csl.ops.pointwise_abn against its three steps: values, statistics, every gradient, and what is stored for them."""

import pytest
import torch

from csl import InputError
from csl.models.abn import InPlaceABN
from csl.models.tresnet import ConvABN, TResNet, TResNetConfig
from csl.ops import pointwise, pointwise_abn, pointwise_abn_ref

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # of the kernels; else they run in Triton's interpreter
SHAPES = [((4, 5, 6, 7), 9), ((2, 3, 1, 1), 4), ((1, 7, 3, 2), 2), ((3, 16, 5, 5), 64)]


def example(shape, out, residual=True, dtype=torch.float64, channels_last=True, shift=0.5):
    g = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(size, generator=g, dtype=torch.float64)

    x, grad, shortcut = normal(*shape).relu() + shift, *(normal(shape[0], out, *shape[2:]) for _ in range(2))
    matrix, weight, bias = normal(out, shape[1], 1, 1) / shape[1] ** 0.5, normal(out), normal(out) * 0.1
    weight[0] = 0
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, grad, shortcut = (t.to(dtype).contiguous(memory_format=layout) for t in (x, grad, shortcut))
    return [x, *(t.to(dtype) for t in (matrix, weight, bias)), shortcut if residual else None], grad


def run(function, arguments, grad):
    leaves = [t if t is None else t.detach().clone().requires_grad_() for t in arguments]
    x, matrix, weight, bias, shortcut = leaves
    mean, var = torch.full_like(bias.detach(), 0.2), torch.full_like(bias.detach(), 1.5)
    y = function(x, matrix, weight, bias, mean, var, shortcut=shortcut)
    y.backward(grad.to(y.dtype))
    names = ("dx", "dmatrix", "dweight", "dbias", "dshortcut")
    found = {"y": y.detach(), "mean": mean, "var": var}
    return found | {n: t.grad for n, t in zip(names, leaves, strict=True) if t is not None}


@pytest.fixture(params=["covariance", "again", "kept", "steps"])
def way(request, monkeypatch):
    """Each way of computing it, where the sizes alone would choose one."""
    monkeypatch.setattr(pointwise, "_way", lambda *_: request.param)
    return request.param


def check(shape, out, residual, channels_last, device="cpu"):
    arguments, grad = example(shape, out, residual, channels_last=channels_last)
    arguments, grad = [t if t is None else t.to(device) for t in arguments], grad.to(device)
    ours, exact = (run(f, arguments, grad) for f in (pointwise_abn, pointwise_abn_ref))
    for name, value in exact.items():
        assert (ours[name] - value).abs().max() <= 1e-7 * value.abs().max() + 1e-12, name


@pytest.mark.parametrize(("shape", "out"), SHAPES)
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.usefixtures("way")
def test_equals_its_three_steps(shape, out, residual, channels_last):
    check(shape, out, residual, channels_last)


@pytest.mark.parametrize(("shape", "out"), SHAPES)
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.usefixtures("triton")
def test_convolved_anew_equals_its_three_steps(shape, out, residual):
    check(shape, out, residual, True, DEVICE)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("residual", [True, False])
def test_gradcheck(residual):
    arguments, _ = example((3, 4, 3, 2), 5, residual)
    arguments[2][0] = 0.3  # finite differences straddle the corner at 0
    leaves = [t.requires_grad_() for t in arguments if t is not None]

    def function(x, matrix, weight, bias, shortcut=None):
        return pointwise_abn(x, matrix, weight, bias, None, None, shortcut=shortcut)

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("chosen", ["covariance", "again"])
@pytest.mark.parametrize("shift", [0.5, 30.0])
def test_float32_is_as_exact_as_the_three_steps(monkeypatch, chosen, shift):
    monkeypatch.setattr(pointwise, "_way", lambda *_: chosen)
    arguments, grad = example((8, 32, 9, 9), 48, shift=shift)
    exact = run(pointwise_abn_ref, arguments, grad)
    single, grad = [t.float() for t in arguments], grad.float()
    ours, plain = (run(f, single, grad) for f in (pointwise_abn, pointwise_abn_ref))
    for name, value in exact.items():
        error, allowed = ((r[name].double() - value).abs().max() for r in (ours, plain))
        assert error <= 2 * allowed + 1e-6 * value.abs().max(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chosen", ["again", "kept"])
def test_low_precision(monkeypatch, chosen, dtype):
    monkeypatch.setattr(pointwise, "_way", lambda *_: chosen)
    arguments, grad = example((8, 32, 5, 5), 16)
    arguments = [t.to(dtype) for t in arguments]
    wide = [t.double() for t in arguments]
    before_relu = pointwise_abn_ref(*wide[:4], None, None) + wide[4]
    grad[before_relu.abs() < 0.1] = 0  # on which side of the ReLU these are is a matter of rounding
    exact = run(pointwise_abn_ref, wide, grad.to(dtype).double())
    arguments[1:4] = [t.float() for t in arguments[1:4]]  # parameters stay in float32
    ours, plain = (run(f, arguments, grad.to(dtype)) for f in (pointwise_abn, pointwise_abn_ref))
    for name, value in exact.items():
        error, allowed = ((r[name].double() - value).abs().max() for r in (ours, plain))
        assert error <= 2 * allowed + 1e-5 * value.abs().max(), name
        assert ours[name].dtype == plain[name].dtype, name


def test_autocast_casts_as_a_convolution_does():
    arguments, _ = example((4, 8, 5, 5), 6, dtype=torch.float32)
    exact = pointwise_abn(*arguments[:4], None, None, shortcut=arguments[4])
    with torch.autocast("cpu", torch.bfloat16):
        y = pointwise_abn(*arguments[:4], None, None, shortcut=arguments[4])
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).abs().max() <= 0.05 * exact.abs().max()


@pytest.mark.usefixtures("way")
def test_input_of_one_value_gives_finite_numbers():
    arguments, grad = example((2, 3, 4, 4), 5, dtype=torch.float32)
    arguments[0][:] = 7
    found = run(pointwise_abn, arguments, grad)
    assert all(value.isfinite().all() for value in found.values())
    assert found["y"].sub((arguments[4] + arguments[3].view(1, -1, 1, 1)).relu()).abs().max() < 1e-3


@pytest.mark.parametrize(("chosen", "dtype"), [("covariance", torch.float32), ("again", torch.bfloat16)])
@pytest.mark.parametrize("residual", [True, False])
def test_stores_neither_the_convolution_nor_the_normalisation(monkeypatch, chosen, dtype, residual):
    monkeypatch.setattr(pointwise, "_way", lambda *_: chosen)
    arguments, _ = example((4, 8, 6, 6), 24, residual, dtype)
    x, shortcut = arguments[0].requires_grad_(), arguments[4]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = pointwise_abn(x, *(t.float() for t in arguments[1:4]), None, None, shortcut=shortcut)
    large = {t.data_ptr() for t in saved if t.numel() >= x.numel()}
    assert large == {x.data_ptr(), y.data_ptr()} if residual else large == {x.data_ptr()}


@pytest.mark.parametrize("chosen", ["covariance", "again"])
@pytest.mark.parametrize("residual", [True, False])
def test_factors_are_kept_in_place_of_their_product(monkeypatch, chosen, residual):
    monkeypatch.setattr(pointwise, "_way", lambda *_: chosen)
    arguments, grad = example((4, 8, 6, 6), 24, residual)
    second = torch.rand(4, 8, 1, 1, dtype=torch.float64) + 0.5
    found, kept = [], []
    for factored in (False, True):
        first = arguments[0].detach().clone().requires_grad_()
        x = first * second
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t) or t, lambda t: t):
            y = pointwise_abn(
                x, *arguments[1:4], None, None, shortcut=arguments[4], factors=(first, second) if factored else None
            )
        kept.append({t.data_ptr() for t in saved})
        y.backward(grad)
        found.append((y.detach(), first.grad))
        assert (x.data_ptr() in kept[-1]) != factored
        assert (first.data_ptr() in kept[-1]) == factored
    for plain, factored in zip(*found, strict=True):
        torch.testing.assert_close(factored, plain)


def test_the_way_is_the_cheapest_for_the_sizes():
    def chosen(shape, out, dtype=torch.float32, backend="torch", keep=False):
        matrix, weight = torch.empty(out, shape[1], 1, 1), torch.empty(out)
        return pointwise._way(torch.empty(shape, dtype=dtype, device="cpu"), matrix, weight, backend, None, keep)

    assert chosen((16, 256, 14, 14), 1024) == "covariance"  # stage 3 of TResNet-M
    assert chosen((16, 512, 7, 7), 2048) == "steps"  # stage 4
    assert chosen((16, 256, 14, 14), 1024, torch.bfloat16) == "kept"
    assert chosen((16, 256, 14, 14), 1024, keep=True) == "kept"
    assert chosen((16, 256, 14, 14), 1024, backend="triton") == "again"
    assert chosen((16, 256, 14, 14), 1024, backend="triton", keep=True) == "again"
    assert chosen((16, 256, 14, 14), 1024, backend="inplace-abn") == "steps"


def test_a_bottleneck_network_stores_less():
    torch.manual_seed(0)
    model = TResNet(TResNetConfig((1, 1, 5, 1), width=0.25), 3).train()
    saved = {}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = torch.rand(4, 3, 192, 192)
    sizes = []
    for merged in (True, False):
        saved.clear()
        if not merged:
            for module in model.modules():
                if isinstance(module, ConvABN) and module[1].activation == "identity":
                    module._merged = lambda: False
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            model(x)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        sizes.append(sum(t.untyped_storage().nbytes() for k, t in saved.items() if k not in weights and t.dim() == 4))
    assert sizes[0] <= 0.85 * sizes[1]


def test_bad_arguments_say_what_was_expected():
    (x, matrix, weight, bias, _), _ = example((2, 3, 4, 4), 5)
    with pytest.raises(InputError, match=r"expected \[C, I, 1, 1\]"):
        pointwise_abn(x, matrix.expand(5, 3, 3, 3), weight, bias, None, None)
    with pytest.raises(InputError, match="one value per channel"):
        pointwise_abn(x[:1, :, :1, :1], matrix, weight, bias, None, None)


def test_the_layer_counts_its_batches():
    layer = InPlaceABN(5, "identity")
    layer.after_pointwise(torch.rand(2, 3, 4, 4), torch.rand(5, 3, 1, 1))
    assert layer.num_batches_tracked == 1
    assert (layer.running_mean != 0).all()
