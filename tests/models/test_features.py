"""csl.models.features and the heads of timm's networks."""

import pytest
import timm
import torch

from csl import InputError, checkpoint
from csl.models import create_model, truncate
from csl.models.recognition import recognise
from csl.models.summary import measure


def images(*size):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tresnet():
    torch.manual_seed(0)
    return create_model("tresnet_m", 5).eval()


def test_layer4_0_conv1_is_what_the_openimages_fork_cut_out():
    with torch.device("meta"):
        cut = truncate(create_model("tresnet_m", 9605, bottleneck_head=True), "layer4.0.conv1")
    summary = measure(cut, (1024, 1024))
    assert summary.parameters == 14_900_608
    assert summary.layers[-1].shape == (1, 512, 64, 64)
    assert summary.layers[-1].stride == 16


@pytest.mark.parametrize("layer", ["conv1", "layer1", "layer2.0.conv1", "layer3.10", "layer4.2.conv3", "layer4.0.se"])
def test_a_truncated_network_gives_what_the_whole_one_computes_there(tresnet, layer):
    seen = []
    handle = tresnet.get_submodule(f"body.{layer}").register_forward_hook(
        lambda _m, _i, output: seen.append(output.clone())
    )
    cut = truncate(tresnet, layer)
    x = images(36, 52)
    with torch.no_grad():
        tresnet(x)
        handle.remove()
        assert torch.equal(cut(x), seen[0])
    whole = tresnet.state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in cut.state_dict().items())
    assert len(cut.state_dict()) < len(whole)


def test_weights_load_strictly_with_the_class_count_of_the_file(tresnet, tmp_path):
    torch.save({"model": tresnet.state_dict(), "num_classes": 5}, tmp_path / "weights.pth")
    loaded, read = checkpoint.load_model(tmp_path / "weights.pth")
    assert read.num_classes == 5
    with torch.no_grad():
        assert torch.equal(truncate(loaded, "layer2")(images(32, 32)), tresnet.body[:4](images(32, 32)))
    extractor = create_model("tresnet_m", features_only=True)
    line = checkpoint.load_backbone(extractor, read)
    assert "432 tensors loaded, 2 skipped (the head among them), 0 missing" in line


@pytest.mark.parametrize("size", [(64, 64), (61, 47), (20, 33)])
def test_feature_maps_of_any_size(tresnet, size):
    extractor = create_model("tresnet_m", features_only=True).eval()
    extractor.load_state_dict({k: v for k, v in tresnet.state_dict().items() if k.startswith("body.")}, strict=True)
    info = extractor.feature_info
    with torch.no_grad():
        maps = extractor(images(*size))
    assert info.channels() == [64, 128, 1024, 2048]
    assert info.reduction() == [4, 8, 16, 32]
    assert info.module_name() == ["body.layer1", "body.layer2", "body.layer3", "body.layer4"]
    for channels, stride, features in zip(info.channels(), info.reduction(), maps, strict=True):
        assert features.shape == (1, channels, *(-(-side // stride) for side in size))
    if size == (64, 64):
        with torch.no_grad():
            assert torch.equal(maps[-1], tresnet.body(images(64, 64)))


def test_some_maps_cost_some_layers():
    with torch.device("meta"):
        extractor = create_model("tresnet_l_v2", features_only=True, out_indices=(0, 2))
        maps = extractor(torch.empty(1, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 64, 16, 16), (1, 512, 8, 8)]
    assert extractor.feature_info.reduction() == [4, 8]
    assert not any("layer3" in key for key in extractor.state_dict())


def test_features_of_timm_networks_are_its_own():
    torch.manual_seed(1)
    ours = create_model("resnet18", features_only=True, out_indices=(2, 3)).eval()
    theirs = timm.create_model("resnet18", features_only=True, out_indices=(2, 3)).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert ours.feature_info.channels() == [128, 256]
    x = images(64, 64)
    config = timm.get_pretrained_cfg("resnet18")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs((x - mean) / std))


@pytest.mark.parametrize("head", ["bottleneck", "ml_decoder"])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        ("mobilenetv3_small_050", 64),
        ("vit_tiny_patch16_224", 224),
        ("swin_tiny_patch4_window7_224", 224),
    ],
)
def test_every_backbone_takes_every_head(name, size, head):
    torch.manual_seed(2)
    net = create_model(name, 11, head=head, num_groups=4).eval()
    with torch.no_grad():
        logits = net(images(size, size))
    assert logits.shape == (1, 11)
    assert recognise(net.state_dict()) == (None, head, 11, 4 if head == "ml_decoder" else None)
    assert not any("pixel" in key for key in net.state_dict())


def test_the_head_sees_the_normalised_features():
    torch.manual_seed(3)
    net = create_model("resnet18", 6, head="bottleneck").eval()
    theirs = timm.create_model("resnet18", num_classes=0).eval()
    theirs.load_state_dict(net.body.state_dict(), strict=True)
    config = timm.get_pretrained_cfg("resnet18")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    x = images(64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net.head.fc(theirs((x - mean) / std)))


def test_a_network_with_a_head_is_saved_and_starts_from_timms_weights(tmp_path):
    torch.manual_seed(4)
    net = create_model("resnet18", 6, head="ml_decoder").eval()
    content = {"model": net.state_dict(), "model_name": "resnet18", "num_classes": 6}
    checkpoint.write(tmp_path / "ours.ckpt", content)
    loaded, read = checkpoint.load_model(tmp_path / "ours.ckpt")
    assert (read.model_name, read.head, read.num_classes) == ("resnet18", "ml_decoder", 6)
    with torch.no_grad():
        assert torch.equal(loaded(images(64, 64)), net(images(64, 64)))
    theirs = timm.create_model("resnet18", num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    line = checkpoint.load_backbone(net, checkpoint.read(tmp_path / "timm.pth"))
    assert "120 tensors loaded, 2 skipped" in line
    assert torch.equal(net.body.conv1.weight, theirs.conv1.weight)


def test_bad_requests_name_what_there_is(tresnet):
    with pytest.raises(InputError, match="layer layer4.0.conv9: no conv9, expected one of conv1, conv2, se, conv3"):
        truncate(tresnet, "layer4.0.conv9")
    with pytest.raises(InputError, match="ResNet: only a TResNet"):
        truncate(create_model("resnet18", 2), "layer1")
    for indices in ((5,), (2, 1), ()):
        with pytest.raises(InputError, match="expected ascending numbers from 0"):
            create_model("tresnet_m", features_only=True, out_indices=indices)
    with pytest.raises(InputError, match="resnet18: timm has no such features"):
        create_model("resnet18", features_only=True, out_indices=(9,))
    with pytest.raises(InputError, match="only with features_only"):
        create_model("tresnet_m", out_indices=(1,))
    with pytest.raises(InputError, match="--dropout 0.2: expected 0 with --head ml_decoder"):
        create_model("resnet18", 3, head="ml_decoder", dropout=0.2)
    with pytest.raises(InputError, match="at least 20"):
        truncate(tresnet, "layer1")(images(12, 64))
