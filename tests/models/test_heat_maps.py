"""Where a class was seen: against the last layer times the feature map, softmax by hand, and finite differences."""

import pytest
import torch
from networks import images
from torch import nn

from csl import InputError
from csl.models import create_model, fuse
from csl.models.backbones import normalised
from csl.models.heat_maps import heat_maps


def to_unit(maps):
    maps = maps.clamp_min(0)
    return (maps / maps.amax((1, 2), keepdim=True)).nan_to_num(0)  # nothing spoke for the class


def network(name, **options):
    torch.manual_seed(1)
    model = create_model(name, num_classes=7, image_size=64, **options).eval()
    for part in model.modules():  # a new TResNet is all shortcuts, and new biases are 0
        if getattr(part, "bias", None) is not None:
            nn.init.normal_(part.bias, std=0.3)
    return model


@pytest.mark.parametrize("name", ["tresnet_m", "test_resnet", "test_convnext"])
def test_of_a_linear_head_it_is_the_last_layer_times_the_map(name):
    model, x = network(name), images(0, 1, 64)
    with torch.no_grad():
        if name == "tresnet_m":
            features, weight = model.body(x), model.head.fc.weight
        else:
            features, weight = model.forward_features(normalised(model, x)), model.get_classifier().weight
    found = heat_maps(model, x, [5, 0, 3])
    assert found.shape == (3, *features.shape[2:])
    if name == "test_convnext":  # a layer norm stands between: no longer linear in the map
        assert 0 <= found.min() <= found.max() == 1
        return
    expected = to_unit(torch.einsum("kf,fhw->khw", weight[[5, 0, 3]], features[0]))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(heat_maps(fuse(model), x, [5, 0, 3]), found, rtol=1e-3, atol=1e-4)


def test_of_a_bottleneck_it_is_both_layers_times_the_map():
    model, x = network("test_resnet", head="bottleneck"), images(0, 1, 64)
    fc = model.head.fc
    weight = fc.FC.weight @ fc.embedding_generator[0].weight
    with torch.no_grad():
        expected = to_unit(torch.einsum("kf,fhw->khw", weight[[2, 6]], model.features(x)[0]))
    torch.testing.assert_close(heat_maps(model, x, [2, 6]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_of_ml_decoder_it_is_the_attention_of_the_query(fused):
    model, x = network("tresnet_m", head="ml_decoder", num_groups=3), images(0, 1, 64)
    decoder = model.head.decoder
    layer, attention = decoder.layers[0], decoder.layers[0].multihead_attn
    with torch.no_grad():
        decoder.embed_standart.weight.mul_(1e4)  # of random weights all places are nearly alike
        memory = decoder.embed_standart(model.body(x).flatten(2)[0].T).relu()  # [HW, E]
        queries = layer.norm1(2 * decoder.query_embed.weight)
        project, bias = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        q, k = queries @ project[0].T + bias[0], memory @ project[1].T + bias[1]
        heads = zip(q.chunk(8, 1), k.chunk(8, 1), strict=True)
        weights = torch.stack([(a @ b.T / a.shape[1] ** 0.5).softmax(1) for a, b in heads]).mean(0)  # [Q, HW]
    classes = [0, 2, 3, 6]  # three classes a query
    expected = to_unit((4 * weights[[0, 0, 1, 2]] - 1.1).relu().reshape(4, 2, 2))
    assert (expected.amax((1, 2)) == 1).all()
    torch.testing.assert_close(heat_maps(fuse(model) if fused else model, x, classes), expected, rtol=1e-2, atol=5e-3)


def test_a_query_of_ml_decoder_to_which_all_places_are_alike_has_seen_nothing():
    model = network("test_resnet", head="ml_decoder")
    with torch.no_grad():
        model.head.decoder.layers[0].multihead_attn.in_proj_weight[:768].mul_(1e-3)
    assert not heat_maps(model, images(0, 1, 96), [0, 4]).any()


def test_of_a_vit_it_is_the_last_attention_times_its_gradient():
    model, x = network("test_vit").double(), images(0, 1, 64).double()
    attention = model.blocks[-1].attn
    found = heat_maps(model, x, [4])[0]
    attention.fused_attn = False
    kept, change = [], torch.zeros(())

    def changed(_, __, out):
        kept.append(out.detach())
        return out + change

    attention.attn_drop.register_forward_hook(changed)
    tokens = found.numel() + 1  # a class token
    with torch.no_grad():
        model(x)
        matrix, seen = kept[0], torch.zeros(tokens)
        for head in range(matrix.shape[1]):
            for token in range(tokens):
                change = torch.zeros_like(matrix)
                change[0, head, 0, token] = 1e-4
                up = model(x)[0, 4]
                change = -change
                gradient = (up - model(x)[0, 4]) / 2e-4
                seen[token] += (gradient * matrix[0, head, 0, token]).relu()
    torch.testing.assert_close(found.flatten(), (seen[1:] / seen[1:].max()).float(), rtol=1e-3, atol=1e-3)


def test_tokens_of_an_image_that_is_no_square_lie_in_its_shape():
    torch.manual_seed(0)
    model = create_model("test_vit", num_classes=3, image_size=(96, 32), head="bottleneck").eval()
    assert heat_maps(model, images(0, 1, (96, 32)), [1]).shape == (1, 6, 2)


def test_a_network_of_neither_is_refused():
    with pytest.raises(InputError, match="Linear: no heat map of it"):
        heat_maps(nn.Linear(3, 3), torch.zeros(1, 3, 8, 8), [0])
