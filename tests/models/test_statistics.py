"""The pixel statistics of a timm network are those of the weights that are loaded, and stay so in every file of it."""

import pytest
import torch
from safetensors.torch import save_file
from timm import get_pretrained_cfg

from csl import checkpoint
from csl.labels.class_set import ClassSet
from csl.models import create_model, name_with_tag
from csl.runs.config import TrainConfig
from csl.training.experiment import create_network

BARE, TAGGED = "mobilenetv4_conv_small", "mobilenetv4_conv_small.e3600_r256_in1k"


@pytest.fixture
def weights(tmp_path):
    """A file as timm's hub has it."""
    path = tmp_path / f"{TAGGED}.safetensors"
    save_file({k: v.contiguous() for k, v in create_model(BARE, 10).state_dict().items()}, path)
    return path


def test_the_statistics_of_the_weights_go_with_the_network(weights, tmp_path):
    mean = torch.tensor(get_pretrained_cfg(TAGGED).mean)
    assert not torch.equal(mean, torch.tensor(get_pretrained_cfg(BARE).mean))  # else this shows nothing
    model, line = create_network(
        TrainConfig(model_name=BARE, model_path=str(weights)), ClassSet(list("abcd"), list("abcd"))
    )
    assert torch.equal(model.pixel_mean.flatten(), mean)
    assert line.startswith(f"network: {TAGGED}, 4 classes")
    content = {"model": model.state_dict(), "model_name": TAGGED, "num_classes": 4, "classes": list("abcd")}
    checkpoint.write(tmp_path / "best.ckpt", content)
    for name in (None, BARE, TAGGED):
        again, _ = checkpoint.load_model(tmp_path / "best.ckpt", name)
        assert torch.equal(again.pixel_mean.flatten(), mean)
    raw, found = checkpoint.load_model(weights, BARE)
    assert torch.equal(raw.pixel_mean.flatten(), mean)
    assert found.model_name == TAGGED


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        (BARE, f"timm/{TAGGED}", TAGGED),
        (f"{BARE}.e1200_r224_in1k", f"timm/{TAGGED}", TAGGED),
        (BARE, None, BARE),
        (BARE, "outputs/best.ckpt", BARE),
        (BARE, f"{BARE}.mine.safetensors", BARE),
        (BARE, "timm/resnet18.a1_in1k", BARE),
        ("no_network", "no_network.tag.safetensors", "no_network"),
    ],
)
def test_a_tag_is_taken_from_weights_of_the_same_network(name, path, expected):
    assert name_with_tag(name, path) == expected
