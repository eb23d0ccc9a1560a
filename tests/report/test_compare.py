"""csl compare: differences on what runs share, draw by draw, against scikit-learn and plain loops."""

import json
import re
import shutil

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from csl import InputError
from csl import __main__ as tools
from csl.metrics import KnownScores
from csl.metrics.bootstrap import drawn_images
from csl.report import CompareOptions, compare
from csl.report.classes import Precision
from csl.report.comparison import Difference, aligned
from csl.report.kept import KeptScores


def kept(scores, targets, images=None, classes=None):
    images = images or [f"{i}.jpg" for i in range(len(scores))]
    classes = classes or [f"class {c}" for c in range(scores.shape[1])]
    return KeptScores(images, [name.upper() for name in classes], classes, KnownScores.of(scores, targets))


@pytest.fixture
def entries():
    random = np.random.default_rng(5)
    scores = random.random((2, 40, 6)).astype(np.float32)
    return scores, random.choice([1, 0, -1], size=scores.shape[1:], p=[0.3, 0.4, 0.3]).astype(np.int8)


def test_what_runs_share_is_found_by_name_whatever_the_order(entries):
    (first, second), targets = entries
    random = np.random.default_rng(0)
    theirs = targets.copy()
    theirs[3] = -1  # not known to the second
    theirs[7, targets[7] != -1] = 1 - targets[7, targets[7] != -1]  # contradicted
    rows, columns = random.permutation(40)[:35], random.permutation(6)[:5]
    names, classes = [f"{i}.jpg" for i in range(40)], [f"class {c}" for c in range(6)]
    other = kept(
        second[np.ix_(rows, columns)],
        theirs[np.ix_(rows, columns)],
        [names[r] for r in rows],
        [classes[c] for c in columns],
    )
    (a, b), notes = aligned([kept(first, targets), other], ["A", "B"])
    assert a.images == b.images == [name for r, name in enumerate(names) if r in rows]
    assert a.keys == b.keys == [name for c, name in enumerate(classes) if c in columns]
    assert a.classes == [name.upper() for name in a.keys]
    r, c = np.sort(rows), np.sort(columns)
    shared = np.where((targets == theirs)[np.ix_(r, c)], targets[np.ix_(r, c)], -1)
    for each, scores in ((a, first), (b, second)):
        expected = KnownScores.of(scores[np.ix_(r, c)], shared)
        for name in ("num_images", "starts", "images", "scores", "labels"):
            assert np.array_equal(getattr(each.known, name), getattr(expected, name)), name
    assert [note.split(":")[0].split(" (")[0] for note in notes[:2]] == ["35 images are shared", "5 classes are shared"]
    contradicted = (targets[7, c] != -1).sum() if 7 in rows else 0
    assert f"{contradicted} labels differ between the runs: left out" in notes


def test_the_difference_is_taken_draw_by_draw(entries):
    scores, targets = entries[0][..., :2], entries[1][:, :2]
    found = Difference.between(*(Precision.of(KnownScores.of(each, targets)) for each in scores))
    differences = []
    for times in drawn_images(40, 100):
        rows = np.repeat(np.arange(40), times)
        ap = np.full((2, 2), np.nan)
        for run, c in np.ndindex(2, 2):
            known = rows[targets[rows, c] != -1]
            if len({*targets[known, c].tolist()}) == 2:
                ap[run, c] = 100 * average_precision_score(targets[known, c], scores[run, known, c])
        differences.append(np.append(ap[1] - ap[0], np.nanmean(ap[1]) - np.nanmean(ap[0])))
    differences = np.array(differences)
    assert found.mean == pytest.approx(differences[0, -1])
    assert found.half == pytest.approx(1.645 * differences[1:, -1].std())
    np.testing.assert_allclose(found.by_class, differences[0, :-1], atol=1e-9)
    np.testing.assert_allclose(found.half_by_class, 1.645 * np.nanstd(differences[1:, :-1], axis=0), atol=1e-9)


def test_of_the_same_network_twice_nothing_differs(entries):
    scores, targets = entries
    both = [Precision.of(KnownScores.of(scores[0], targets))] * 2
    found = Difference.between(*both)
    assert (found.mean, found.half) == (0, 0)
    assert not found.beyond_chance.any()


def test_two_runs_side_by_side_with_and_without_kept_scores(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folders = [str(shutil.copytree(run, tmp_path / run.name)) for run in runs[:2]]

    def lines():
        assert tools.main(["compare", *folders, "-j0", "--device", "cpu"]) == 0
        return capsys.readouterr().out.splitlines()

    said = lines()
    of_runs = [json.loads((run / "results.json").read_text())["best"]["mAP"] for run in runs[:2]]
    for name, value in zip(("seed0", "seed1"), of_runs, strict=True):
        assert any(line.startswith(f"{name}  mAP {value:.2f} (") for line in said)
    assert any(f"{of_runs[1] - of_runs[0]:+.2f}" in line and line.endswith("against seed0") for line in said)
    page = (tmp_path / "compare.html").read_text()
    assert re.search(r"<tr><th>seed</th><td>0</td><td>1</td></tr>", page)
    assert '"title": "AP seed1"' in page
    (tmp_path / "seed1" / "validation_scores.npz").unlink()
    again = lines()
    assert [line for line in again if line.startswith("seed")] == [line for line in said if line.startswith("seed")]
    assert (tmp_path / "seed1" / "validation_scores.npz").is_file()


def test_what_compare_refuses(runs, tmp_path, entries):
    run = str(runs[0])
    with pytest.raises(InputError, match="one run, expected two or more"):
        compare(CompareOptions(runs=[run]))
    with pytest.raises(InputError, match="given twice"):
        compare(CompareOptions(runs=[run, run]))
    with pytest.raises(InputError, match=r"no config.json in it"):
        compare(CompareOptions(runs=[run, str(tmp_path)]))
    (first, second), targets = entries
    with pytest.raises(InputError, match="no validation label that all of them know"):
        aligned([kept(first, targets), kept(second, targets, [f"other {i}" for i in range(40)])], ["A", "B"])


def test_kept_scores_come_back_or_say_what_they_are_not(entries, tmp_path):
    (first, _), targets = entries
    there, file = kept(first, targets, [f"ä\n{i}\udcff" for i in range(40)]), tmp_path / "scores.npz"
    assert there.save(file)
    back = KeptScores.load(file)
    assert (back.images, back.classes, back.keys) == (there.images, there.classes, there.keys)
    assert np.array_equal(back.known.scores, there.known.scores)
    np.savez(file, images=np.zeros(3, np.uint8))
    with pytest.raises(InputError, match="not the validation scores of a run"):
        KeptScores.load(file)
    with pytest.raises(InputError, match="no such file"):
        KeptScores.load(tmp_path / "nowhere.npz")
