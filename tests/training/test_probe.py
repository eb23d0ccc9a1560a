"""train.py --probe: a linear head on the features of a frozen network, chosen by what is known of the labels."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from csl import InputError
from csl.labels import LabelMatrix, read_annotations
from csl.labels.simulation import simulate
from csl.losses.options import LossOptions
from csl.machine.draws import generator
from csl.metrics import mean_average_precision
from csl.models import create_model
from csl.predict import Predictor
from csl.runs.config import TrainConfig
from csl.training import linear, probe
from csl.training.checks import NOT_OF_A_PROBE, check_used
from csl.training.experiment import train

SETTINGS = {
    "model_name": "test_resnet",
    "image_size": 32,
    "batch_size": 8,
    "workers": 0,
    "device": "cpu",
    "probe": True,
}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(linear, "LEAST_STEPS", 20)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with a small network's weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "body.pth"
    torch.save(create_model("test_resnet", 3).state_dict(), path)
    return path


def run(garments, weights, folder, **settings):
    lines = []
    config = TrainConfig(
        **{**SETTINGS, "data": str(garments), "model_path": str(weights), "path_dest": str(folder), **settings}
    )
    return train(config, lines.append), lines


def test_a_probe_leaves_a_network_that_scores_as_it_says(garments, weights, tmp_path, no_pictures):
    best, lines = run(garments, weights, tmp_path / "run")
    val = read_annotations(garments, split="val")
    predictor = Predictor.load(tmp_path / "run" / "best.ckpt", device="cpu")
    scores = predictor.score(val.images, 8, 0, roots=val.roots)
    assert mean_average_precision(scores.probabilities[0], val.labels) == pytest.approx(best["mAP"], abs=1e-3)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["best"]["mAP"] == best["mAP"]
    table = pd.read_csv(tmp_path / "run" / "probe.csv")
    assert set(table.loss) == {
        "annotation",
        "ignore",
    }  # that is all there is to choose for values that exclude each other
    assert len(table) == 2 * len(probe.L2) + len(probe.HIDDEN_L2)
    for group in read_annotations(garments, split="val").groups.values():
        np.testing.assert_allclose(scores.probabilities[0][:, group].sum(1), 1, atol=1e-5)
    chosen = next(line for line in lines if line.startswith("probe: ") and "exponent" in line)
    assert (
        f"{table.loss[0]}, exponent {table.gamma_neg[0]:g} of known negatives, {table['head'][0]} head, L2 {table.l2[0]:g}"
        in chosen
    )
    assert {"estimated_prior.csv", "annotation_model.csv", "train_avg_preds.csv"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }


def test_the_network_itself_stays_as_it_was(garments, weights, tmp_path, no_pictures):
    run(garments, weights, tmp_path / "run")
    before = torch.load(weights, weights_only=True)
    after = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)["model"]
    changed = {name for name in before if name not in after or not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_features_are_made_once_for_the_same_network_and_images(garments, weights, tmp_path, no_pictures):
    first, lines = run(garments, weights, tmp_path / "run")
    assert sum("kept in" in line for line in lines) == 2
    second, lines = run(garments, weights, tmp_path / "run")  # which moves the first aside, but not its features
    assert sum("found in" in line for line in lines) == 2
    assert first == second
    other = tmp_path / "other.pth"
    state = torch.load(weights, weights_only=True)
    torch.save({name: value * 1.01 if value.is_floating_point() else value for name, value in state.items()}, other)
    for settings in ({"weights": other}, {"weights": weights, "image_size": 40}):
        _, lines = run(garments, folder=tmp_path / "run", **settings)
        assert sum("kept in" in line for line in lines) == 2
    (tmp_path / "run" / "features" / "train.npz").write_bytes(b"PK broken")
    _, lines = run(garments, weights, tmp_path / "run", image_size=40)
    assert [("kept in" in line) for line in lines if "features of" in line] == [True, False]


def test_images_with_positives_alone(garments, weights, tmp_path, no_pictures):
    data = tmp_path / "data"
    shutil.copytree(garments, data)
    (data / "truth.csv").unlink()
    table = pd.read_csv(data / "attributes.csv")
    table = table.drop(columns=["neck", "sleeve_length", "pattern"])
    table["cat"], table["dog"] = (
        np.where(np.arange(len(table)) % 3, "", "1"),
        np.where(np.arange(len(table)) % 4, "", "1"),
    )
    table.to_csv(data / "attributes.csv", index=False)
    best, lines = run(data, weights, tmp_path / "run")
    assert np.isnan(best["mAP"])
    assert best["mAP_negative"] > 0
    assert any("mAP with un-annotated as negative on out-of-fold" in line for line in lines)
    assert not (tmp_path / "run" / "estimated_prior.csv").exists()


def test_the_loss_that_is_given_is_the_one_of_the_head(garments):
    labels = read_annotations(garments, split="train").labels
    x = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(0))
    found = probe.probe(x, labels, 0, print, given=LossOptions(loss="hill"))
    assert [(one.loss, one.gamma_neg, one.l2) for one in found.candidates] == [("hill", None, l2) for l2 in probe.L2]
    all_of_them = probe.probe(x, labels, 0, print, exponents=(0.0,))
    assert len(all_of_them.candidates) == 4 * len(probe.L2)


def sampled(images, offset):
    """Features [N, 20], logits and labels [N, 6], and the labels of which 60 + 60 a class are left."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(images, 20)).astype(np.float32)
    logits = 5 * x @ rng.normal(size=(20, 6)) / np.sqrt(20) + offset
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    return torch.from_numpy(x), logits, truth, simulate(LabelMatrix.from_dense(truth), "fpc", 60, generator("mask", 0))


def test_answers_to_questions_that_a_network_asked_are_no_part_of_the_annotation_model(monkeypatch):
    monkeypatch.setattr(linear, "LEAST_STEPS", 60)
    monkeypatch.setattr(probe, "L2", (1e-3,))
    x, logits, truth, labels = sampled(4000, offset=-4)
    answered = labels.to_dense()
    asked = np.argsort(-np.where(answered == -1, logits, -np.inf), axis=0)[:300]  # the likeliest of what is unknown
    np.put_along_axis(answered, asked, np.take_along_axis(truth, asked, 0), 0)
    answered = LabelMatrix.from_dense(answered)
    loss = LossOptions(loss="annotation", gamma_neg=0.0)
    without, counted = (probe.probe(x, answered, 0, print, given=loss, collected=one) for one in (labels, None))
    errors = [np.abs(np.log(one.prior.numpy() / truth.mean(0))).mean() for one in (without, counted)]
    assert errors[0] < 0.8 * errors[1]
    most = mean_average_precision(logits, truth)  # of what made the labels
    assert without.best.score < most + 2 < counted.best.score


def test_where_annotation_depends_on_the_label_the_annotation_model_is_chosen(monkeypatch):
    monkeypatch.setattr(linear, "LEAST_STEPS", 100)
    x, _, truth, labels = sampled(4000, offset=-8)
    said = []
    found = probe.probe(x, labels, 0, said.append)
    assert found.best.loss == "annotation"
    frequency = truth.mean(0)
    assert np.abs(np.log(found.prior.numpy() / frequency)).mean() < 0.5  # half of the known labels are positive: 2.0
    scored = {c.loss: max(o.score for o in found.candidates if o.loss == c.loss) for c in found.candidates}
    assert scored["annotation"] > scored["ignore"]


@pytest.mark.parametrize("flag", sorted(set(NOT_OF_A_PROBE)))
def test_what_a_probe_has_no_part_for_is_refused(flag):
    other = {"augment": "fast", "loss": "asl", "optimizer": "adamw", "schedule": "constant", "partial_loss_mode": "ignore",
             "topk_scope": "sample", "prior_path": "auto", "prior_loss": "focal", "prior_estimator": "em"}  # fmt: skip
    default = getattr(TrainConfig, flag)
    value = other.get(flag, True if default is False else 3)
    with pytest.raises(InputError, match=f"--{flag} changes nothing with --probe"):
        check_used(TrainConfig(**{**SETTINGS, flag: value}))


def test_a_probe_needs_weights_a_linear_head_and_labels(garments, weights, tmp_path):
    for settings, reason in (
        ({"model_path": None}, "a network from scratch has no features"),
        ({"head": "ml_decoder"}, "expected one .--head linear"),
    ):
        with pytest.raises(InputError, match=reason):
            run(garments, weights, tmp_path / "run", **settings)
        assert not (tmp_path / "run").exists()
    unknown = LabelMatrix.from_dense(np.full((9, 2), -1, np.int8))
    with pytest.raises(InputError, match="no positive label is known"):
        probe.probe(torch.zeros(9, 4), unknown, 0, print)
