"""`csl suggest --for audit`: a sample of a stream against one of everything, and the command from questions to prior."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from test_suggest import suggest, table, write_run

from csl import read_annotations, read_prior
from csl.labels.options import DataOptions
from csl.labels.read import read_truth
from csl.metrics.sampled import BINS, bins_of
from csl.suggest import audit
from csl.suggest.audit import Reservoir


@pytest.mark.parametrize("room", [8, 1 << 22])
@pytest.mark.parametrize("blocks", [[200], [1, 60, 61, 200]])
def test_a_reservoir_holds_the_entries_of_the_least_keys_however_images_come(room, blocks, monkeypatch):
    monkeypatch.setattr(audit, "ROOM", room)
    rng = np.random.default_rng(0)
    scores = rng.choice([0.1, 0.2, 0.9], (200, 3)).astype(np.float32)
    labels, rows = rng.integers(-1, 2, (200, 3)).astype(np.int8), np.arange(200) * 7
    reservoir = Reservoir(3, 4, np.random.default_rng(1))
    for first, last in zip([0, *blocks], [*blocks, 200], strict=False):
        if first < last:
            reservoir.add(rows[first:last], scores[first:last], labels[first:last])
    keys = np.random.default_rng(1).random((200, 3))
    for c in range(3):
        for score in (0.1, 0.2, 0.9):
            there = np.flatnonzero((scores[:, c] == np.float32(score)) & (labels[:, c] == -1))
            least = there[np.argsort(keys[there, c])][:4]
            found, their = reservoir.take(np.full(4, c), np.full(4, bins_of(np.float32(score)), int))
            assert found.tolist() == rows[least].tolist()
            assert (their == np.float32(score)).all()
    assert reservoir.counts.images == 200
    assert sum(len(part[0]) for part in reservoir._parts) <= 3 * 3 * 4


def test_many_classes_take_memory_of_classes_not_of_entries():
    reservoir, rng = Reservoir(40, 2, np.random.default_rng(0)), np.random.default_rng(1)
    for first in range(0, 4000, 50):
        reservoir.add(np.arange(first, first + 50), rng.random((50, 40)), np.full((50, 40), -1))
    reservoir.take(np.array([3, 3, 5]), np.full(3, BINS // 2))
    assert len(reservoir._parts[0][0]) <= 40 * BINS * 2 < 4000 * 40


@pytest.fixture
def run(drawn, tmp_path, monkeypatch):
    """A run of drawn garments, whose folder the test may write answers into; it is worked in."""
    data = tmp_path / "garments"
    shutil.copytree(drawn(60, 12, 48), data)
    monkeypatch.chdir(tmp_path)
    val = read_annotations(data, split="val")
    return write_run(tmp_path / "run", data, val.classes, val.groups)


def truths(data):
    val = read_annotations(data, split="val", reviews="none")
    return val, read_truth(DataOptions(data=str(data)), "val", val).to_dense()


def answer(data, questions, truth, unsure=()):
    val, labels = truth
    row, column = ({name: k for k, name in enumerate(names)} for names in (val.names, val.classes))
    entries = enumerate(zip(questions["image"], questions["class"], strict=True))
    said = [
        "unsure" if k in unsure else "yes" if labels[row[image], column[name]] == 1 else "no"
        for k, (image, name) in entries
    ]
    rows = questions.assign(answer=said, when="2026-01-31T12:00:00Z")
    rows[["image", "class", "answer", "score", "when"]].to_csv(data / "reviews.csv", index=False)


def test_questions_are_asked_once_and_their_answers_read_again_and_again(run, tmp_path, capsys):
    data, truth = tmp_path / "garments", truths(tmp_path / "garments")
    val, labels = truth
    assert suggest("run", "--for", "audit", "--top", "30") == 0
    questions = table("run/audit.csv")
    assert list(questions.columns[:5]) == ["image", "class", "score", "stratum", "probability"]
    known = val.labels.to_dense()
    entries = [
        (val.names.index(i), val.classes.index(c)) for i, c in zip(questions["image"], questions["class"], strict=True)
    ]
    assert len(set(entries)) == 30
    assert all(known[entry] == -1 for entry in entries)
    assert questions["probability"].between(0, 1).all()

    assert suggest("run", "--for", "audit") == 0
    assert "0 of 30 questions" in capsys.readouterr().out
    answer(data, questions.drop(index=20), truth, unsure=[2])
    assert suggest("run", "--for", "audit") == 0
    printed = capsys.readouterr().out
    assert "9 answers wait for that to question 21" in printed
    assert "20 answers, 1 of them unsure" in printed
    first = json.loads((run / "audit.json").read_text())

    answer(data, questions, truth)
    reviews = pd.read_csv(data / "reviews.csv", dtype={"image": str})
    other = int((reviews["answer"] == "no").idxmax())  # told by the value that it has instead
    has = np.flatnonzero(labels[val.names.index(reviews["image"][other])] == 1).tolist()
    group = next(g for g in val.groups.values() if g.start <= val.classes.index(reviews["class"][other]) < g.stop)
    reviews.loc[other, ["class", "answer"]] = val.classes[next(c for c in has if group.start <= c < group.stop)], "yes"
    reviews.to_csv(data / "reviews.csv", index=False)
    assert suggest("run", "--for", "audit") == 0
    pd.testing.assert_frame_equal(table("run/audit.csv"), questions)
    found = json.loads((run / "audit.json").read_text())
    assert (first["answers"], found["answers"]) == (20, 30)
    assert found["labels_an_image"]["low"] < (labels == 1).sum() / len(labels) < found["labels_an_image"]["high"]
    assert 0 < found["mAP"]["low"] < found["mAP"]["estimate"] < found["mAP"]["high"] < 100
    assert sum(one["answers"] for one in found["classes"]) == 30
    prior = read_prior(run / "prior_audited.csv", val.classes)
    np.testing.assert_allclose(prior.numpy(), [one["prior"] for one in found["classes"]], rtol=1e-6)

    (run / "audit.csv").unlink()  # for a new sample, of what is still unknown
    assert suggest("run", "--for", "audit", "--top", "5") == 0
    again = table("run/audit.csv")
    assert not set(zip(again["image"], again["class"], strict=True)) & set(
        zip(questions["image"], questions["class"], strict=True)
    )


def test_answers_to_a_sample_of_other_data_are_refused(run, tmp_path, drawn, capsys):
    assert suggest("run", "--for", "audit", "--top", "30") == 0
    assert suggest("run", "--for", "audit", "--data", drawn(20, 14, 48)) == 2
    assert "drawn from 12 images" in capsys.readouterr().err
    (run / "audit.npz").write_bytes(b"no archive")
    assert suggest("run", "--for", "audit") == 2
    assert "not the sample of an audit" in capsys.readouterr().err
