"""Each kernel of csl.ops.abn_triton against its plain twin in float64: in Triton's interpreter where there is no GPU."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

import triton
from triton import language as tl

from csl.ops import abn_parts, abn_triton
from csl.ops.abn_probe import compare_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHANNELS = 70  # more than a block, and no multiple of one


@triton.jit
def _sum_below(n_ptr, out_ptr):
    total = tl.load(out_ptr)
    for k in range(tl.load(n_ptr)):
        total += k
    tl.store(out_ptr, total)


@pytest.fixture(autouse=True, scope="module")
def _loops():
    """Skips where Triton itself cannot loop: the interpreter of 3.6 asks of NumPy what 2.4 has not any more."""
    n, out = (torch.tensor([value], device=DEVICE) for value in (4, 0))
    try:
        _sum_below[(1,)](n, out)
    except Exception as error:  # Triton's, or of whatever package it stumbles over
        pytest.skip(f"Triton {triton.__version__} does not run here: {error}")
    assert out.item() == 6


@pytest.fixture
def spans(request, monkeypatch):
    """So many programs, at most, share a column of [3, C, 7, 7]; channels-last has tiles of a few rows then."""
    rows, tile = max(147 // request.param // 2, 1), abn_triton.tile
    monkeypatch.setattr(abn_triton, "splits_for", lambda device, tiles, columns: min(tiles, request.param))
    if request.param > 1:
        small = 1 << rows.bit_length() - 1
        monkeypatch.setattr(
            abn_triton, "tile", lambda c, p, last, size: (small, 64) if last else tile(c, p, last, size)
        )
    abn_triton._plan.cache_clear()
    yield
    abn_triton._plan.cache_clear()


def draw(dtype, shift=0.0, layout=torch.channels_last):
    torch.manual_seed(0)
    x = (torch.randn(3, CHANNELS, 7, 7, device=DEVICE) * 2 + shift).to(dtype).contiguous(memory_format=layout)
    weight, bias = torch.randn(2, CHANNELS, device=DEVICE)
    return x, weight, bias


def close(actual, expected, tolerance):
    assert (actual.double() - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-12)


def test_the_probe_finds_the_kernels_right():
    compare_kernels(torch.device(DEVICE))


@pytest.mark.parametrize(
    ("spans", "dtype", "shift", "layout"),
    [
        (1, torch.bfloat16, 100.0, torch.channels_last),
        (5, torch.float32, 1e4, torch.channels_last),
        (147, torch.float32, 100.0, torch.channels_last),  # more than the merging kernel takes at a time
        (1, torch.float32, 1e4, torch.contiguous_format),
        (5, torch.bfloat16, 100.0, torch.contiguous_format),
    ],
    indirect=["spans"],
)
@pytest.mark.usefixtures("spans")
def test_constants_of_a_batch(dtype, shift, layout):
    x, weight, _ = draw(dtype, shift, layout)
    found = []
    for backend, wide in (("triton", False), ("torch", True)):
        given, w = (x.double(), weight.double()) if wide else (x, weight)
        running = [torch.full_like(w, 0.2), torch.full_like(w, 1.5)]
        batches = torch.tensor(4, device=DEVICE)
        made, share = abn_parts.prepare(given, w, *running, batches, 0.1, 1e-5, backend, None)
        assert batches == 5
        found.append((made, *running, share))
    (made, mean, var, share), (exact, exact_mean, exact_var, exact_share) = found
    for row in range(4):
        close(made[row], exact[row], 1e-6 if row in (0, 3) else 1e-4)
    close(mean, exact_mean, 1e-6)
    close(var, exact_var, 1e-4)
    assert share == pytest.approx(exact_share[0].item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("spans", "ends"),
    [(1, "leaky"), (5, "leaky"), (5, "identity"), (5, "joined"), (5, "fixed statistics"), (147, "identity")],
    indirect=["spans"],
)
@pytest.mark.usefixtures("spans")
def test_gradients_of_a_layer(dtype, ends):
    y, weight, bias = draw(dtype)
    dy, joined = y.flip(0).cos(), y.flip(1).relu() if ends == "joined" else None
    made = torch.rand(4, CHANNELS, device=DEVICE) + 0.5
    settings = 3, 0.0 if ends == "fixed statistics" else 1 / 147, 0.01 if ends == "leaky" else 1.0
    found = abn_parts.gradients(dy, y, weight, bias, made, *settings, "triton", None, joined)
    wide = (t if t is None else t.double() for t in (dy, y, weight, bias, made))
    exact = abn_parts.gradients(*wide, *settings, "torch", None, None if joined is None else joined.double())
    rounding = 0.01 if dtype == torch.bfloat16 else 1e-5
    for name, ours, value in zip(("dx", "dweight", "dbias", "dz"), found, exact, strict=True):
        close(ours, value, rounding if name == "dx" else 1e-5)
        assert ours.dtype == (dtype if name in ("dx", "dz") else torch.float32)
    assert abn_parts.gradients(dy, y, weight, bias, made, *settings, "triton", None, joined, needed=False)[0] is None
