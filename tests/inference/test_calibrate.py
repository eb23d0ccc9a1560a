"""validate.py --calibrate keeps decisions with a network, and infer.py goes by them; --th shows what it showed before."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from csl import InputError, Predictor, checkpoint
from csl.decisions import Goal, decide
from csl.inference.infer import InferenceOptions, infer
from csl.inference.validate import ValidateOptions, _calibrate, validate
from csl.labels import Annotations, LabelMatrix
from csl.models import create_model
from csl.predict import attribute_table, attribute_values, name_scores
from csl.predict.kept_decisions import file_beside

pytestmark = pytest.mark.usefixtures("no_pictures")
HERE = {"image_size": 32, "batch_size": 16, "workers": 0, "device": "cpu"}
CLASSES = ["dark", "long", "new"]


@pytest.fixture
def photos(garments, tmp_path):
    """A table of three yes/no classes and an attribute for drawn photos, of which a third of the entries is unknown."""
    rng = np.random.default_rng(0)
    names = [f"{i:05d}.jpg" for i in range(1, 33)]
    table = pd.DataFrame({"filename": names, "split": "val"})
    for name in CLASSES:
        values = np.array(rng.integers(0, 2, 32), dtype=object)
        values[rng.random(32) < 0.3] = "#N/A"
        table[name] = values
    table["hue"] = rng.choice(["red", "blue", "green"], 32)
    table.to_csv(tmp_path / "labels.csv", index=False)
    (tmp_path / "images").symlink_to(garments / "images")
    return tmp_path


@pytest.fixture
def weights(photos, tmp_path):
    torch.manual_seed(0)
    names = [*CLASSES, "hue:blue", "hue:green", "hue:red"]
    content = {"model": create_model("test_resnet", 6).state_dict(), "model_name": "test_resnet", "head": "linear"}
    content |= {"num_classes": 6, "classes": names, "idx_to_class": dict(enumerate(names)), "best": {"epoch": 1}}
    content |= {"groups": {"dark": [0, 1], "long": [1, 2], "new": [2, 3], "hue": [3, 6]}}
    checkpoint.write(tmp_path / "w.ckpt", content)
    return tmp_path / "w.ckpt"


def measured(weights, photos, out, **options):
    said = []
    options = {"data": str(photos / "labels.csv"), "follow_links": True, "path_dest": str(out), **HERE, **options}
    return validate(ValidateOptions(model_path=str(weights), **options), said.append), said


def named(weights, photos, out, **options):
    said = []
    options = InferenceOptions(
        model_path=str(weights), pic_path=str(photos / "images" / "00001.jpg"), path_dest=str(out), **HERE, **options
    )
    return pd.read_csv(infer(options, said.append) / "predictions.csv"), said


def test_a_checkpoint_gets_decisions_and_stays_the_same_network(weights, photos, tmp_path):
    before = checkpoint.read(weights)
    raw, said = named(weights, photos, tmp_path / "raw")
    assert any(line.startswith("threshold: 0.7 of every score") for line in said)
    fixed, _ = named(weights, photos, tmp_path / "fixed", th=0.4)
    numbers, said = measured(weights, photos, tmp_path / "out", calibrate=True)
    assert any(line.endswith(f"kept in {weights}") for line in said)
    after = checkpoint.read(weights)
    assert after.extra.keys() - before.extra.keys() == {"decisions"}
    assert all(torch.equal(value, after.state_dict[name]) for name, value in before.state_dict.items())

    predictor = Predictor.load(weights, device="cpu", image_size=32)
    decisions, table = predictor.decisions, pd.read_csv(photos / "labels.csv")
    scores = predictor.score([str(photos / "images" / name) for name in table["filename"]], workers=0).probabilities[0]
    q, f1 = decisions.calibrated(scores), []
    for c, name in enumerate(predictor.classes):
        labels = table[name] if name in table else (table["hue"] == name.split(":")[1]).astype(float)
        known = labels.notna()
        f1.append(f1_score(labels[known], q[known, c] > decisions.thresholds[c], zero_division=0))
    assert numbers["macro_f1_at_thresholds"] == pytest.approx(100 * np.mean(f1), abs=0.01)
    assert json.loads((tmp_path / "out" / "validation.json").read_text())["macro_f1_at_thresholds"] is not None
    rows = pd.read_csv(tmp_path / "out" / "validation.csv")
    np.testing.assert_allclose(rows["threshold"], decisions.thresholds)
    assert set(rows["basis"]) <= {"own", "few", "common"}
    again, said = measured(weights, photos, tmp_path / "out")  # measures by what is kept
    assert again["macro_f1_at_thresholds"] == numbers["macro_f1_at_thresholds"]
    assert any(line.startswith("macro F1 at 0.5") for line in said)

    found, said = named(weights, photos, tmp_path / "own")
    assert sum(line.startswith("thresholds of 6 classes for best F1") for line in said) == 1
    expected = name_scores(scores[0], predictor.classes, predictor.groups, decisions=decisions)
    assert found["class"].tolist() == [p.name for p in expected]
    np.testing.assert_allclose(found["score"], [p.score for p in expected], atol=2e-6)
    pd.testing.assert_frame_equal(named(weights, photos, tmp_path / "fixed", th=0.4)[0], fixed)
    pd.testing.assert_frame_equal(named(weights, photos, tmp_path / "raw", th=0.7)[0], raw)


def test_a_file_of_another_program_stays_as_it_is(weights, photos, tmp_path):
    state = torch.load(weights, weights_only=True)
    foreign = tmp_path / "foreign.pth"
    kept = ("model", "model_name", "num_classes", "idx_to_class", "classes", "groups")
    torch.save({key: state[key] for key in kept}, foreign)
    content = foreign.read_bytes()
    _, said = measured(foreign, photos, tmp_path / "out", calibrate=True, target="recall=0.8")
    assert foreign.read_bytes() == content
    assert any(line.endswith(f"kept in {file_beside(foreign)}") for line in said)
    assert Predictor.load(foreign, device="cpu", image_size=32).decisions.goal == "recall 0.8"
    file_beside(foreign).write_text("{")
    with pytest.raises(InputError, match="decisions.json, line 1: not valid JSON"):
        Predictor.load(foreign, device="cpu", image_size=32)


def test_an_exported_file_has_the_decisions_of_its_checkpoint(weights, photos, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    from csl.export import ExportOptions, export

    measured(weights, photos, tmp_path / "out", calibrate=True)
    expected = Predictor.load(weights, device="cpu").decisions
    out = export(
        ExportOptions(model_path=str(weights), image_size=32, check=str(photos / "images" / "00001.jpg")), print
    )
    assert Predictor.load(out).decisions == expected
    _, said = measured(out, photos, tmp_path / "out", calibrate=True, target="recall=0.8")
    assert any(line.endswith(f"kept in {file_beside(out)}") for line in said)
    assert Predictor.load(out).decisions.goal == "recall 0.8"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": "recall=0.8"}, "--target recall=0.8: changes nothing without --calibrate"),
        ({"calibrate": True, "target": "recall=80"}, "--target recall=80: expected precision=P or recall=R"),
        ({"calibrate": True, "split": "train"}, "--calibrate --split train: the network has learned these labels"),
    ],
)
def test_what_it_refuses(weights, photos, tmp_path, given, message):
    before = weights.read_bytes()
    with pytest.raises(InputError, match=message):
        measured(weights, photos, tmp_path / "out", **given)
    assert weights.read_bytes() == before


def test_decisions_are_in_the_order_of_the_network():
    rng = np.random.default_rng(0)
    p = rng.random((400, 3)).astype(np.float32) * [0.2, 0.6, 1]
    truth = (rng.random(p.shape) < p).astype(np.int8)
    annotations = Annotations([str(i) for i in range(400)], LabelMatrix.from_dense(truth), ["a", "b", "c"])
    result = SimpleNamespace(probabilities=p.astype(np.float32), indices=np.arange(400))
    for order in (["a", "b", "c"], ["c", "a", "b"]):
        network = SimpleNamespace(classes=order, groups=None, config=None)
        found = _calibrate(network, annotations, result, Goal(), None)
        np.testing.assert_allclose(found.prior, [truth.mean(0)["abc".index(name)] for name in order], rtol=0.1)


def test_an_attribute_may_be_unsure_in_names_and_tables():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 300).astype(np.float32)
    labels = LabelMatrix.from_dense(((rng.random((300, 1)) < p.cumsum(1)).cumsum(1) == 1).astype(np.int8))
    classes, groups = ["hue:a", "hue:b", "hue:c"], {"hue": slice(0, 3)}
    decisions = decide(p, labels, groups, Goal("precision", 0.8))
    even, sure = np.full(3, 1 / 3, np.float32), np.array([0.98, 0.01, 0.01], np.float32)
    (unsure,) = name_scores(even, classes, groups, decisions=decisions)
    assert unsure.name == "hue unsure"
    assert classes[unsure.number].startswith("hue:")  # whose heat map is drawn
    assert [one.name for one in name_scores(sure, classes, groups, decisions=decisions)] == ["hue:a"]
    table = attribute_table(
        pd.DataFrame({"x": [1, 2]}), np.stack([even, sure]), groups, attribute_values(classes, groups), decisions
    )
    assert table["Predicted Hue Type"].tolist() == ["unsure", "a"]


def test_answers_to_what_was_unknown_move_no_threshold(weights, photos, tmp_path):
    measured(weights, photos, tmp_path / "out", calibrate=True)
    before = Predictor.load(weights, device="cpu", image_size=32).decisions
    table = pd.read_csv(photos / "labels.csv", keep_default_na=False, dtype=str)
    unknown = table[table["dark"] == "#N/A"]["filename"]
    answers = pd.DataFrame({"image": "images/" + unknown, "class": "dark", "answer": "yes", "score": ""})
    answers.assign(when="2026-11-27T10:00:00Z").to_csv(photos / "reviews.csv", index=False)
    _, said = measured(weights, photos, tmp_path / "out", calibrate=True)
    assert any(f"{len(unknown)} tell what was unknown" in line for line in said)
    after = Predictor.load(weights, device="cpu", image_size=32).decisions
    assert after == before
