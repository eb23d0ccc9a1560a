"""The Triton kernels of csl.ops.inplace_abn: in Triton's interpreter (see conftest.py) where there is no GPU."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from csl import InputError
from csl.models.tresnet import TResNet, TResNetConfig
from csl.ops import get_abn_backend, inplace_abn, inplace_abn_ref, resolve_backend, set_abn_backend

pytestmark = pytest.mark.usefixtures("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [
    ((4, 5, 6, 7), False), ((4, 5, 6, 7), True), ((1, 3, 2, 1), False), ((1, 3, 2, 1), True), ((8, 4), False),
    ((2, 3, 11), False), ((3, 70, 1, 1), True), ((2, 1, 5, 3), True), ((2, 130, 9, 7), True), ((1, 11, 33, 40), False),
]  # fmt: skip


def example(shape, channels_last=False, dtype=torch.float32, seed=0, shift=0.5):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g) * 2 + shift
    weight, bias = torch.randn(shape[1], generator=g), torch.randn(shape[1], generator=g) * 0.1
    weight[0] = 0
    grad = torch.randn(shape, generator=g)
    x, grad = x.to(dtype), grad.to(dtype)
    if channels_last and len(shape) == 4:
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    return [t.to(DEVICE) for t in (x, weight, bias, grad)]


def run(function, x, weight, bias, grad, training=True, **options):
    x, weight, bias = (t.detach().clone().requires_grad_() for t in (x, weight, bias))
    mean, var = torch.full_like(weight.detach(), 0.2), torch.full_like(weight.detach(), 1.5)
    y = function(x, weight, bias, mean, var, training, **options)
    y.backward(grad.to(y.dtype))
    return {"y": y.detach(), "dx": x.grad, "dw": weight.grad, "db": bias.grad, "mean": mean, "var": var}


def close(actual, expected, tolerance):
    actual, expected = (t.detach().double().cpu() for t in (actual, expected))
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * max(expected.abs().max(), 1e-30)


def wide(tensors):
    return [t.double() for t in tensors]


@pytest.mark.parametrize(("shape", "channels_last"), SHAPES)
@pytest.mark.parametrize(("activation", "slope"), [("leaky_relu", 1e-2), ("leaky_relu", 1e-6), ("identity", 1.0)])
def test_equals_float64_twin(shape, channels_last, activation, slope):
    tensors = example(shape, channels_last)
    options = {"activation": activation, "slope": slope}
    exact = run(inplace_abn_ref, *wide(tensors), **options)
    double, single = run(inplace_abn, *wide(tensors), **options), run(inplace_abn, *tensors, **options)
    heavy = [i for i, w in enumerate(tensors[1].tolist()) if abs(w) > 0.05]
    for name, value in exact.items():
        close(double[name], value, 1e-8)
        if name == "dw":  # at w = 0 float32 has few digits of xhat beside a bias of 0.1: checked in float64 alone
            error, largest = (single[name] - value)[heavy].abs(), value.abs().max()
        else:  # dx is a small difference of large terms where there are few values
            error, largest = (single[name] - value).abs(), value.abs().max() + 0.01 * (name == "dx")
        assert (error <= 1e-4 * largest).all(), name
    assert single["y"].stride() == torch.empty_like(tensors[0]).stride()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("activation", ["leaky_relu", "identity"])
def test_frozen_statistics(channels_last, activation):
    tensors = example((3, 6, 5, 4), channels_last)
    exact = run(inplace_abn_ref, *wide(tensors), training=False, activation=activation)
    got = run(inplace_abn, *wide(tensors), training=False, activation=activation)
    for name, value in exact.items():
        close(got[name], value, 1e-8)


def test_input_that_is_neither_contiguous_nor_channels_last():
    x, weight, bias, grad = example((4, 6, 5, 7))
    exact = run(inplace_abn_ref, *wide([x, weight, bias, grad]))
    strided = torch.empty(4, 12, 5, 7, device=DEVICE)[:, ::2].copy_(x)
    turned = grad.transpose(2, 3).contiguous().transpose(2, 3)
    got = run(inplace_abn, strided, weight, bias, turned)
    for name in ("y", "dx", "db", "mean", "var"):
        close(got[name], exact[name], 1e-5)


@pytest.mark.parametrize("channels_last", [True, False])
def test_large_means_cost_no_digits(channels_last):
    tensors = example((4, 6, 30, 30), channels_last, shift=1e4)
    x = tensors[0].double()
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    from csl.ops import abn_triton

    got = abn_triton.statistics(tensors[0])
    close(got[1], mean, 1e-6)
    close(got[2] / got[0], var, 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("slope", [1e-2, 1e-6, 1.0])
def test_low_precision(dtype, slope):
    x, weight, bias, grad = example((8, 6, 7, 7), True, dtype)
    weight = torch.where(weight < 0, -1, 1) * weight.abs().clamp(min=0.1)
    options = {"activation": "identity" if slope == 1 else "leaky_relu", "slope": slope}
    exact = run(inplace_abn_ref, *wide([x, weight, bias, grad]), **options)
    plain, ours = (run(f, x, weight, bias, grad, **options) for f in (inplace_abn_ref, inplace_abn))
    for name in ("y", "dx"):
        error, allowed = ((r[name].double() - exact[name]).abs().max() for r in (ours, plain))
        assert error <= 2 * allowed + 1e-6
    for name in ("mean", "var"):
        close(ours[name], exact[name], 1e-5)
    # The stored output is rounded, z = y / slope where it is negative, and xhat = (z - b) / (|w| + eps).
    dz = grad.double() * torch.where(exact["y"] > 0, 1.0, slope)
    z = exact["y"] * torch.where(exact["y"] > 0, 1.0, 1 / slope)
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps / torch.where(exact["y"] > 0, 1.0, slope)
    rounding = (torch.finfo(dtype).eps / 2 * z.abs() + tiny) / (weight.abs().double() + 1e-5).view(1, -1, 1, 1)
    bound = (dz.abs() * rounding).sum((0, 2, 3))
    assert ((ours["dw"].double() - exact["dw"]).abs() <= bound + 1e-4 * exact["dw"].abs().max()).all()


def test_gradient_at_zero_weight_is_plus_one_in_every_precision():
    x, weight, bias, grad = example((4, 3, 5, 5), True)
    weight[:], bias[:] = 0, 0
    xhat = (x - x.mean((0, 2, 3), True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.02)):
        got = run(inplace_abn, x.to(dtype), weight, bias, grad.to(dtype), activation="identity")
        close(got["dw"], (grad * xhat).sum((0, 2, 3)), tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sign_bit_keeps_the_side_of_underflowed_values(dtype):
    x = torch.tensor([-3.0, -0.02, 0.0, 0.02, 3.0], device=DEVICE).view(5, 1).to(dtype)
    one, zero = torch.ones(1, device=DEVICE), torch.zeros(1, device=DEVICE)
    leaf = x.clone().requires_grad_()
    y = inplace_abn(leaf, one, zero, zero.clone(), one.clone(), False, slope=1e-6)
    assert torch.signbit(y.detach()).flatten().tolist() == [True, True, True, False, False]
    y.backward(torch.ones_like(y))
    assert (leaf.grad.flatten().cpu() > 0.5).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("channels_last", [True, False])
def test_overwriting_takes_the_inputs_memory_and_changes_no_number(channels_last):
    x, weight, bias, grad = example((2, 5, 6, 7), channels_last)
    found = []
    for overwrite in (False, True):
        leaf = x.clone().requires_grad_()
        conv_output = leaf * 1
        y = inplace_abn(conv_output, weight, bias, None, None, True, overwrite=overwrite)
        assert (y.data_ptr() == conv_output.data_ptr()) == overwrite
        y.backward(grad)
        found.append((y.detach(), leaf.grad))
    for anew, over in zip(*found, strict=True):
        assert torch.equal(over, anew)


def test_two_runs_give_the_same_bits():
    first, second = (run(inplace_abn, *example((4, 40, 9, 9), True)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [True, False])
def test_residual_addition_and_relu_in_the_same_pass(dtype, channels_last):
    from csl.ops import abn_torch, abn_triton

    x, factor, bias, shortcut = example((3, 11, 5, 7), channels_last, dtype)
    shortcut[0, 0, 0, 0] = torch.nan
    made = torch.linspace(-1, 1, 44, device=DEVICE).view(4, 11)
    made[2] = factor
    turned = shortcut.transpose(2, 3).contiguous().transpose(2, 3)
    plain = abn_torch.normalise(x, made, bias, 1.0, shortcut)
    for given in (shortcut, turned, shortcut.float()):
        joined = abn_triton.normalise(x, made, bias, 1.0, given)
        torch.testing.assert_close(
            joined, plain, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6, equal_nan=True
        )
    assert joined.isnan().sum() == 1


def test_bfloat16_is_rounded_to_nearest_even():
    from csl.ops import abn_triton

    values = [1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 1 + 2**-8 + 2**-20, 2 - 2**-9, 3e38, 1e-30, 0.0, torch.inf]
    x = torch.tensor(values, device=DEVICE).view(-1, 1)
    made, zero = torch.tensor([[0.0], [1], [1], [1]], device=DEVICE), torch.zeros(1, device=DEVICE)
    # The values are float32's: they reach the kernel as its shortcut, and its own term is 0.
    y = abn_triton.normalise(torch.zeros_like(x, dtype=torch.bfloat16), made, zero, 1.0, x)
    assert torch.equal(y, x.relu().bfloat16())


def test_nan_goes_through():
    x, weight, bias, _ = example((2, 3, 4, 4))
    x[0, 1, 0, 0] = torch.nan
    y = inplace_abn(x, weight, bias, None, None, True)
    assert y[:, 1].isnan().all()
    assert not y[:, [0, 2]].isnan().any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_compiled_tresnet_is_one_graph(training, backend):
    set_abn_backend(backend)
    torch.manual_seed(0)
    model = TResNet(TResNetConfig((2, 1, 1, 1), width=0.15), num_classes=3).to(DEVICE).train(training)
    x = torch.rand(2, 3, 36, 36, device=DEVICE)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    state = {k: v.clone() for k, v in model.state_dict().items()}
    found = []
    for network in (model, compiled):
        model.load_state_dict(state)
        model.zero_grad()
        logits = network(x)
        if training:
            logits.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((logits.detach().clone(), gradients, {k: v.clone() for k, v in model.state_dict().items()}))
    (logits, gradients, after), (compiled_logits, compiled_gradients, compiled_after) = found
    torch.testing.assert_close(compiled_logits, logits, rtol=1e-4, atol=1e-5)
    assert len(gradients) == len(compiled_gradients) == (len(list(model.parameters())) if training else 0)
    for a, b in zip(compiled_gradients, gradients, strict=True):
        assert (a - b).norm() <= 1e-3 * b.norm() + 1e-5
    for key in after:
        torch.testing.assert_close(compiled_after[key], after[key], rtol=1e-4, atol=1e-5)


def test_operators_pass_pytorchs_own_checks():
    from csl.ops import abn_operators

    x, _, bias, grad = example((2, 5, 3, 4), True)
    made = torch.rand(4, 5, device=DEVICE)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(abn_operators.statistics, (x,), test_utils=tests)
    torch.library.opcheck(abn_operators.normalise, (x, made, bias, 0.01), test_utils=tests)
    torch.library.opcheck(abn_operators.backward_sums, (grad, x, bias, 0.01), test_utils=tests)
    torch.library.opcheck(abn_operators.backward_input, (grad, x, bias, made[:3], 0.01), test_utils=tests)


def test_backends_by_name():
    assert get_abn_backend() == "triton"
    assert resolve_backend("torch", "cpu") == ("torch", "as asked")
    assert resolve_backend("auto", "cpu")[0] == "torch"
    assert "CUDA" in resolve_backend("auto", "cpu")[1]
    with pytest.raises(InputError, match="expected one of auto, triton, torch, inplace-abn"):
        set_abn_backend("cuda")
    with pytest.raises(InputError, match="expected auto or torch"):
        resolve_backend("triton", "meta")


def test_the_package_as_a_backend_leaves_its_input():
    pytest.importorskip("inplace_abn.functions", reason="the inplace-abn package is not installed")
    tensors = example((4, 6, 5, 7))
    before = tensors[0].clone()
    exact = run(inplace_abn_ref, *tensors)
    set_abn_backend("inplace-abn")
    got = run(inplace_abn, *tensors)
    assert torch.equal(tensors[0], before)
    for name in ("y", "dx", "db", "mean", "var"):
        close(got[name], exact[name], 1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [True, False])
def test_gpu_real_sizes(dtype, channels_last):
    tensors = example((32, 256, 56, 56), channels_last, dtype)
    tensors[1] = torch.where(tensors[1] < 0, -1, 1) * tensors[1].abs().clamp(min=0.1)
    exact = run(inplace_abn_ref, *wide(tensors))
    plain, ours = (run(f, *tensors) for f in (inplace_abn_ref, inplace_abn))
    for name in ("y", "dx"):
        error, allowed = ((r[name].double() - exact[name]).abs().max() for r in (ours, plain))
        assert error <= 2 * allowed + 1e-5
    again = run(inplace_abn, *tensors)
    assert all(torch.equal(ours[name], again[name]) for name in ours)


@pytest.mark.gpu
def test_gpu_more_than_two_to_the_31_elements():
    shape = (41, 64, 1024, 1024)
    free = torch.cuda.mem_get_info()[0]
    if free < 5 * 2 * np.prod(shape):
        pytest.skip(f"{free / 2**30:.0f} GiB of GPU memory free")
    x = torch.empty(shape, dtype=torch.bfloat16, device="cuda", memory_format=torch.channels_last).normal_()
    weight, bias = torch.ones(64, device="cuda"), torch.zeros(64, device="cuda")
    with torch.no_grad():
        y = inplace_abn(x, weight, bias, None, None, True, activation="identity")
    last, mean, var = x[-1].float(), y.float().mean((0, 2, 3)), y[-1].float().var((1, 2))
    torch.testing.assert_close(y[-1].float(), last, rtol=0.02, atol=0.02)
    assert mean.abs().max() < 0.01
    assert (var - 1).abs().max() < 0.02


@pytest.mark.gpu
def test_gpu_more_than_two_to_the_31_elements_backward():
    from csl.ops import abn_triton

    shape = (41, 64, 1024, 1024)
    free = torch.cuda.mem_get_info()[0]
    if free < 3 * 2 * np.prod(shape):
        pytest.skip(f"{free / 2**30:.0f} GiB of GPU memory free")
    y = torch.empty(shape, dtype=torch.bfloat16, device="cuda", memory_format=torch.channels_last).normal_()
    one, zero = torch.ones(64, device="cuda"), torch.zeros(64, device="cuda")
    sums = abn_triton.backward_sums(y, y, zero, 1.0)  # of y and of its squares
    exact = (
        torch.stack([torch.stack([i.float().sum((1, 2)), i.float().square().sum((1, 2))]) for i in y]).double().sum(0)
    )
    torch.testing.assert_close(sums[1].double(), exact[1], rtol=1e-4, atol=0)
    assert (sums[0].double() - exact[0]).abs().max() <= 1e-5 * exact[1].max()
    dx = abn_triton.backward_input(y, y, zero, torch.stack([2 * one, zero, zero]), 1.0)
    assert torch.equal(dx[-1], 2 * y[-1])
