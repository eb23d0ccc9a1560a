"""Networks whose layers depend on the size of the images: made for the size, resampled to another, refused in one line."""

import time
from pathlib import Path

import pytest
import timm
import torch

from csl import InputError, Predictor, TrainConfig, train
from csl.checkpoint import load_model
from csl.export.describe import describe
from csl.inference.validate import ValidateOptions, validate
from csl.models import check_image_size, create_model, fewest_images, own_size, resampled


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_vit", 64), ("test_vit", (64, 96)), ("test_maxvit", 64), ("test_resnet", 9), ("tresnet_m", 64)],
)
def test_a_size_that_a_network_takes(name, size):
    check_image_size(name, size)


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("test_vit", 50, "50x50: test_vit does not take it .Input height .50. should be divisible by patch size .16.."),
        ("test_maxvit", (64, 50), "64x50: test_maxvit does not take it .*, expected a size such as 160x160"),
        ("nest_tiny", (64, 32), "64x32: nest_tiny does not take it .Model only handles square inputs."),
        ("crossvit_tiny_240", 64, "64x64: crossvit_tiny_240 does not take it .*, expected a size such as 240x240"),
        ("inception_v3", 40, "40x40: inception_v3 does not take it .*(Kernel|Output) size"),
        ("tresnet_m", 50, "divide by 4"),
    ],
)
def test_a_size_that_it_does_not_take_is_one_line(name, size, why):
    with pytest.raises(InputError, match=why):
        check_image_size(name, size)


def test_recurrent_networks_are_tried_in_seconds_and_train():
    started = time.perf_counter()
    assert fewest_images("sequencer2d_s", 112) == 1
    model = create_model("sequencer2d_s", 3, head="ml_decoder", image_size=112)
    assert time.perf_counter() - started < 20  # a minute, step by step
    unused = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert not [name for name in unused if "rnn" in name]
    model(torch.zeros(1, 3, 56, 56)).sum().backward()
    assert all((parameter.grad is None) == (name in unused) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "now"),
    [("tf_efficientnet_b0_ns", "tf_efficientnet_b0.ns_jft_in1k"), ("jx_nest_tiny", "nest_tiny_jx"),
     ("swin_base_patch4_window7_224_in22k", "swin_base_patch4_window7_224.ms_in22k")],
)  # fmt: skip
@pytest.mark.parametrize("head", ["linear", "ml_decoder"])
def test_an_old_name_of_timm_is_one_line_with_that_of_today(name, now, head):
    for take in (lambda: create_model(name, 3, head=head), lambda: check_image_size(name, 64)):
        with pytest.raises(
            InputError, match=f"^--model_name {name}: an old name, expected what timm calls it now, {now}"
        ):
            take()


def test_an_unknown_tag_is_one_line():
    with pytest.raises(InputError, match="--model_name test_vit.nobody: unknown"):
        create_model("test_vit.nobody", 3)


@pytest.mark.parametrize("head", ["linear", "ml_decoder"])
@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_maxvit", "test_coatnet"])
def test_weights_of_another_size_are_resampled_as_timm_does(name, head):
    small, large = (create_model(name, 3, head=head, image_size=side).eval() for side in (64, 128))
    state = resampled(large, small.state_dict())
    large.load_state_dict(state)
    body = getattr(large, "body", large)
    prefix = "body." if head == "ml_decoder" else ""
    inner = {key.removeprefix(prefix): value for key, value in small.state_dict().items() if key.startswith(prefix)}
    theirs = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"state_dict": inner, "num_classes": body.num_classes},
        num_classes=body.num_classes, img_size=128,
    )  # fmt: skip
    for key, value in theirs.state_dict().items():
        assert torch.equal(value, state[prefix + key]), key
    assert resampled(large, large.state_dict()).keys() == large.state_dict().keys()


def test_weights_that_fit_stay_as_they_are():
    model = create_model("test_vit", 3, image_size=64)
    state = model.state_dict()
    assert resampled(model, state) is state
    other = create_model("test_vit", 3, image_size=(64, 96)).state_dict()
    assert resampled(model, other, (64, 96)) is other  # timm would take it for a square
    assert own_size("test_vit") == (160, 160)
    assert own_size("test_resnet") is None


def test_a_run_keeps_its_size_and_others_are_resampled_or_refused(garments, tmp_path, no_pictures):
    base = {
        "data": str(garments), "model_name": "test_vit", "batch_size": 8, "epochs": 1, "max_steps": 1, "workers": 0,
        "augment": "none", "device": "cpu",
    }  # fmt: skip
    best = train(TrainConfig(**base, image_size=64, path_dest=str(tmp_path / "run")), lambda _: None)
    checkpoint = str(tmp_path / "run" / "best.ckpt")
    options = {"model_path": checkpoint, "workers": 0, "device": "cpu"}
    assert validate(ValidateOptions(**options), lambda _: None)["mAP"] == best["mAP"]
    assert validate(ValidateOptions(**options, image_size=96), lambda _: None)["mAP"] > 0
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="--image_size 50x50: test_vit does not take it"):
        validate(ValidateOptions(**options, image_size=50), lambda _: None)
    with pytest.raises(InputError, match="--image_size 50x50: test_vit does not take it"):
        train(
            TrainConfig(**{**base, "data": "nowhere"}, image_size=50, path_dest=str(tmp_path / "run")), lambda _: None
        )
    assert sorted(tmp_path.rglob("*")) == before
    said = []
    train(
        TrainConfig(**base, image_size=(64, 96), model_path=checkpoint, path_dest=str(tmp_path / "wide")), said.append
    )
    assert any("0 missing" in line for line in said)
    wide = tmp_path / "wide" / "best.ckpt"
    assert Predictor.load(wide, device="cpu").image_size == (64, 96)
    with pytest.raises(InputError, match=r"of another shape \(pos_embed\); trained with --image_size 64x96"):
        Predictor.load(wide, image_size=96, device="cpu")
    assert "(one image, 64x96)" in describe(str(wide))
    assert load_model(wide)[1].image_size == (64, 96)


def test_weights_of_no_run_are_used_at_the_networks_own_size(tmp_path):
    model = create_model("test_vit", 3)
    file = Path(tmp_path / "w.pth")
    torch.save(model.state_dict(), file)
    assert Predictor.load(file, "test_vit", device="cpu").image_size == (160, 160)
    assert Predictor.load(file, "test_vit", image_size=64, device="cpu").image_size == 64
