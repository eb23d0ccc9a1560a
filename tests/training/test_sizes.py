"""--progressive_size: which sizes a run has when, the same resumed, evaluated at the full one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from csl import InputError
from csl.training.sizes import MULTIPLE, is_smaller, resized, size_at, sizes_between

pytestmark = pytest.mark.usefixtures("no_pictures")
SIZES = st.tuples(st.integers(16, 600), st.integers(16, 600))


@pytest.fixture
def run(short_run):
    """run(folder, ...) trains in the folder, three steps an epoch; returns what was said."""
    return lambda folder, **settings: short_run(folder, **{"image_size": 48, "progressive_size": 16, **settings})


def test_the_sizes_rise_evenly_to_the_full_one():
    assert sizes_between(128, 224) == [(128, 128), (160, 160), (192, 192), (224, 224)]
    assert sizes_between(32, 64) == [(32, 32), (48, 48), (48, 48), (64, 64)]
    assert sizes_between((96, 50), (192, 100)) == [(96, 50), (128, 64), (160, 80), (192, 100)]
    assert [size_at(step, 10, 128, 224)[0] for step in range(11)] == [128] * 3 + [160] * 2 + [192] * 3 + [224] * 3
    assert size_at(0, 10, None, (40, 30)) == (40, 30)


@given(SIZES, SIZES, st.integers(1, 1000))
def test_any_sizes_begin_and_end_as_asked(first, second, total):
    low, high = np.minimum(first, second), np.maximum(first, second)
    sizes = np.array([size_at(step, total, tuple(low.tolist()), tuple(high.tolist())) for step in range(total)])
    assert (sizes[0] == low).all()
    assert (np.diff(sizes, axis=0) >= 0).all()
    assert ((sizes % MULTIPLE == 0) | (sizes == low) | (sizes == high)).all()
    if total >= 4:
        assert (sizes[-(total // 4) :] == high).all()
    assert is_smaller(tuple(low), tuple(high)) == (low.tolist() != high.tolist())


def test_a_batch_is_resized_as_pillow_resizes_its_images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    found = resized(batch, (16, 32)).permute(0, 2, 3, 1).numpy().astype(int)  # [B, H, W, 3]
    expected = np.stack([np.array(Image.fromarray(one).resize((32, 16), Image.Resampling.BILINEAR)) for one in pixels])
    assert np.abs(found - expected).max() <= 1
    assert resized(batch, (40, 60)) is batch


def test_training_is_small_at_first_and_evaluation_never(run):
    seen = {True: [], False: []}

    def note(module, inputs):
        if type(module).__name__ == "ResNet" and inputs[0].device.type != "meta":
            seen[module.training].append(tuple(inputs[0].shape[2:]))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        said = run("a")
    finally:
        handle.remove()
    assert seen[True] == [(16, 16), (16, 16), (32, 32), (32, 32), (32, 32), (48, 48)]
    assert set(seen[False]) == {(48, 48)}
    assert [line for line in said if line.startswith("image size ")] == [
        "image size 16x16 from step 1 of 6 on", "image size 32x32 from step 3 of 6 on", "image size 48x48 from step 6 of 6 on",
    ]  # fmt: skip


def test_a_stopped_run_goes_on_with_its_sizes_and_a_cache_changes_nothing(run, tmp_path):
    run("straight", augment="fast")
    for steps in (1, 4, 5):
        run("b", augment="fast", max_steps=steps, resume=steps > 1, cache=str(tmp_path / "cache"))
    said = run("b", augment="fast", resume=True, cache=str(tmp_path / "cache"))
    assert [line for line in said if line.startswith("image size ")] == []  # of the last step: the full one
    straight, b = (torch.load(tmp_path / name / "last.ckpt", weights_only=True)["model"] for name in ("straight", "b"))
    assert all(torch.equal(straight[name], b[name]) for name in straight)


def test_what_a_size_cannot_be_is_refused_in_a_line(run, tmp_path):
    with pytest.raises(InputError, match=r"^--image_size 30x30: 30 pixels, expected height and width that divide by 4"):
        run("a", model_name="tresnet_m", progressive_size=30)
    with pytest.raises(InputError, match=r"^--progressive_size: the layers of test_vit are made for one image size"):
        run("a", model_name="test_vit", image_size=160)
    assert not (tmp_path / "a").exists()
    run("a", schedule="constant")
    with pytest.raises(
        InputError, match=r"^--epochs 3: the image sizes of --progressive_size are those of the 2 epochs"
    ):
        run("a", schedule="constant", epochs=3, resume=True)
    with pytest.raises(InputError, match=r"other settings, expected the same: --progressive_size 32 \(was 16\)"):
        run("a", schedule="constant", progressive_size=32, resume=True)
