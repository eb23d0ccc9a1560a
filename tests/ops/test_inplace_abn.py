"""csl.ops.inplace_abn against the recorded package, the installed package, its plain twin and finite differences."""

import numpy as np
import pytest
import torch
from conftest import golden

from csl import InputError
from csl.ops import inplace_abn, inplace_abn_ref

CASES, ARRAYS = golden("inplace_abn")


def close(actual, expected, tolerance=1e-5):
    """Within `tolerance` of the largest magnitude of `expected`, the measure of tests/golden/README.md."""
    actual, expected = (np.asarray(torch.as_tensor(a).detach(), np.float64) for a in (actual, expected))
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-30)


def run(function, x, weight, bias, grad, **options):
    """Outputs, gradients and running statistics of one training step from fresh statistics."""
    x, weight, bias = (t.detach().clone().requires_grad_() for t in (x, weight, bias))
    mean, var = torch.zeros_like(weight.detach()), torch.ones_like(weight.detach())
    y = function(x, weight, bias, mean, var, True, **options)
    y.backward(grad.to(y.dtype))
    return {"y": y, "dx": x.grad, "dw": weight.grad, "db": bias.grad, "mean": mean, "var": var}


def example(shape, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g, dtype=dtype) * 2 + 0.5
    weight = torch.randn(shape[1], generator=g, dtype=dtype)
    weight[0] = 0
    bias = torch.randn(shape[1], generator=g, dtype=dtype) * 0.1
    return x, weight, bias, torch.randn(shape, generator=g, dtype=dtype)


@pytest.mark.parametrize("function", [inplace_abn, inplace_abn_ref])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["case"])
def test_equals_recorded_package(case, function):
    a = {k.split("_", 1)[1]: torch.from_numpy(ARRAYS[k]) for k in ARRAYS.files if k.startswith(case["case"])}
    options = {k: case[k] for k in ("activation", "slope", "eps", "momentum")}
    got = run(function, a["x"], a["weight"], a["bias"], a["grad_output"], **options)
    names = {"y": "output", "dx": "grad_x", "dw": "grad_weight", "db": "grad_bias"}
    names |= {"mean": "running_mean", "var": "running_var"}
    for ours, theirs in names.items():
        close(got[ours], a[theirs])
    evaluated = function(a["x"], a["weight"], a["bias"], got["mean"], got["var"], False, **options)
    close(evaluated, a["eval_output"])


@pytest.mark.parametrize(
    ("shape", "channels_last"),
    [((4, 5, 6, 7), False), ((4, 5, 6, 7), True), ((1, 3, 2, 1), False), ((1, 3, 2, 1), True), ((8, 4), False),
     ((2, 3, 11), False), ((3, 70, 1, 1), True)],
)  # fmt: skip
@pytest.mark.parametrize(("activation", "slope"), [("leaky_relu", 1e-2), ("leaky_relu", 1e-6), ("identity", 1.0)])
@pytest.mark.parametrize("keep", [False, True])
def test_equals_plain_twin(shape, channels_last, activation, slope, keep):
    x, weight, bias, grad = example(shape, torch.float64)
    if channels_last:
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    options = {"activation": activation, "slope": slope}
    ours = run(inplace_abn, x, weight, bias, grad, **options, keep=keep)
    ref = run(inplace_abn_ref, x, weight, bias, grad, **options)
    for name in ref:
        close(ours[name], ref[name], 1e-8)
    if channels_last:
        assert ours["y"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["leaky_relu", "identity"])
def test_gradcheck(training, activation):
    x, weight, bias, _ = example((3, 4, 3, 2), torch.float64)
    weight[0] = 0.3  # finite differences straddle the corner at 0
    mean, var = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5

    def function(x, w, b):
        return inplace_abn(x, w, b, mean.clone(), var.clone(), training, activation=activation)

    assert torch.autograd.gradcheck(function, [t.requires_grad_() for t in (x, weight, bias)])


def test_gradient_at_zero_weight_is_plus_one_and_mirrors_below():
    x, weight, bias, grad = example((4, 3, 5, 5), torch.float64)
    for value, sign in ((0.0, 1), (-0.0, 1), (1e-12, 1), (-1e-12, -1)):
        weight[:] = value
        got = run(inplace_abn, x, weight, bias, grad, activation="identity")
        xhat = (x - x.mean((0, 2, 3), True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        close(got["dw"], sign * (grad * xhat).sum((0, 2, 3)), 1e-6)


@pytest.mark.parametrize("channels_last", [True, False])
def test_large_means_cost_no_digits(channels_last):
    x, weight, bias, grad = example((4, 6, 20, 20))
    x = x + 1e4
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    exact = run(inplace_abn_ref, x.double(), weight.double(), bias.double(), grad.double())
    got = run(inplace_abn, x, weight, bias, grad)
    close(got["var"], exact["var"], 1e-4)
    close(got["mean"], exact["mean"], 1e-6)
    close(got["y"], exact["y"], 2e-3)  # half a unit in the last place of 1e4 is 5e-4


@pytest.mark.parametrize("keep", [False, True])
def test_saves_its_output_and_no_activation_beside_it_unless_told_to(keep):
    x, weight, bias, _ = example((4, 3, 8, 8))
    saved = []
    conv_output = x.clone().requires_grad_() * 1
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = inplace_abn(conv_output, weight.requires_grad_(), bias.requires_grad_(), None, None, True, keep=keep)
    large = {t.data_ptr() for t in saved if t.numel() == x.numel()}
    assert large == {y.data_ptr()} | ({conv_output.data_ptr()} if keep else set())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("slope", [1e-2, 1.0])
def test_overwriting_takes_the_inputs_memory_and_changes_no_number(training, channels_last, slope):
    x, weight, bias, grad = example((4, 6, 5, 7), torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    options = {"activation": "leaky_relu" if slope != 1 else "identity", "slope": slope}
    found = []
    for overwrite in (False, True):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        mean, var = torch.full((6,), 0.2).double(), torch.full((6,), 1.5).double()
        conv_output = leaves[0] * 1
        y = inplace_abn(conv_output, *leaves[1:], mean, var, training, **options, overwrite=overwrite)
        assert (y.data_ptr() == conv_output.data_ptr()) == overwrite
        assert y.stride() == x.stride()
        y.backward(grad)
        found.append([y.detach(), mean, var, *(t.grad for t in leaves)])
    for anew, over in zip(*found, strict=True):
        torch.testing.assert_close(over, anew, rtol=1e-12, atol=1e-12)


def test_gradcheck_overwriting():
    x, weight, bias, _ = example((3, 4, 3, 2), torch.float64)
    weight[0] = 0.3

    def function(x, w, b):
        return inplace_abn(x * 1, w, b, None, None, True, overwrite=True)

    assert torch.autograd.gradcheck(function, [t.requires_grad_() for t in (x, weight, bias)])


def test_overwriting_spares_leaves_views_and_strided_input():
    x, weight, bias, _ = example((4, 3, 6, 6))
    leaf = x.clone().requires_grad_()
    for given in (leaf, (leaf * 1)[:2], x[:, :, ::2]):
        before = given.detach().clone()
        y = inplace_abn(given, weight, bias, None, None, True, overwrite=True)
        assert torch.equal(given, before)
        assert y.data_ptr() != given.data_ptr()


def test_overwriting_is_seen_by_autograd():
    x, weight, bias, _ = example((4, 3, 6, 6))
    x = x.requires_grad_() * 1
    square = x.square()  # saves x
    inplace_abn(x, weight, bias, None, None, True, overwrite=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_with_float32_parameters(dtype):
    x, weight, bias, grad = example((8, 6, 7, 7))
    weight = weight.abs() + 0.1
    half = [t.to(dtype) for t in (x, grad)]
    exact = run(inplace_abn_ref, half[0].double(), weight.double(), bias.double(), half[1].double(), slope=1e-3)
    plain = run(inplace_abn_ref, half[0], weight, bias, half[1], slope=1e-3)
    ours = run(inplace_abn, half[0], weight, bias, half[1], slope=1e-3)
    assert ours["y"].dtype == dtype
    for name in ("y", "dx"):
        error, allowed = ((r[name].double() - exact[name]).abs().max() for r in (ours, plain))
        assert error <= 2 * allowed + 1e-6
    close(ours["mean"], exact["mean"], 1e-3)
    close(ours["var"], exact["var"], 1e-3)


def test_equals_installed_package():
    package = pytest.importorskip("inplace_abn.functions", reason="the inplace-abn package is not installed")
    for slope, shape in ((1e-2, (4, 6, 5, 7)), (1e-3, (2, 16, 9, 9))):
        x, weight, bias, grad = example(shape, seed=3)

        def packaged(x, w, b, mean, var, training, slope=slope):
            # The package overwrites its input, so it gets a copy.
            return package.inplace_abn(
                x.clone(), w, b, mean, var, training, 0.1, 1e-5, activation="leaky_relu", activation_param=slope
            )

        theirs, ours = run(packaged, x, weight, bias, grad), run(inplace_abn, x, weight, bias, grad, slope=slope)
        for name in theirs:
            close(ours[name], theirs[name])


def test_bad_arguments_say_what_was_expected():
    x, weight, bias, _ = example((4, 3, 5, 5))
    with pytest.raises(InputError, match="expected one of leaky_relu, identity"):
        inplace_abn(x, weight, bias, None, None, True, activation="relu")
    with pytest.raises(InputError, match="invertible"):
        inplace_abn(x, weight, bias, None, None, True, slope=0.0)
    with pytest.raises(InputError, match="running statistics"):
        inplace_abn(x, weight, bias, None, None, False)
    with pytest.raises(InputError, match="one value per channel"):
        inplace_abn(x[:1, :, :1, :1], weight, bias, None, None, True)


@pytest.mark.gpu
@pytest.mark.parametrize("activation", ["leaky_relu", "identity"])
def test_gpu_equals_float64_twin(activation):
    x, weight, bias, grad = example((8, 32, 17, 13))
    exact = run(inplace_abn_ref, *(t.double() for t in (x, weight, bias, grad)), activation=activation)
    got = run(inplace_abn, *(t.cuda() for t in (x, weight, bias, grad)), activation=activation)
    for name in exact:
        close(got[name].cpu(), exact[name], 1e-4)
