"""The Triton kernels of csl.ops.blur and csl.ops.squeeze_excite, in Triton's interpreter (see conftest.py) without a GPU; and
all kernels of the package through Triton's compiler, for a GPU that need not be there.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

import csl.ops
from csl import InputError
from csl.models.tresnet import BlurPool
from csl.ops import blur, blur_ref, resolve_backend, set_abn_backend, squeeze_excite, squeeze_excite_ref

pytestmark = pytest.mark.usefixtures("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TESTS = Path(__file__).parents[1]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def gradients(function, arguments, seed=1):
    """The output of a function and the gradients of its arguments, for one random gradient of the output."""
    leaves = [t.detach().clone().requires_grad_() for t in arguments]
    y = function(*leaves)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y.backward(grad.to(y.device, y.dtype))
    return [y.detach(), *(t.grad for t in leaves)]


def image(shape, layout, dtype=torch.float64, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(DEVICE, dtype).contiguous(memory_format=LAYOUTS[layout])


def attention_of(channels, inner=4, dtype=torch.float64):
    g = torch.Generator().manual_seed(2)
    shapes = (inner, channels, 1, 1), (inner,), (channels, inner, 1, 1), (channels,)
    return [torch.randn(s, generator=g, dtype=torch.float64).to(DEVICE, dtype) for s in shapes]


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (2, 3), (3, 3), (4, 4), (5, 4), (4, 7), (9, 9), (14, 14)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_blur_equals_the_plain_one(size, layout):
    x = image((2, 70, *size), layout)
    ours, plain = (gradients(f, [x]) for f in (blur, blur_ref))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b)
    assert ours[0].is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blur_passes_gradcheck(layout):
    assert torch.autograd.gradcheck(blur, image((2, 3, 5, 4), layout).requires_grad_())


def test_blur_of_what_is_not_dense():
    x = image((2, 3, 10, 8), "contiguous")[:, :, ::2, ::2]
    grad = image((2, 3, 3, 2), "contiguous").transpose(0, 1).contiguous().transpose(0, 1)
    found = []
    for function in (blur, blur_ref):
        leaf = x.detach().requires_grad_()
        y = function(leaf)
        y.backward(grad)
        found.append((y, leaf.grad))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_blur_in_half_precision_is_the_exact_one_rounded(dtype):
    x = image((2, 5, 9, 8), "channels-last", dtype)
    for ours, exact in zip(gradients(blur, [x]), gradients(blur_ref, [x.double()]), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(
            ours.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-6 + torch.finfo(dtype).eps
        )


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 3, 1, 1), (3, 70, 7, 2), (2, 8, 40, 30)])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_squeeze_excite_equals_the_plain_one(shape, residual, layout):
    arguments = [image(shape, layout), *attention_of(shape[1]), *([image(shape, layout, seed=3)] if residual else [])]
    ours, plain = (gradients(f, arguments) for f in (squeeze_excite, squeeze_excite_ref))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b)
    assert ours[0].is_contiguous(memory_format=LAYOUTS[layout])


def test_squeeze_excite_takes_a_shortcut_and_a_gradient_of_another_layout():
    arguments = [image((2, 6, 5, 4), "channels-last"), *attention_of(6), image((2, 6, 5, 4), "contiguous", seed=3)]
    for a, b in zip(*(gradients(f, arguments) for f in (squeeze_excite, squeeze_excite_ref)), strict=True):
        torch.testing.assert_close(a, b)


def test_squeeze_excite_is_as_exact_in_bfloat16_as_the_plain_operations():
    weights = attention_of(6, dtype=torch.float32)
    x, shortcut = (image((4, 6, 7, 5), "channels-last", torch.bfloat16, seed) for seed in (0, 3))
    ours = gradients(squeeze_excite, [x, *weights, shortcut])
    set_abn_backend("torch")
    plain = gradients(squeeze_excite, [x, *weights, shortcut])
    for a, b in zip(ours, plain, strict=True):
        assert a.dtype == b.dtype
        assert (a.double() - b.double()).abs().max() <= 2e-2 * b.double().abs().max()


def test_nan_goes_through():
    x = image((2, 3, 5, 4), "channels-last")
    x[0, 1, 0, 0] = torch.nan
    assert blur(x)[0, 1].isnan().any()
    y = squeeze_excite(x, *attention_of(3), image((2, 3, 5, 4), "channels-last", seed=3))
    assert y[0].isnan().all()
    assert not y[1].isnan().any()


def test_the_probe_does_not_depend_on_autocast_or_the_default_dtype():
    with torch.autocast(DEVICE, torch.bfloat16), torch.inference_mode():
        assert resolve_backend("triton", DEVICE)[0] == "triton"
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert resolve_backend("triton", DEVICE)[0] == "triton"
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_exported_graph_has_pytorchs_operators_alone():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), BlurPool(4)).to(DEVICE).eval()
    graph = torch.export.export(network, (image((1, 3, 12, 12), "contiguous", torch.float32),)).graph
    assert not [node for node in graph.nodes if "csl" in str(node.target)]


def test_sizes_that_cannot_be_blurred():
    from csl.ops import blur_pool_triton

    with pytest.raises(InputError, match="1 x 5, expected 2 or more pixels"):
        blur(image((1, 3, 1, 5), "contiguous"))
    with pytest.raises(InputError, match=r"a gradient of \(3, 3\), expected half of 4 x 6"):
        blur_pool_triton.blur_backward(image((1, 3, 3, 3), "contiguous"), 4, 6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_batch(layout):
    arguments = [image((0, 6, 5, 4), layout), *attention_of(6), image((0, 6, 5, 4), layout)]
    assert all(g is not None and not g.any() for g in gradients(squeeze_excite, arguments)[1:])
    assert gradients(blur, arguments[:1])[0].shape == (0, 6, 3, 2)


def test_operators_pass_pytorchs_own_checks():
    from csl.ops import blur_pool_triton

    tests = ("test_schema", "test_faketensor")
    x = image((2, 5, 7, 4), "channels-last", torch.float32)
    torch.library.opcheck(blur_pool_triton.blur_op, (x,), test_utils=tests)
    torch.library.opcheck(blur_pool_triton.blur_backward_op, (blur_pool_triton.blur(x), 7, 4), test_utils=tests)


def test_every_kernel_compiles_for_a_gpu(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, TESTS / "compile_kernels.py"], capture_output=True, text=True, env=environment, timeout=600
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    sources = "".join(path.read_text() for path in Path(csl.ops.__file__).parent.glob("*_triton.py"))
    assert set(ended.stdout.split()) == set(re.findall(r"def (_\w+_kernel)\(", sources))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gpu_real_sizes(dtype, layout):
    x, shortcut = (image((32, 128, 56, 56), layout, dtype, seed) for seed in (0, 3))
    tolerance = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 2 * torch.finfo(dtype).eps}
    for ours, exact in zip(gradients(blur, [x]), gradients(blur_ref, [x.double()]), strict=True):
        torch.testing.assert_close(ours.double(), exact, **tolerance)
    arguments = [x, *attention_of(128, dtype=torch.float32), shortcut]
    ours = gradients(squeeze_excite, arguments)
    again = gradients(squeeze_excite, arguments)
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
    set_abn_backend("torch")
    for a, b in zip(ours, gradients(squeeze_excite, arguments), strict=True):
        assert (a.double() - b.double()).norm() <= 2e-2 * b.double().norm()
