"""The last layer of every kind of timm's classifiers is float32 where scores are compared, and nothing else of it changes."""

import pytest
import timm
import torch
from torch import nn

from csl.checkpoint import WITH_NORM, load_model
from csl.models import create_model

KINDS = {  # linear, timm's own linear, a convolution, a norm before it, two heads
    "test_resnet": 32, "mobilenetv3_small_050": 32, "resnetv2_18": 32, "test_nfnet": 32, "levit_128s": 224,
    "efficientformerv2_s0": 224,
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_float32_and_tell_images_apart(name):
    torch.manual_seed(0)
    model, size = create_model(name, 3, image_size=KINDS[name]), KINDS[name]
    plain = timm.create_model(name, num_classes=3)
    assert model.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(model.state_dict())
    x = torch.rand(4, 3, size, size)
    mean, std = (torch.tensor(plain.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), plain.eval()((x - mean) / std), rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(x).dtype == torch.float32
            if isinstance(plain.get_classifier(), nn.Module):  # levit's two heads are one output in evaluation alone
                assert model.train()(x).dtype == plain.train()(x).dtype


def with_norm(path, marked):
    """A checkpoint of a ConvNeXt with a head of ours, from a version that applied its final norm or from one that did not."""
    torch.manual_seed(1)
    model = create_model("convnext_atto", 3, head="bottleneck").eval()
    norm = model.body.head.norm
    nn.init.normal_(norm.weight)
    mark = {WITH_NORM: True} if marked else {}
    torch.save(
        {
            "model": model.state_dict(),
            "model_name": "convnext_atto",
            "head": "bottleneck",
            "classes": list("abc"),
            **mark,
        },
        path,
    )
    return model


@pytest.mark.parametrize("marked", [True, False])
def test_a_network_of_an_older_version_runs_as_it_was_trained(marked, tmp_path):
    model = with_norm(tmp_path / "old.ckpt", marked)
    loaded, _ = load_model(tmp_path / "old.ckpt")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = model.body.forward_features((x - model.body.pixel_mean) / model.body.pixel_std)
        expected = model.head(model.body.head.norm(features) if marked else features)
        torch.testing.assert_close(loaded(x), expected)
        assert not torch.allclose(model.head(features), model.head(model.body.head.norm(features)))
