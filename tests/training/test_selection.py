"""Which evaluation becomes best.ckpt, also where no class has a defined average precision; and strict JSON."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from csl import InputError
from csl.inference.validate import ValidateOptions, validate
from csl.labels import LabelMatrix
from csl.machine.files import strict_json
from csl.runs.config import TrainConfig
from csl.training.experiment import train
from csl.training.selection import choose, criterion, not_estimated, rank, validation_numbers

pytestmark = pytest.mark.usefixtures("no_pictures")

SMALL = {
    "model_name": "test_resnet", "image_size": 32, "batch_size": 8, "workers": 0, "lr": 1e-2, "augment": "none",
    "device": "cpu",
}  # fmt: skip


def strict(text):
    """JSON read as most parsers do, which know no NaN."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def positives(garments, tmp_path):
    """A table of four classes, 1 or blank: nothing is known to be absent."""
    table = pd.read_csv(garments / "attributes.csv", dtype=str, keep_default_na=False)
    rng = np.random.default_rng(0)
    marks = {name: rng.choice(["1", ""], len(table)) for name in "abcd"}
    pd.DataFrame({"filename": table["filename"], **marks, "split": table["split"]}).to_csv(
        tmp_path / "attributes.csv", index=False
    )
    (tmp_path / "images").symlink_to(garments / "images")
    return {**SMALL, "data": str(tmp_path), "follow_links": True, "path_dest": str(tmp_path / "run")}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[1, -1], [0, -1]], "mAP"),
        ([[1, 0], [-1, 0]], "mAP_negative"),
        ([[0, 1], [0, 1]], "cross_entropy"),
        ([[0, -1], [-1, -1]], "cross_entropy"),
        ([[-1, -1], [-1, -1]], None),
    ],
)
def test_the_criterion_is_the_first_that_can_tell_two_evaluations_apart(labels, expected):
    labels = LabelMatrix.from_dense(np.array(labels))
    assert criterion(labels) == expected
    random = np.random.default_rng(0).random((2, *labels.shape))
    ranks = [rank(validation_numbers(scores, labels.to_dense(), expected), expected) for scores in random]
    assert all(map(math.isfinite, ranks)) == (expected is not None)
    if expected == "cross_entropy":  # the one whose labels are more likely
        p = np.where(labels.to_dense() == 1, random, 1 - random)[:, labels.to_dense() != -1]
        assert (ranks[0] > ranks[1]) == (np.log(p[0]).mean() > np.log(p[1]).mean())


PI = torch.full((3,), 0.1)


@pytest.mark.parametrize(
    ("of_positives", "of_negatives", "prior", "expected"),
    [
        (0.9, 0.1, PI, "mAP_estimated"),  # depends on the label
        (0.5, 0.5, PI, "mAP"),  # at random
        (0.5, 0.0, PI, "mAP_estimated"),  # no negative is known
        (0.9, 0.1, None, "mAP"),
        (1.0, 1.0, PI, "mAP"),  # nothing to estimate
    ],
)
def test_auto_takes_the_estimate_where_annotation_depends_on_the_label(of_positives, of_negatives, prior, expected):
    rng = np.random.default_rng(0)
    truth = rng.random((2000, 3)) < 0.1
    known = rng.random(truth.shape) < np.where(truth, of_positives, of_negatives)
    labels = LabelMatrix.from_dense(np.where(known, truth, -1).astype(np.int8))
    assert choose(labels, prior, "auto")[0] == expected
    assert choose(labels, prior, "annotated")[0] == criterion(labels)
    if not_estimated(labels, prior):
        with pytest.raises(InputError, match="--select_by estimated: .*, expected auto or annotated"):
            choose(labels, prior, "estimated")
    else:
        assert choose(labels, prior, "estimated")[0] == "mAP_estimated"


def test_a_run_of_the_annotation_model_keeps_what_its_estimate_likes_best_and_says_it(positives):
    prior, run, said = Path(positives["data"]) / "prior.csv", Path(positives["path_dest"]), []
    prior.write_text("Classes,avg_pred\n" + "".join(f"{name},0.6\n" for name in "abcd"))
    settings = {**positives, "epochs": 3, "loss": "annotation", "prior_path": str(prior), "lr": 1e-3}
    best = train(TrainConfig(**settings), said.append)
    assert "best.ckpt: by the estimated mAP (known negatives are missing)" in said
    lines = [line for line in said if "with half the prior" in line]
    assert len(lines) == 3
    assert all(line.endswith(f"prior: {prior}") for line in lines)
    log = [strict(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert best["mAP_estimated"] == max(e[f"mAP_estimated_{name}"] for e in log for name in ("model", "ema"))
    estimate = strict((run / "results.json").read_text())["estimate"]
    assert estimate["best_by"] == "mAP_estimated"
    assert estimate["mAP_estimated_low"] <= estimate["mAP_estimated"] <= estimate["mAP_estimated_high"]

    again = {**settings, "path_dest": str(run) + "2"}
    train(TrainConfig(**again, max_steps=4), lambda _: None)
    assert strict_json(train(TrainConfig(**again, resume=True), lambda _: None)) == strict_json(best)

    options = ValidateOptions(model_path=str(run / "best.ckpt"), workers=0, device="cpu", path_dest=str(run))
    assert validate(options, said.append)["mAP_estimated"] == pytest.approx(best["mAP_estimated"], abs=1e-4)
    assert any(line.startswith("estimated mAP, all labels known") and f"prior: {prior})" in line for line in said)
    other = prior.rename(prior.with_name("other.csv"))
    assert "mAP_estimated" not in validate(options, said.append)
    assert said.count(f"estimated mAP: off ({prior}: no such file, where the prior of the network's run was)") == 1
    by_name = dataclasses.replace(options, prior_path=str(other))
    assert validate(by_name, said.append)["mAP_estimated"] == pytest.approx(best["mAP_estimated"], abs=1e-4)
    with pytest.raises(InputError, match="nowhere.csv"):
        validate(dataclasses.replace(options, prior_path="nowhere.csv"), said.append)


def test_without_known_negatives_the_best_is_that_of_the_other_map(positives):
    said, run = [], Path(positives["path_dest"])
    best = train(TrainConfig(**positives, epochs=5, seed=0, partial_loss_mode="selective"), said.append)
    assert sum("the best evaluation is the mAP with un-annotated as negative" in line for line in said) == 1
    assert any("no known negative in 4 of 4 classes" in line for line in said)
    log = [strict(line) for line in (run / "log.jsonl").read_text().splitlines()]
    values = {(e["epoch"], name): e[f"mAP_negative_{name}"] for e in log for name in ("model", "ema")}
    assert best["epoch"] > 1
    assert best["mAP_negative"] == max(values.values()) == values[best["epoch"], best["weights"]]
    results = strict((run / "results.json").read_text())
    assert results["best"]["mAP"] is None
    options = ValidateOptions(model_path=str(run / "best.ckpt"), workers=0, device="cpu", path_dest=str(run))
    numbers = validate(options, said.append)
    assert math.isnan(numbers["mAP"])
    assert strict((run / "validation.json").read_text())["mAP"] is None


def test_a_resumed_run_goes_on_selecting_by_the_same_number(positives):
    table = Path(positives["data"]) / "attributes.csv"
    table.write_text(table.read_text().replace(",1", ",0"))  # nothing is known to be there: no mAP means anything
    expected = train(TrainConfig(**positives, epochs=4), lambda _: None)
    assert expected["cross_entropy"] > 0
    again = {**positives, "path_dest": positives["path_dest"] + "2", "epochs": 4}
    train(TrainConfig(**again, max_steps=3), lambda _: None)
    assert strict_json(train(TrainConfig(**again, resume=True), lambda _: None)) == strict_json(expected)


def test_a_prior_of_positives_alone_is_not_estimated(positives):
    with pytest.raises(InputError, match=r"--prior_path auto: .*attributes\.csv has no known negative"):
        train(TrainConfig(**positives, partial_loss_mode="selective", prior_path="auto"), lambda _: None)
    assert not Path(positives["path_dest"]).exists()
    said = []
    train(TrainConfig(**positives, epochs=1, partial_loss_mode="ignore"), said.append)
    assert any(
        line.startswith("warning: un-annotated labels take no part in this loss, which without any known negative")
        for line in said
    )


def test_json_that_is_written_has_no_nan():
    content = {"a": [1.5, math.nan, (math.inf,)], "b": {"c": -math.inf, "d": "NaN"}, "e": np.float64("nan")}
    assert strict(strict_json(content)) == {"a": [1.5, None, [None]], "b": {"c": None, "d": "NaN"}, "e": None}


def test_every_json_of_the_repository_is_strict():
    root = Path(__file__).parents[2]
    for path in [*root.glob("benchmarks/results/*.json"), *root.glob("tests/golden/*.json")]:
        strict(path.read_text())
