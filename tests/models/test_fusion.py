"""csl.models.fusion: the inference form gives the logits of the network it was made from."""

import copy
import warnings

import pytest
import torch
from networks import images, set_golden_weights
from torch import nn

from csl.models import create_model, fuse
from csl.models.abn import InPlaceABN
from csl.models.tresnet import CONFIGS, TResNet, TResNetConfig

HEADS = [("linear", {}), ("bottleneck", {}), ("hidden", {}), ("ml_decoder", {"num_groups": 4}), ("boostlu", {})]


def close(ours, reference, tolerance=1e-4):
    assert (ours.float() - reference.float()).abs().max() <= tolerance * reference.abs().max()


@pytest.fixture(scope="module")
def small():
    """A narrow network with golden weights, about half of whose ABN scales are negative, and images."""
    model = set_golden_weights(TResNet(TResNetConfig((2, 2, 2, 1), width=0.25), 7)).eval()
    return model, images(5, 2, (44, 36))


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_the_network(name):
    model = set_golden_weights(create_model(name, num_classes=7)).eval()
    assert any((m.weight < 0).any() for m in model.modules() if isinstance(m, InPlaceABN))
    x = images(3, 2, 64)
    with torch.no_grad():
        close(fuse(model)(x), model(x))


@pytest.mark.parametrize(("head", "options"), HEADS)
@pytest.mark.parametrize("channels_last", [True, False])
def test_every_head_and_layout(head, options, channels_last):
    config = TResNetConfig((1, 1, 2, 1), width=0.25)
    model = set_golden_weights(TResNet(config, 10, head, **options)).eval()
    x, fused = images(3, 3, (36, 52)), fuse(model)
    if channels_last:
        x, fused = (t.to(memory_format=torch.channels_last) for t in (x, fused))
    with torch.inference_mode():
        close(fused(x), model(x))
        close(fused(x[:1]), model(x[:1]))  # another batch size


def test_nothing_that_inference_does_not_need(small):
    fused = fuse(small[0])
    assert not any(isinstance(m, InPlaceABN | nn.Dropout) for m in fused.modules())
    assert not any(p.requires_grad for p in fused.parameters())
    assert not any("running" in key for key in fused.state_dict())
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in small[0].parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_low_precision(small, dtype):
    model, x = small
    fused = fuse(model)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", dtype):
            close(fused(x), exact, 0.05)
        close(copy.deepcopy(fused).to(dtype)(x.to(dtype)), exact, 0.05)
        close(fused(x), exact)  # float32 again


def test_copies_states_and_later_changes(small):
    model, x = small
    fused = fuse(model)
    with torch.no_grad():
        expected = fused(x)
        copied = copy.deepcopy(fused)
        assert torch.equal(copied(x), expected)
        close(copied.double()(x.double()), expected)
        other = fuse(set_golden_weights(TResNet(TResNetConfig((2, 2, 2, 1), width=0.25), 7)).eval())
        for parameter in other.parameters():
            parameter.mul_(0.5)
        assert not torch.allclose(other(x), expected, rtol=1e-3)
        other.load_state_dict(fused.state_dict())
        assert torch.equal(other(x), expected)
        for parameter in fused.parameters():
            parameter.zero_()
        close(model(x), expected)  # no storage is shared


def test_input_and_gradient(small):
    model, x = small
    fused, before = fuse(model), x.clone()
    fused(x)
    assert torch.equal(x, before)
    gradients = []
    for network in (fused, model):
        leaf = x.clone().requires_grad_()
        network(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    close(gradients[0], gradients[1], 1e-3)


def test_compiled_and_exported_in_one_graph(small):
    model, x = small
    fused = fuse(model)
    with torch.no_grad():
        expected = fused(x)
        close(torch.compile(fused, fullgraph=True, backend="aot_eager")(x), expected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            close(torch.export.export(fused, (x,)).module()(x), expected)


def test_other_networks_come_back_as_they_are():
    other = nn.Linear(2, 2)
    assert fuse(other) is other
