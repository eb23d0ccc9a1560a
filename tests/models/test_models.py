"""csl.models: every key, shape and logit of the original networks, and the timm path."""

import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN, golden
from networks import images, set_golden_weights

from csl import InputError
from csl.models import create_model
from csl.models.tresnet import SpaceToDepth

LOGIT_CASES, LOGITS = golden("tresnet_logits")
STATE_DICTS = json.loads((GOLDEN / "tresnet_state_dict.json").read_text())
PARAMETERS = {"tresnet_m": 29_503_952, "tresnet_l": 53_750_896, "tresnet_xl": 75_991_804, "tresnet_l_v2": 44_289_744}


def original_name(case):
    """Model name and head options of a golden name such as tresnet_m_bottleneck or tresnet_m_ml_decoder_9605."""
    name, _, rest = case.partition("_ml_decoder_")
    if rest:
        return name, {"head": "ml_decoder", "num_classes": int(rest), "num_groups": 200 if rest == "9605" else None}
    name, bottleneck, _ = case.partition("_bottleneck")
    return name, {"bottleneck_head": bool(bottleneck), "num_classes": 80}


@pytest.mark.parametrize("case", STATE_DICTS)
def test_state_dict_has_the_original_keys_and_shapes(case):
    name, options = original_name(case)
    with torch.device("meta"):
        model = create_model(name, **options)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == STATE_DICTS[case]
    if case in PARAMETERS:
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[case]


@pytest.mark.parametrize("case", LOGIT_CASES, ids=lambda c: c["case"])
def test_eval_logits_equal_the_original(case):
    options = {"num_classes": case["num_classes"], "bottleneck_head": case.get("do_bottleneck_head", False)}
    if case.get("head"):
        groups = case["num_of_groups"]
        options |= {"head": case["head"], "num_groups": groups if groups > 0 else None}
    model = set_golden_weights(create_model(case["model_name"], **options)).eval()
    x, expected = images(case["image_seed"], case["batch"], case["size"]), LOGITS[case["case"]]
    for memory_format in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad():
            logits = model.to(memory_format=memory_format)(x.contiguous(memory_format=memory_format)).numpy()
        assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_train_step_equals_the_original():
    model = set_golden_weights(create_model("tresnet_m", num_classes=80)).train()
    logits = model(images(8, 4, 64))
    expected = LOGITS["tresnet_m_train_logits"]
    assert np.abs(logits.detach().numpy() - expected).max() <= 1e-4 * np.abs(expected).max()
    abn = model.body.conv1[1]
    for name in ("running_mean", "running_var"):
        recorded = LOGITS[f"tresnet_m_train_{name}"]
        assert np.abs(getattr(abn, name).numpy() - recorded).max() <= 1e-5 * np.abs(recorded).max()
    assert abn.num_batches_tracked == 1
    logits.square().mean().backward()
    norms = json.loads((GOLDEN / "tresnet_m_train_grad_norms.json").read_text())
    gradients = {k: p.grad.norm().item() for k, p in model.named_parameters()}
    assert gradients.keys() == norms.keys()
    for key, norm in norms.items():
        assert gradients[key] == pytest.approx(norm, rel=0.01, abs=1e-6), key


def test_fresh_blocks_start_as_their_shortcut_and_still_learn():
    model = create_model("tresnet_m", num_classes=3).train()
    block = model.body.layer3[1]
    assert torch.equal(block.last_abn.weight, torch.zeros(1024))
    model(images(0, 2, 32)).square().sum().backward()
    assert block.last_abn.weight.grad.abs().max() > 0


def test_buffers_move_and_stay_out_of_the_state_dict():
    model = create_model("tresnet_m", num_classes=3)
    kernel = model.body.layer2[0].conv1[1].kernel
    assert kernel.sum() == pytest.approx(128)
    assert not any("kernel" in k for k in model.state_dict())
    assert model.double().body.layer2[0].conv1[1].kernel.dtype == torch.float64


@pytest.mark.parametrize("size", [(20, 20), (36, 52), (224, 20), (44, 100)])
def test_any_size_that_divides_by_four(size):
    with torch.no_grad():
        assert create_model("tresnet_m", num_classes=5).eval()(torch.rand(1, 3, *size)).shape == (1, 5)


@pytest.mark.parametrize("size", [(16, 64), (64, 62), (30, 30)])
def test_other_sizes_are_an_error_that_says_so(size):
    with pytest.raises(InputError, match="divide by 4 and are at least 20"):
        create_model("tresnet_m", num_classes=5)(torch.rand(1, 3, *size))


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_timm_models_normalise_with_their_own_statistics(name):
    import timm

    ours = create_model(name, num_classes=7).eval()
    theirs = timm.create_model(name, num_classes=7).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = images(3, 2, 64)
    mean, std = (torch.tensor(theirs.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs((x - mean) / std))


def test_unknown_names_list_what_there_is():
    with pytest.raises(InputError, match="tresnet_m, tresnet_l, tresnet_xl, tresnet_l_v2"):
        create_model("tresnet_s")
    with pytest.raises(InputError, match="such as .*resnet18"):
        create_model("resnet1")
    with pytest.raises(InputError, match="--head mean"):
        create_model("tresnet_m", head="mean")
    with pytest.raises(InputError, match="--num_classes 0"):
        create_model("tresnet_m", num_classes=0)


@pytest.mark.parametrize(
    ("name", "frozen"),
    [("test_convnext", 0), ("test_mambaout", 2), ("mobilenetv3_small_050", 2), ("test_vit_relpos", 0)],
)
def test_what_a_head_does_not_use_of_a_timm_network_is_frozen_and_all_else_trains(name, frozen):
    model = create_model(name, num_classes=3, head="ml_decoder")
    size = model.body.pretrained_cfg["input_size"][1:]
    model(images(0, 2, size)).square().sum().backward()
    trained = {key: p.grad is not None for key, p in model.named_parameters() if p.requires_grad}
    assert all(trained.values()), [key for key, has in trained.items() if not has]
    assert sum(not p.requires_grad for p in model.body.parameters()) == frozen


def test_a_head_sees_features_normalised_as_timms_classifier_does():
    import timm

    theirs = set_golden_weights(timm.create_model("test_convnext", num_classes=0)).eval()
    ours = create_model("test_convnext", num_classes=3, head="bottleneck").eval()
    ours.body.load_state_dict(theirs.state_dict())
    seen = []
    ours.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = images(1, 2, 32)  # one pixel is left of it: timm pools first
    with torch.no_grad():
        ours(x)
        expected = theirs((x - ours.body.pixel_mean) / ours.body.pixel_std)
    assert seen[0].shape[2:] == (1, 1)
    torch.testing.assert_close(seen[0].flatten(1), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_moves_the_pixels_in_its_own_precision(dtype):
    x, layer = torch.rand(2, 3, 8, 8, dtype=dtype), SpaceToDepth()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
        assert found.dtype == (torch.bfloat16 if dtype == torch.float32 else dtype)  # as convolutions take them
    assert torch.equal(found, layer(x).to(found.dtype))
