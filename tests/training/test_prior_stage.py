"""The run that estimates the class prior: plain cross-entropy on annotated labels; and what is said of the prior."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from csl import InputError
from csl.labels.options import DataOptions
from csl.labels.read import read_split
from csl.losses.annotation import MOST_ANNOTATED
from csl.prior import read_prior
from csl.runs.config import TrainConfig
from csl.training import report
from csl.training.experiment import train
from csl.training.recipes import RECIPES

STAGE_2 = {
    "partial_loss_mode": "selective", "prior_path": "auto", "gamma_pos": 1.0, "gamma_neg": 3.0, "gamma_unann": 4.0,
    "alpha_pos": 2.0, "alpha_neg": 0.5, "alpha_unann": 0.5, "clip": 0.05, "likelihood_topk": 3, "prior_threshold": 0.5,
}  # fmt: skip


def stage_1(**settings):
    config = TrainConfig(**{**STAGE_2, **settings})
    return dataclasses.replace(config, **config.prior_loss_settings()).create_loss()


def constant_minimum(loss, frequency):
    """The constant probability at which the gradient of the loss over 1,000 entries of one class is zero."""
    targets = (torch.arange(1000) < 1000 * frequency).long()[:, None]  # [1000, 1]
    targets = torch.cat([targets, -torch.ones_like(targets)])
    low, high = -15.0, 15.0
    for _ in range(60):
        middle = (low + high) / 2
        logits = torch.full((2000, 1), middle, dtype=torch.float64, requires_grad=True)
        loss(logits, targets).backward()
        low, high = (low, middle) if logits.grad.sum() > 0 else (middle, high)
    return 1 / (1 + np.exp(-low))


def test_stage_1_is_plain_cross_entropy_of_annotated_entries_whatever_stage_2_is():
    rng = np.random.default_rng(0)
    x, t = rng.normal(0, 2, (6, 5)), rng.integers(-1, 2, (6, 5))
    p = 1 / (1 + np.exp(-x))
    expected = -sum(np.log(p[i] if t[i] == 1 else 1 - p[i]) for i in np.ndindex(x.shape) if t[i] != -1)
    assert stage_1()(torch.from_numpy(x), torch.from_numpy(t)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("frequency", [0.01, 0.11, 0.4])
def test_its_least_loss_is_at_the_frequency_and_that_of_a_focal_loss_is_not(frequency):
    assert constant_minimum(stage_1(), frequency) == pytest.approx(frequency, rel=1e-6)
    for gamma in (1, 3):  # where f = p^(g + 1) / (1 - p + p^(g + 1))
        focal = stage_1(prior_loss="focal", gamma_pos=0.0, gamma_neg=gamma, alpha_pos=1.0, alpha_neg=1.0, clip=0.0)
        p = constant_minimum(focal, frequency)
        assert p ** (gamma + 1) / (1 - p + p ** (gamma + 1)) == pytest.approx(frequency, rel=1e-6)
        assert p > 1.2 * frequency


def test_the_recipes_of_papers_keep_their_exponents_in_stage_1():
    kept = {name for name, recipe in RECIPES.items() if recipe.get("prior_loss") == "focal"}
    assert kept == {"csl_coco_fpc", "csl_coco_rps", "csl_openimages"}
    # LVIS has no exponents that could be kept.
    assert kept | {"demo_csl", "lvis"} == {
        name for name, recipe in RECIPES.items() if recipe.get("prior_path") == "auto"
    }
    loss = dataclasses.replace(
        config := TrainConfig(**RECIPES["csl_coco_fpc"]), **config.prior_loss_settings()
    ).create_loss()
    assert (loss.options.mode, loss.options.gamma_pos, loss.options.gamma_neg) == ("ignore", 0.0, 3.0)


def test_a_run_says_what_the_prior_leaves_out(garments, tmp_path, no_pictures):
    said = []
    config = TrainConfig(
        data=str(garments), path_dest=str(tmp_path), model_name="test_resnet", image_size=32, batch_size=8, epochs=1,
        workers=0, augment="none", device="cpu", partial_loss_mode="selective", prior_path="auto", gamma_neg=2.0,
    )  # fmt: skip
    train(config, said.append)
    stage = json.loads((tmp_path / "prior" / "config.json").read_text())
    assert (stage["gamma_neg"], stage["gamma_pos"], stage["partial_loss_mode"]) == (0, 0, "ignore")
    assert any("from 1 epochs of plain cross-entropy on annotated labels" in line for line in said)
    text = "\n".join(said)
    assert "prior: 21 of 21 classes over --prior_threshold 0.05" in text
    assert "warning: all of them, which is ignore mode: a --prior_threshold between" in text
    assert "1 if every image has one: neck " in text


def test_all_or_none_of_the_classes_is_a_warning():
    prior = torch.tensor([0.1, 0.2, 0.6])
    (some,) = report.prior(prior, 0.15)
    assert some.startswith("prior: 2 of 3 classes over --prior_threshold 0.15, whose un-annotated labels are ignored")
    assert report.prior(prior, 0.7)[1].startswith("warning: none of them, so that the prior changes nothing")
    assert report.prior(prior, 0.6)[1].endswith("a --prior_threshold under 0.6 selects")
    assert report.prior(prior, 0.05)[1].startswith("warning: all of them, which is ignore mode")
    assert "none of them" in report.prior(prior, 0)[1]
    assert report.prior(prior, 0.15, {"a": slice(0, 2), "b": slice(2, 3)})[1].endswith("a 0.30, b 0.60")


ANNOTATION = {
    "model_name": "test_resnet", "image_size": 32, "batch_size": 8, "epochs": 1, "workers": 0, "augment": "none",
    "device": "cpu", "loss": "annotation", "gamma_neg": 1.0, "lr": 1e-3,
}  # fmt: skip


def test_the_annotation_model_is_estimated_on_images_that_stage_1_is_not_trained_on(garments, tmp_path, no_pictures):
    said = []
    best = train(
        TrainConfig(data=str(garments), path_dest=str(tmp_path / "a"), prior_path="auto", **ANNOTATION), said.append
    )
    stage = json.loads((tmp_path / "a" / "prior" / "config.json").read_text())
    assert (stage["loss"], stage["gamma_neg"], stage["partial_loss_mode"]) == ("csl", 0, "ignore")
    number = len(read_split(DataOptions(data=str(garments)), "train"))
    assert any(f" {-(-number // 5)} of {number} images are not trained on" in line for line in said)
    assert any(line.startswith("annotation model (medians over classes): ") for line in said)

    estimate = tmp_path / "a" / "prior" / "estimated_prior.csv"
    train_split = read_split(DataOptions(data=str(garments)), "train")
    prior, counts = read_prior(estimate, train_split.classes), train_split.labels.counts()
    model = pd.read_csv(tmp_path / "a" / "annotation_model.csv")
    assert list(model["class"]) == train_split.classes
    pi = np.clip(prior.numpy(), counts.positives / number, 1 - counts.negatives / number)
    e1 = np.clip(counts.positives / number / np.maximum(pi, 1e-12), 0, MOST_ANNOTATED)
    e0 = np.clip(counts.negatives / number / np.maximum(1 - pi, 1e-12), 0, MOST_ANNOTATED)
    np.testing.assert_allclose(model["annotated_positives"], e1, rtol=1e-3)
    np.testing.assert_allclose(model["delta"], np.log((1 - e0) / (1 - e1)), rtol=1e-2, atol=1e-3)
    for name in ("prior", "annotated_positives", "annotated_negatives", "delta"):
        assert (model[f"{name}_low"] <= model[name] + 1e-6).all()
        assert (model[name] <= model[f"{name}_high"] + 1e-6).all()

    again = TrainConfig(data=str(garments), path_dest=str(tmp_path / "b"), prior_path=str(estimate), **ANNOTATION)
    assert train(again, said.append) == best


def test_the_annotation_loss_needs_a_prior(garments, tmp_path):
    with pytest.raises(
        InputError, match="--loss annotation: needs the class prior, expected --prior_path auto or FILE"
    ):
        train(TrainConfig(data=str(garments), path_dest=str(tmp_path / "run"), **ANNOTATION))
    assert not (tmp_path / "run").exists()
