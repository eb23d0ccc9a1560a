"""csl.models.timm_weights: timm's TResNets in and out, with timm itself as the oracle."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from csl import InputError, checkpoint
from csl import __main__ as tools
from csl.models import architecture, create_model
from csl.models.timm_weights import EPS, from_timm, to_timm

NETWORKS = ("tresnet_m", "tresnet_l", "tresnet_v2_l")
X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def timm_network(name, num_classes=7, seed=0):
    """timm's network with random weights, among them scales that are negative, 0, and under InPlace-ABN's eps."""
    torch.manual_seed(seed)
    net = timm.create_model(name, num_classes=num_classes).eval()
    for key, value in net.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1)
        elif key.endswith("bn.weight"):
            value.normal_(0.5, 0.5)
            value[:4] = torch.tensor([0.0, EPS / 3, -EPS / 2, -0.7])
        elif key == "head.fc.weight":
            value.normal_(0, 0.05)
    return net


def logits(net, x=X):
    with torch.no_grad():
        return net.eval()(x)


def assert_equal_logits(net, other):
    expected = logits(other)
    assert expected.abs().max() > 0.1
    assert (logits(net) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", NETWORKS)
def test_in_and_out_with_equal_logits(name, tmp_path):
    theirs = timm_network(name)
    before = {k: v.clone() for k, v in theirs.state_dict().items()}
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours, loaded = checkpoint.load_model(tmp_path / "model.safetensors")
    assert (loaded.model_name, loaded.head, loaded.num_classes) == (name, "linear", 7)
    assert_equal_logits(ours, theirs)
    assert all(torch.equal(v, before[k]) for k, v in theirs.state_dict().items())

    back = timm.create_model(name, num_classes=7)
    back.load_state_dict(to_timm(ours.state_dict()), strict=True)
    assert_equal_logits(back, theirs)


def test_scales_below_eps_and_negative_ones():
    theirs = timm_network("tresnet_m")
    state = from_timm(theirs.state_dict())
    scale = theirs.state_dict()["body.conv1.bn.weight"]
    torch.testing.assert_close(state["body.conv1.1.weight"] + EPS, scale.abs().clamp(min=EPS))
    filters, mean = theirs.state_dict()["body.conv1.conv.weight"], theirs.state_dict()["body.conv1.bn.running_mean"]
    assert torch.equal(state["body.conv1.0.weight"][3], -filters[3])
    assert torch.equal(state["body.conv1.1.running_mean"][3], -mean[3])
    assert torch.equal(state["body.conv1.0.weight"][0], filters[0])
    assert torch.equal(state["body.conv1.1.bias"], theirs.state_dict()["body.conv1.bn.bias"])
    assert all(value.dtype == torch.float16 for value in from_timm({k: v.half() for k, v in state.items()}).values())


def test_training_mode_is_the_same_function():
    theirs = timm_network("tresnet_m")
    ours = create_model("tresnet_m", 7)
    ours.load_state_dict(from_timm(theirs.state_dict()))
    x = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = ours.train()(x), theirs.train()(x)
    assert (a - b).abs().max() <= 1e-3 * b.abs().max()  # batch statistics of single pixels in the last stage
    torch.testing.assert_close(ours.body.conv1[1].running_var, theirs.body.conv1.bn.running_var)


def test_ours_with_a_bottleneck_head_goes_out_as_one_layer(tmp_path, capsys):
    torch.manual_seed(3)
    ours = create_model("tresnet_m", 9, bottleneck_head=True)
    for module in ours.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, 0, 0.05)
        elif hasattr(module, "running_var"):
            torch.nn.init.normal_(module.weight, 0.5, 0.5)  # both signs: an ABN takes the magnitude
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    checkpoint.write(tmp_path / "ours.ckpt", {"model": ours.state_dict(), "model_name": "tresnet_m", "num_classes": 9})
    for suffix in ("safetensors", "pth"):
        out = tmp_path / f"theirs.{suffix}"
        assert tools.main(["zoo", "to_timm", str(tmp_path / "ours.ckpt"), str(out)]) == 0
        assert "timm.create_model('tresnet_m', num_classes=9, checkpoint_path=" in capsys.readouterr().out
        assert_equal_logits(timm.create_model("tresnet_m", num_classes=9, checkpoint_path=str(out)), ours)
        assert checkpoint.load_model(out)[1].num_classes == 9
    assert tools.main(["zoo", "to_timm", str(tmp_path / "ours.ckpt"), str(out)]) == 2
    assert "already exists, choose another file" in capsys.readouterr().err


def test_what_has_no_form_in_timm_is_an_error(tmp_path, capsys):
    with torch.device("meta"):
        state = create_model("tresnet_m", 9, head="ml_decoder").state_dict()
    with pytest.raises(InputError, match="ML-Decoder head"):
        to_timm(state)
    with pytest.raises(InputError, match="no TResNet"):
        to_timm({"conv1.weight": torch.zeros(1)})
    torch.save(create_model("resnet18", 3).state_dict(), tmp_path / "r.pth")
    assert tools.main(["zoo", "to_timm", str(tmp_path / "r.pth"), str(tmp_path / "out.pth")]) == 2
    assert "not a TResNet" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("name", ["tresnet_m", "tresnet_l", "tresnet_xl", "tresnet_v2_l"])
def test_keys_and_shapes_go_both_ways(name):
    with torch.device("meta"):
        ours, theirs = create_model(name, 5).state_dict(), timm.create_model(name, num_classes=5).state_dict()
        there, back = to_timm(ours), from_timm(theirs)
    assert {k: v.shape for k, v in there.items()} == {k: v.shape for k, v in theirs.items()}
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in ours.items()}


def test_v2_keeps_the_slopes_of_its_origin(tmp_path, capsys):
    with torch.device("meta"):
        slopes = {n: create_model(n, 5).body.conv1[1].slope for n in ("tresnet_l_v2", "tresnet_v2_l")}
    assert slopes == {"tresnet_l_v2": 1e-6, "tresnet_v2_l": 1e-2}
    theirs = timm_network("tresnet_v2_l")
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    line = checkpoint.load_backbone(create_model("tresnet_l_v2", 3), checkpoint.read(tmp_path / "timm.pth"))
    assert "0 missing; made with leaky slope 0.001, here 1e-06: tresnet_v2_l keeps it" in line
    line = checkpoint.load_backbone(create_model("tresnet_v2_l", 3), checkpoint.read(tmp_path / "timm.pth"))
    assert line.endswith("0 missing")
    torch.save(create_model("tresnet_l_v2", 3).state_dict(), tmp_path / "original.pth")
    assert checkpoint.read(tmp_path / "original.pth").model_name == "tresnet_l_v2"
    assert tools.main(["zoo", "to_timm", str(tmp_path / "original.pth"), str(tmp_path / "out.pth")]) == 0
    assert "the logits will differ" in capsys.readouterr().out


def test_names_with_a_tag_and_files_without_a_head(tmp_path):
    assert architecture("tresnet_m.miil_in21k") == "tresnet_m"
    assert architecture("resnet18.a1_in1k") == "resnet18.a1_in1k"
    theirs = timm_network("tresnet_m", num_classes=0)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "body.pth")
    with pytest.raises(InputError, match="has no classifier"):
        checkpoint.load_model(tmp_path / "body.pth", "tresnet_m.miil_in21k")
    ours = create_model("tresnet_m.miil_in21k", 3)
    assert "0 missing" in checkpoint.load_backbone(ours, checkpoint.read(tmp_path / "body.pth"))
    with torch.no_grad():
        expected = theirs.forward_features(X)
        assert (ours.eval().body(X) - expected).abs().max() <= 1e-4 * expected.abs().max()
