"""--loss auto: which loss it takes on which labels, and that a run with it is the run with these flags."""

import dataclasses
import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from csl import InputError
from csl.cli import parsing
from csl.cli import train as train_cli
from csl.labels import Annotations, LabelMatrix, read_annotations
from csl.models import create_model
from csl.prior import read_prior
from csl.runs.config import TrainConfig
from csl.runs.record import command
from csl.training import auto, linear, probe, probe_run
from csl.training.checks import idle_settings
from csl.training.experiment import train

RUN = {"model_name": "test_resnet", "image_size": 32, "batch_size": 8, "epochs": 2, "workers": 0, "augment": "none",
       "device": "cpu", "lr": 1e-3}  # fmt: skip


SETTINGS_OF_PROBE = {name: RUN[name] for name in ("model_name", "image_size", "batch_size", "workers", "device")}
SETTINGS_OF_PROBE["probe"] = True


def split(labels, groups=None):
    labels = np.array(labels, np.int8)
    classes = [f"c{c}" for c in range(labels.shape[1])]
    groups = groups or {name: slice(c, c + 1) for c, name in enumerate(classes)}
    return Annotations(
        [f"{n}.jpg" for n in range(len(labels))], LabelMatrix.from_dense(labels), classes, groups=groups, source="x.csv"
    )


ATTRIBUTE = {"colour": slice(0, 2)}
SOFTMAX = {"group_loss": "softmax"}
BY_PRIOR = {"loss": "annotation", "prior_path": "auto"}
CASES = [
    ([[1, 0], [0, 1], [-1, -1]], ATTRIBUTE, SOFTMAX),
    ([[1, -1, 0], [0, 1, -1], [-1, -1, 1]], None, BY_PRIOR),
    ([[1, 0, -1], [0, 1, 0], [-1, -1, 1]], {**ATTRIBUTE, "hat": slice(2, 3)}, {**BY_PRIOR, **SOFTMAX}),
    ([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]], None, {"partial_loss_mode": "selective"}),
    ([[1, 0], [0, 1], [1, 1]], None, {"partial_loss_mode": "ignore", "gamma_neg": 0.0}),
]


@pytest.mark.parametrize(("labels", "groups", "expected"), CASES)
def test_the_loss_follows_the_labels(labels, groups, expected):
    config, lines = auto.chosen(TrainConfig(loss="auto", data="x", lr=0.5), split(labels, groups), False)
    assert config == TrainConfig(**{"data": "x", "lr": 0.5, "select_by": "auto", **expected})
    assert len(lines) == 2
    for name, value in expected.items():
        assert f"--{name} {value:g}" in lines[1] if isinstance(value, float) else f"--{name} {value}" in lines[1]
    assert auto.as_started(TrainConfig(loss="auto", data="x", lr=0.5), config.to_dict()) == config


def test_with_a_count_of_labels_positives_alone_have_the_annotation_model():
    positives = split([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    asked = TrainConfig(loss="auto", data="x", labels_per_image=1.5)
    config, lines = auto.chosen(asked, positives, False)
    assert config == dataclasses.replace(asked, loss="annotation", select_by="auto")
    assert "--loss annotation --labels_per_image 1.5" in lines[1]
    config, _ = auto.chosen(asked, positives, True)
    probed = {"prior_path": "auto", "prior_estimator": "probe"}
    assert config == dataclasses.replace(asked, loss="annotation", select_by="auto", **probed)
    assert not idle_settings(config)
    for labels in ([[1, -1, 0], [0, 1, -1], [-1, 0, 1]], [[1, 0], [0, 1]]):
        with pytest.raises(InputError, match=r"^--labels_per_image 1.5 changes nothing: x.csv has known negatives"):
            auto.chosen(asked, split(labels), False)


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_run_on_positives_alone_learns_and_is_measured_by_the_count(
    garments, weights, tmp_path, no_pictures, monkeypatch, pretrained
):
    monkeypatch.setattr(linear, "LEAST_STEPS", 5)
    monkeypatch.setattr(linear, "EPOCHS", 5)
    data = tmp_path / "data"
    shutil.copytree(garments, data)
    (data / "truth.csv").unlink()
    table = pd.read_csv(data / "attributes.csv")
    rows = np.arange(len(table))
    table = table.drop(columns=["neck", "sleeve_length", "pattern"])
    table["cat"], table["dog"] = (np.where(rows % step, "", "1") for step in (3, 4))
    table.to_csv(data / "attributes.csv", index=False)
    settings = {**RUN, "data": str(data), "loss": "auto", "labels_per_image": 1.2, "path_dest": str(tmp_path / "run")}
    settings |= {"model_path": weights if pretrained else None}
    lines = []
    train(TrainConfig(**settings, max_steps=2), lines.append)
    known = read_annotations(data, split="train").labels.counts().positives
    prior = read_prior(tmp_path / "run" / "estimated_prior.csv", ["cat", "dog"])
    torch.testing.assert_close(prior, torch.tensor(1.2 * known / known.sum(), dtype=torch.float32))
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["labels_per_image"] == 1.2
    assert kept["prior_estimator"] == ("probe" if pretrained else None)
    assert any("estimated mAP, all labels known" in line and "(--labels_per_image 1.2)" in line for line in lines)
    if pretrained:
        tried = set(pd.read_csv(tmp_path / "run" / "prior" / "probe.csv").loss)
        assert tried == {"annotation", "selective", "negative"}
    best = train(TrainConfig(**settings, resume=True), lines.append)
    assert best["mAP_estimated"] > 0
    with pytest.raises(
        InputError, match="^--labels_per_image 0.1: .* labels an image are known already; expected as many"
    ):
        train(TrainConfig(**{**settings, "labels_per_image": 0.1, "path_dest": str(tmp_path / "b")}), print)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("images", "pretrained", "epochs", "lr"),
    [(500, True, 30, 2e-4), (500, False, 60, 1e-3), (100_000, True, 25, 2e-4), (9_000_000, True, 3, 2e-4)],
)
def test_what_is_left_open_follows_the_number_of_images_and_the_start(images, pretrained, epochs, lr):
    left = TrainConfig(data="x", **dict.fromkeys(auto.OPEN))
    config, line = auto.settled(left, images, pretrained)
    assert config == TrainConfig(data="x", epochs=epochs, lr=lr, augment="fast")
    assert line.endswith(f"--epochs {epochs} --lr {lr:g} --augment fast")
    given = TrainConfig(data="x", epochs=7, lr=0.1, augment="none")
    assert auto.settled(given, images, pretrained) == (given, None)
    assert auto.settled(dataclasses.replace(given, lr=None), images, pretrained)[0].lr == lr
    assert auto.as_started(left, config.to_dict()) == config


def test_without_the_weights_it_goes_on_from_scratch(garments, tmp_path, no_pictures, monkeypatch):
    settings = {
        **RUN,
        "data": str(garments),
        "max_steps": 1,
        "model_path": "auto",
        "lr": None,
        "path_dest": str(tmp_path / "a"),
    }
    lines = []
    train(TrainConfig(**settings), lines.append)
    (line,) = [line for line in lines if line.startswith("start: ")]
    assert "from scratch, as timm/test_resnet: not downloaded" in line
    assert "by hand, its model.safetensors goes to pretrained_weights/test_resnet.safetensors" in line
    assert "settings for 20 images and a network from scratch: --lr 0.001" in lines
    kept = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (kept["model_path"], kept["lr"]) == (None, 1e-3)
    with pytest.raises(InputError, match="^timm/test_resnet: not downloaded"):
        train(
            TrainConfig(**SETTINGS_OF_PROBE, data=str(garments), model_path="auto", path_dest=str(tmp_path / "c")),
            print,
        )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained_weights").mkdir()
    save_file(create_model("test_resnet", 3).state_dict(), "pretrained_weights/test_resnet.safetensors")
    train(TrainConfig(**{**settings, "path_dest": "b"}), lines.append)
    assert "settings for 20 images and pretrained weights: --lr 0.0002" in lines
    assert json.loads((tmp_path / "b" / "config.json").read_text())["model_path"] == "timm/test_resnet"


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    torch.save(create_model("test_resnet", 3).state_dict(), tmp_path / "body.pth")
    return str(tmp_path / "body.pth")


def test_from_weights_a_probe_chooses_and_training_begins_with_its_head(
    garments, weights, tmp_path, no_pictures, monkeypatch
):
    monkeypatch.setattr(linear, "LEAST_STEPS", 5)
    monkeypatch.setattr(linear, "EPOCHS", 5)
    monkeypatch.setattr(probe, "L2", (1e-3, 1e-1))
    settings = {**RUN, "data": str(garments), "model_path": weights, "loss": "auto", "lr": 1e-6, "ema_decay": 0.0}
    folder, lines = tmp_path / "run", []
    train(TrainConfig(**settings, path_dest=str(folder), max_steps=2), lines.append)
    kept = json.loads((folder / "config.json").read_text())
    table = pd.read_csv(folder / "prior" / "probe.csv")
    assert (kept["loss"], kept["group_loss"]) == (
        {"annotation": "annotation", "ignore": "csl"}[table.loss[0]],
        "softmax",
    )
    assert (kept["prior_path"], kept["prior_estimator"], kept["select_by"]) == ("auto", "probe", "auto")
    assert any(line.startswith("loss auto: so ") and "by the highest estimated mAP" in line for line in lines)
    assert f"prior: {folder}/prior/estimated_prior.csv (label-shift EM)" in "".join(lines)
    # The network of the first epoch, which hardly moved, is that of the probe without a hidden layer.
    monkeypatch.setattr(probe_run, "probe", lambda *given, **named: probe.probe(*given, **named | {"hidden": False}))
    train(
        TrainConfig(**SETTINGS_OF_PROBE, data=str(garments), model_path=weights, path_dest=str(tmp_path / "p")), print
    )
    states = [torch.load(tmp_path / name / "best.ckpt", weights_only=True)["model"] for name in ("run", "p")]
    torch.testing.assert_close(states[0]["fc.weight"], states[1]["fc.weight"], rtol=0, atol=1e-4)
    resumed, again = [], []
    best = train(TrainConfig(**settings, path_dest=str(folder), resume=True), resumed.append)
    assert any(line.startswith("loss auto: as the run was started") for line in resumed)
    assert not any("probe:" in line for line in resumed)
    words = shlex.split(command(json.loads((folder / "config.json").read_text())))[2:]
    same = TrainConfig(**{**parsing.parse(train_cli.parser(), words), "path_dest": str(tmp_path / "again")})
    assert train(same, again.append) == best
    assert any(line.startswith("probe: ") for line in again)


def test_a_probe_before_training_serves_the_estimate_of_any_loss_and_needs_weights(garments, tmp_path):
    probed = {"prior_path": "auto", "prior_estimator": "probe"}
    for mode in ("ignore", "selective"):
        assert not idle_settings(TrainConfig(data="x", model_path="x", partial_loss_mode=mode, **probed))
    settings = {**RUN, "loss": "annotation", **probed, "data": str(garments), "path_dest": str(tmp_path / "a")}
    with pytest.raises(InputError, match="--prior_estimator probe: a network from scratch has no features"):
        train(TrainConfig(**settings), print)
    assert not (tmp_path / "a").exists()


def test_a_run_is_that_of_the_flags_and_goes_on_with_the_same_command(garments, tmp_path, no_pictures):
    best, said = [], []
    for name, loss in (("a", {"loss": "auto"}), ("b", {"group_loss": "softmax"})):
        settings = {**RUN, **loss, "data": str(garments), "path_dest": str(tmp_path / name)}
        train(TrainConfig(**settings, max_steps=2), lambda _: None)
        best.append(train(TrainConfig(**settings, resume=True), said.append))
    assert "loss auto: as the run was started, --loss csl --group_loss softmax" in said
    assert best[0] == best[1]
    kept = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (kept["loss"], kept["group_loss"]) == ("csl", "softmax")


def test_what_it_chooses_cannot_be_given_beside_it(garments, tmp_path):
    for settings in ({"gamma_neg": 2.0}, {"prior_path": "auto"}, {"group_loss": "softmax"}):
        (flag,) = settings
        with pytest.raises(InputError, match=f"--{flag} changes nothing with --loss auto, which chooses"):
            train(TrainConfig(**RUN, **settings, data=str(garments), loss="auto", path_dest=str(tmp_path / "a")), print)
    with pytest.raises(InputError, match="--dropout changes nothing with --head ml_decoder"):
        train(
            TrainConfig(
                **RUN, dropout=0.1, head="ml_decoder", data=str(garments), loss="auto", path_dest=str(tmp_path / "a")
            ),
            print,
        )
    assert not (tmp_path / "a").exists()
