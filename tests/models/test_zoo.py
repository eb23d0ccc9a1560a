"""csl.models.zoo and `python -m csl zoo`: what is listed, recognised and counted. Downloads: test_download.py."""

import re
from pathlib import Path

import pytest
import torch

from csl import InputError, checkpoint
from csl import __main__ as tools
from csl.inference.sources import checkpoint_path
from csl.models import CONFIGS, HEADS, create_model, zoo
from csl.models.recognition import recognise

NAME = "csl_opim_86.72"


def test_a_missing_published_file_names_what_downloads_it():
    for find in (checkpoint.read, checkpoint_path):
        with pytest.raises(
            InputError, match=f"nowhere/mtresnet_opim_86.72.pth: no such .*or {NAME}, which downloads it"
        ):
            find("nowhere/mtresnet_opim_86.72.pth")
        with pytest.raises(InputError, match="python -m csl zoo"):
            find("nowhere/other.pth")
    with pytest.raises(InputError, match="csl_opim_99: no published weights"):
        zoo.fetch("csl_opim_99")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("head", HEADS)
def test_the_whole_family_is_recognised_and_loads_strictly(name, head):
    for num_classes in (80, 1000, 9605, 11221) if name == "tresnet_m" else (9605,):
        groups = 200 if head == "ml_decoder" and num_classes == 9605 else None
        with torch.device("meta"):
            net = create_model(name, num_classes, head=head, num_groups=groups)
            state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
            found, found_head, classes, queries = recognise(state)
            again = create_model(found, classes, head=found_head, num_groups=queries)
            checkpoint.load_weights(again, checkpoint.Checkpoint(Path("file"), state))
        assert (found_head, classes) == (head, num_classes)
        assert found == ("tresnet_l_v2" if name == "tresnet_v2_l" else name)


def test_the_list_has_every_file_and_figure(capsys):
    assert tools.main(["zoo"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {"bottleneck", "9,605", "224", "86.72"} <= set(lines[NAME].split())
    assert {"tresnet_xl", "ml_decoder", "80", "640", "91.4"} <= set(lines["mldecoder_coco_xl_640_91.4"].split())
    assert {"11,221"} <= set(lines["timm/tresnet_m.miil_in21k"].split())
    assert lines.keys() >= zoo.PUBLISHED.keys()
    assert len({zoo.local_path(name) for name in zoo.PUBLISHED}) == len(zoo.PUBLISHED) == 32
    for entry in zoo.PUBLISHED.values():
        assert entry.architecture.name in CONFIGS
        assert entry.architecture.head in (*HEADS, None)


def test_each_network_starts_from_its_own_weights():
    names = {"tresnet_m": "timm/tresnet_m.miil_in21k", "tresnet_l": "timm/tresnet_l.miil_in1k", "resnet18": "timm/resnet18",
             "tresnet_m.miil_in1k": "timm/tresnet_m.miil_in1k", "tresnet_l_v2": None,
             "swin_s3_tiny_224": "timm/swin_s3_tiny_224", "efficientnet_b8": None}  # fmt: skip
    assert {name: zoo.pretrained_name(name) for name in names} == names


def test_describe_counts_without_weights(capsys):
    assert tools.main(["zoo", "describe", "tresnet_m", "--layer", "layer4.0.conv1", "--image-size", "1024"]) == 0
    out = capsys.readouterr().out
    assert "parameters     14,900,608" in out
    assert re.search(r"body.layer4 +512 x 64 x 64 +16 +525,312", out)
    assert tools.main(["zoo", "describe", "mldecoder_opim_m_86.8"]) == 0
    assert "ml_decoder head, 9,605 classes" in capsys.readouterr().out
    assert tools.main(["zoo", "describe", "resnet18", "--num_classes", "1000"]) == 0
    out = capsys.readouterr().out
    assert "parameters     11,689,512" in out
    assert "multiply-adds  1,814,073,344" in out
    assert re.search(r"layer4 +512 x 7 x 7 +32", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("zoo nothing", "zoo nothing: unknown, expected one of list, describe, get, to_timm"),
        ("zoo get", "zoo get: 0 names, expected 1"),
        ("zoo get csl_opim_86.72 --head linear", "zoo get: takes no --head"),
        ("zoo describe tresnet_m --layer layer9", "layer layer9: no layer9, expected one of SpaceToDepth, conv1"),
        ("zoo describe tresnet_m --image_size 30", "expected height and width that divide by 4"),
        ("zoo describe vit_tiny_patch16_224 --image_size 8", "not counted for images of 8x8"),
        ("zoo describe csl_opim_86.72 --num_classes 3", "says its head and classes itself"),
        ("zoo describe asl_opim_l_448", "expected `zoo get asl_opim_l_448` before"),
        ("zoo describe nothing", "--model_name nothing: unknown"),
        ("zoos", "zoos: unknown, expected one of"),
    ],
)
def test_bad_commands_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tools.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_weights_of_other_networks_are_told_without_an_empty_word(capsys, tmp_path):
    for weights, said in (
        ({"conv1.weight": torch.zeros(4, 3, 3, 3)}, "no TResNet, no classifier of ours"),
        ({"body.conv1.0.weight": torch.zeros(64, 48, 3, 3)}, "tresnet_m, no classifier of ours"),
    ):
        torch.save(weights, tmp_path / "w.pth")
        assert tools.main(["zoo", "get", str(tmp_path / "w.pth")]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'w.pth'}: {said}\n"


def test_the_tools_are_listed(capsys):
    assert tools.main([]) == 0
    assert re.search(r"^  zoo  .*Published weights", capsys.readouterr().out, re.MULTILINE)
