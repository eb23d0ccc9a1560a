"""report.html: the numbers of independent code, nothing from outside, names that are text, and a line for what is missing."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.special import logit
from sklearn.metrics import average_precision_score, precision_recall_curve

from csl import Annotations, InputError, LabelMatrix, Predictor, read_annotations
from csl import __main__ as tools
from csl.decisions import Decisions
from csl.decisions.decisions import Rows
from csl.metrics import KnownScores
from csl.predict.kept_decisions import write_decisions
from csl.report import ReportOptions, report_on, write_report
from csl.report.examples import OF_A_CLASS, SHOWN, SIDE, likeliest, worst
from csl.runs.folder import RunFolder

HERE = {"workers": 0, "device": "cpu"}


def table_of(page):
    """{title of a column: its values}, and what is drawn on demand."""
    data = json.loads(re.search(r'<script type="application/json" id="table-data">(.*?)</script>', page, re.DOTALL)[1])
    return {column["title"]: column["values"] for column in data.pop("columns")}, data


@pytest.fixture(scope="module")
def scored(runs, garments):
    """Validation labels of the first run, and its scores by the network itself."""
    val = read_annotations(garments, split="val")
    return val, Predictor.load(runs[0] / "best.ckpt", device="cpu").score(val.images, workers=0).probabilities[0]


def test_a_run_ends_with_a_page_of_its_numbers(runs, scored, garments):
    run, _, said = runs
    assert "report.html" in said[-2]
    page = (run / "report.html").read_text()
    (val, scores), (table, drawn) = scored, table_of(page)
    targets, counts = val.labels.to_dense(), read_annotations(garments, split="train").labels.counts()
    assert table["class"] == list(val.classes)
    assert [table[name] for name in ("train +", "train −", "train ?")] == [count.tolist() for count in counts]
    for c, name in enumerate(val.classes):
        known = targets[:, c] != -1
        hits = targets[known, c] == 1
        assert (table["val +"][c], table["val −"][c]) == (hits.sum(), (~hits).sum()), name
        if not hits.any() or hits.all():
            assert table["AP"][c] is None
            assert drawn["curves"][c] == []
            continue
        assert table["AP"][c] == pytest.approx(100 * average_precision_score(hits, scores[known, c]), abs=1e-3)
        precision, recall, _ = precision_recall_curve(hits, scores[known, c])
        points = np.round(1000 * np.stack([recall, precision], 1)).astype(int)[-2::-1]  # the last is (0, 1)
        assert np.array_equal(np.reshape(drawn["curves"][c], (-1, 2)), points)
        number = np.reshape(drawn["diagrams"][c], (-1, 3))[:, 2]
        assert number.sum() == known.sum()
    assert f"<b>{json.loads((run / 'results.json').read_text())['best']['mAP']:.1f}</b>" in page


def test_the_page_loads_nothing_and_its_pictures_are_small_and_few(runs):
    page = (runs[0] / "report.html").read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "@import" not in page
    photos = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    assert 0 < len(photos) <= 2 * 3 * SHOWN  # each beside its heat map
    assert len(photos) % 2 == 0
    for photo in photos:
        with Image.open(io.BytesIO(base64.b64decode(photo))) as image:
            assert max(image.size) == SIDE


def test_the_command_writes_the_same_page_of_an_older_run(runs, tmp_path, capsys):
    run = shutil.copytree(runs[0], tmp_path / "run")
    before = table_of((run / "report.html").read_text())
    (run / "report.html").unlink()
    (run / "validation_scores.npz").unlink()
    assert tools.main(["report", str(run), "-j0", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {run / 'report.html'}"
    after = table_of((run / "report.html").read_text())
    assert after[0].keys() == before[0].keys()
    for title in after[0].keys() - {"calib. error"}:  # a score may lie next to the edge of a bin
        then, now = before[0][title], after[0][title]
        assert now == (then if isinstance(then[0], str) else pytest.approx(then, abs=0.02)), title
    assert (run / "validation_scores.npz").is_file()


def test_thresholds_and_calibration_are_those_of_the_networks_file(runs, scored, tmp_path):
    run, (val, scores) = shutil.copytree(runs[0], tmp_path / "run"), scored
    random, count = np.random.default_rng(0), len(val.classes)
    slope, bias, threshold = (part.tolist() for part in random.uniform(0.5, 2, (3, count)).round(3))
    rows = Rows(slope, bias, threshold, threshold, [float("nan")] * count, threshold, ["own", "few", "common"] * 7)
    names = [name for name, group in val.groups.items() if group.stop - group.start > 1]
    of_names = Rows(*([0.5] * len(names) for _ in range(6)), ["own"] * len(names))
    write_decisions(run / "best.ckpt", Decisions("F1", "as annotated", rows, [0.1] * count, 0.5, 12, of_names, names))
    report_on(ReportOptions(run=str(run), **HERE), lambda _: None)
    page = (run / "report.html").read_text()
    table, _ = table_of(page)
    assert table["threshold"] == threshold
    assert table["rests on"] == rows.basis
    assert "reaches from" not in table  # not known of any class
    assert "thresholds of 21 classes for F1" in page
    targets = val.labels.to_dense()
    for c in range(count):
        known = targets[:, c] != -1
        p = 1 / (1 + np.exp(-(slope[c] * logit(scores[known, c].astype(float)) + bias[c])))
        bins = np.minimum((10 * p).astype(int), 9)
        hits = targets[known, c] == 1
        error = sum(abs((p - hits)[bins == b].sum()) for b in range(10)) / known.sum()
        assert table["calibrated"][c] == pytest.approx(100 * error, abs=1e-2)


def test_where_the_data_are_gone_the_page_has_what_the_run_kept(runs, tmp_path):
    run, said = shutil.copytree(runs[0], tmp_path / "run"), []
    before, _ = table_of((run / "report.html").read_text())
    report_on(ReportOptions(run=str(run), data=str(tmp_path / "nowhere"), **HERE), said.append)
    page = (run / "report.html").read_text()
    table, _ = table_of(page)
    assert table["AP"] == before["AP"]
    assert "train +" not in table
    assert "<img" not in page
    assert sum(line.startswith(("validation images: not scored", "training labels: not counted")) for line in said) == 2
    assert "the scores are those that the run kept" in page


def test_a_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config.json in it, expected the folder of a run"):
        report_on(ReportOptions(run=str(tmp_path), **HERE))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds no checkpoint yet"):
        report_on(ReportOptions(run=str(tmp_path), **HERE))


def page_of(folder, targets, classes, images=None, **more):
    """The page of a run of whom nothing is known but labels and scores."""
    targets = np.asarray(targets, np.int8)
    images = images or [f"{i}.jpg" for i in range(len(targets))]
    scored = Annotations(images, LabelMatrix.from_dense(targets), classes, source="labels.csv")
    scores = np.random.default_rng(0).random(targets.shape).astype(np.float32)
    return write_report(RunFolder(folder), scored, scored, scores, **more).read_text()


def test_without_validation_labels_there_is_a_line(tmp_path):
    page = page_of(tmp_path, np.full((4, 2), -1), ["cat", "dog"])
    assert "no validation label is known: no class can be measured" in page
    assert table_of(page)[0]["train ?"] == [4, 4]


def test_classes_that_cannot_be_measured_are_counted(tmp_path):
    targets = [[1, 1, -1, 1], [1, 0, -1, 0], [-1, -1, -1, 0], [1, 1, -1, 0]]
    page = page_of(tmp_path, targets, ["always", "some", "nobody", "rare"])
    assert "1 of 4 classes have no known negative" in page
    assert "1 of 4 classes have no known label" in page
    table, drawn = table_of(page)
    assert [value is None for value in table["AP"]] == [True, False, True, False]
    assert [bool(curve) for curve in drawn["curves"]] == [False, True, False, True]
    assert "from" not in table  # too few labels for any interval


def test_an_interval_stands_around_each_number_that_has_enough_labels(tmp_path):
    targets = np.random.default_rng(0).choice([1, 0], size=(40, 3))
    targets[:, 2] = np.arange(40) < 4  # four positives
    table, _ = table_of(page_of(tmp_path, targets, ["a", "b", "c"]))
    for low, middle, high in list(zip(table["from"], table["AP"], table["to"], strict=True))[:2]:
        assert 0 < middle - low < 25
        assert high - middle == pytest.approx(middle - low, abs=1e-3)
    assert (table["from"][2], table["to"][2]) == (None, None)


def test_names_are_text_wherever_they_stand(tmp_path):
    evil = '</script><script>alert("1")</script><img src=x onerror=alert(1)>'
    page = page_of(tmp_path, [[1], [0], [-1]], [evil], [f"{evil}.jpg", "b.jpg", "c.jpg"], notes=[evil])
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert table_of(page)[0]["class"] == [evil]


def test_examples_are_the_extremes_of_known_and_unknown_entries():
    random = np.random.default_rng(1)
    scores = random.random((50, 70)).astype(np.float32)
    targets = random.choice([1, 0, -1], size=scores.shape).astype(np.int8)
    labels = LabelMatrix.from_dense(targets)
    known = KnownScores.of(scores, labels)
    for found, wanted, sign in ((worst(known, 1), 1, 1), (worst(known, 0), 0, -1), (likeliest(scores, labels), -1, -1)):
        rows, columns = np.nonzero(targets == wanted)
        expected, per_class, per_image = [], np.zeros(70, int), np.zeros(50, int)
        for entry in np.argsort(sign * scores[rows, columns]):
            image, c = rows[entry], columns[entry]
            if per_class[c] < OF_A_CLASS and per_image[image] < OF_A_CLASS and len(expected) < SHOWN:
                expected.append((image, c, float(scores[image, c])))
                per_class[c] += 1
                per_image[image] += 1
        assert found == expected
