"""Scores that are compared: the last layer is computed in float32 outside of training, also under autocast."""

import copy

import pytest
import torch

from csl.models import create_model, fuse
from csl.models.heads import create_head

IMAGES, CLASSES = 2000, 3


def scored(module, x, dtype=torch.bfloat16):
    with torch.inference_mode(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        return module(x)


@pytest.mark.parametrize("name", ["linear", "bottleneck", "hidden", "ml_decoder", "boostlu"])
def test_low_precision_merges_no_scores(name):
    torch.manual_seed(0)
    head = create_head(name, 32, CLASSES).eval()
    x = torch.randn(IMAGES, 32, 2, 2)
    exact = scored(head, x, None).sigmoid()
    low = scored(head, x.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.sigmoid(), exact, atol=0.02, rtol=0)
    for c in range(CLASSES):
        assert len(low[:, c].sigmoid().unique()) > 0.98 * len(exact[:, c].unique())
    if name != "ml_decoder":  # which adds a bias in float32
        assert scored(head.train(), x.bfloat16()).dtype == torch.bfloat16  # training stays as it was


@pytest.mark.parametrize(
    ("name", "head"),
    [("test_resnet", "linear"), ("test_vit", "linear"), ("test_convnext", "linear"), ("test_resnet", "bottleneck"),
     ("tresnet_m", "linear")],
)  # fmt: skip
def test_logits_of_every_network_are_float32(name, head):
    torch.manual_seed(0)
    model = create_model(name, 4, head=head).eval()
    size = (160, 160) if name == "test_vit" else (64, 64)
    x = torch.rand(2, 3, *size)
    forms = [model, copy.deepcopy(model), *([fuse(model)] if name == "tresnet_m" else [])]
    for form in forms:
        logits = scored(form, x)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, scored(form, x, None), atol=0.1, rtol=0.1)
