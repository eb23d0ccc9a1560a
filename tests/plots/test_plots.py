"""Pictures: what is drawn is what was measured, at 1, 21 and 9,605 classes, whatever the classes are called."""

import warnings
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve

from csl import InputError
from csl.labels import Annotations, LabelMatrix, simulate
from csl.plots import (
    Sheet,
    choose_classes,
    choose_images,
    draw_contact_sheet,
    draw_labels,
    draw_precision_recall,
    draw_predictions,
    draw_prior,
    named_classes,
    plot_training,
)
from csl.plots.annotation import draw_annotation
from csl.plots.predictions import judge
from csl.plots.prior import frequency
from csl.plots.style import Page, number, share, styled
from csl.plots.validation import plot_validation
from csl.predict import Prediction
from csl.predict.scoring import Scores
from csl.prior import write_prior
from csl.runs.folder import RunFolder

STRANGE = ["cost in $ or $", "under_score_2^2", "\\alpha", "日本の猫", "Größe", "a  b", "", "W" * 400]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight images of different shapes, the last of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i, (width, height) in enumerate([(30, 20), (20, 30), (1, 90), (300, 200), (64, 64), (9, 9), (40, 50)]):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / "7.png").write_bytes(b"no image")
    return [str(folder / f"{i}.png") for i in range(8)]


@pytest.fixture(scope="module")
def open_images():
    """A long tail as of OpenImages: 9,605 classes, few labels an image, 700 classes without any positive."""
    rng = np.random.default_rng(1)
    num_images, num_classes = 20_000, 9605
    likely = 0.3 / np.arange(1, num_classes + 1)
    likely[-700:] = 0
    rng.shuffle(likely)
    positives = rng.binomial(num_images, likely)
    negatives = rng.binomial(num_images, likely / 2 + 1e-4)
    rows = np.concatenate([rng.choice(num_images, p + n, replace=False) for p, n in zip(positives, negatives)])  # noqa: B905
    classes = np.repeat(np.arange(num_classes), positives + negatives)
    values = np.concatenate([np.repeat([1, 0], (p, n)) for p, n in zip(positives, negatives, strict=True)])
    labels = LabelMatrix.from_entries(rows, classes, values, (num_images, num_classes))
    names = [f"class {c} of the tail" for c in range(num_classes)]
    return Annotations([f"{i}.jpg" for i in range(num_images)], labels, names)


def partly_known(num_images, num_classes, rng, known=0.6):
    return np.where(rng.random((num_images, num_classes)) < known, rng.random((num_images, num_classes)) < 0.3, -1)


def annotations(labels, classes, groups=None):
    labels = LabelMatrix.from_dense(labels)
    return Annotations([f"{i}.jpg" for i in range(len(labels))], labels, classes, groups)


def texts(page):
    return [text.get_text() for text in page.figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def line(axes, label):
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def is_whole(path):
    """A PNG that decodes, is not blank, and beside which nothing half-written is left."""
    with Image.open(path) as image:
        image.load()
        assert min(image.size) > 100
        assert np.asarray(image.convert("L")).std() > 1
    assert [p.name for p in path.parent.iterdir() if p.suffix == ".tmp"] == []
    return True


def cut_or_overlapping(page):
    """Texts of a page that leave it, or that lie on one another."""
    page.pixels()
    renderer = page.figure.canvas.get_renderer()
    boxes = []
    for text in page.figure.findobj(lambda artist: hasattr(artist, "get_text")):
        if text.get_text() and text.get_visible():
            boxes.append((text.get_text(), text.get_window_extent(renderer)))
    whole = page.figure.bbox
    wrong = [name for name, b in boxes if b.x0 < -1 or b.y0 < -1 or b.x1 > whole.x1 + 1 or b.y1 > whole.y1 + 1]
    edges = np.array([(b.x0 + 1, b.y0 + 1, b.x1 - 1, b.y1 - 1) for _, b in boxes])
    for i, (name, _) in enumerate(boxes):
        a, others = edges[i], edges[i + 1 :]
        meets = (a[0] < others[:, 2]) & (others[:, 0] < a[2]) & (a[1] < others[:, 3]) & (others[:, 1] < a[3])
        wrong += [f"{name} on {boxes[i + 1 + j][0]}" for j in np.flatnonzero(meets)]
    return wrong


# --------------------------------------------------------------------------------------------------------------- labels


def test_labels_of_attributes_are_the_counts(tmp_path):
    rng = np.random.default_rng(0)
    labels = partly_known(50, 21, rng)
    groups = {"neck": slice(0, 7), "sleeve_length": slice(7, 11), "pattern": slice(11, 21)}
    data = annotations(labels, [f"Neck {c}" for c in range(21)], groups)
    page = draw_labels(data)
    dots, shares = page.figure.axes
    assert line(dots, "now")[0].tolist() == (labels == 1).sum(0).tolist()
    for value, word in ((1, "known positive"), (0, "known negative"), (-1, "unknown")):
        (bars,) = [c for c in shares.containers if c.get_label() == word]
        np.testing.assert_allclose([bar.get_width() for bar in bars], 100 * (labels == value).mean(0))
    shown = texts(page)
    assert set(data.classes) <= set(shown)
    assert {"neck", "sleeve length", "pattern"} <= set(shown)
    assert cut_or_overlapping(page) == []
    assert is_whole(page.save(tmp_path / "new" / "labels.png"))


def test_labels_before_and_after_a_simulation():
    rng = np.random.default_rng(0)
    full = (rng.random((4000, 80)) < 0.5 / np.arange(1, 81)).astype(int)[:, rng.permutation(80)]
    before = LabelMatrix.from_dense(full, fill=0)
    after = simulate(before, "fpc", 20, rng)
    data = Annotations([""] * 4000, after, [f"class {c}" for c in range(80)])
    page = draw_labels(data, before)
    dots, shares_before, shares_after = page.figure.axes
    order = np.argsort(-full.sum(0), kind="stable")
    assert line(dots, "before")[0].tolist() == full.sum(0)[order].tolist()
    assert line(dots, "now")[0].tolist() == np.minimum(full.sum(0), 20)[order].tolist()
    assert shares_before.containers[2].get_label() == "unknown"
    assert sum(bar.get_width() for bar in shares_before.containers[2]) == 0
    unknown = 100 * after.counts().unannotated[order] / 4000
    np.testing.assert_allclose([bar.get_width() for bar in shares_after.containers[2]], unknown)
    assert cut_or_overlapping(page) == []


def test_labels_of_a_long_tail_are_ranked_and_its_ends_named(open_images, tmp_path):
    counts = open_images.labels.counts()
    page = draw_labels(open_images)
    (axes,) = page.figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "symlog")
    x, y = line(axes, "known positive")
    assert x.tolist() == list(range(1, 9606))
    assert y.tolist() == sorted(counts.positives.tolist(), reverse=True)
    _, unknown = line(axes, "unknown")
    most = np.argsort(-counts.positives, kind="stable")
    assert unknown[:5].tolist() == counts.unannotated[most[:5]].tolist()  # further on, medians of several classes
    assert counts.unannotated.min() <= unknown.min()
    assert np.median(counts.unannotated[most[-2000:]]) == pytest.approx(unknown[-1], abs=1)
    shown = texts(page)
    for c in most[:14]:
        assert open_images.classes[c] in shown
        assert f"{counts.positives[c]:,}" in shown
    assert f"{(counts.positives == 0).sum():,} classes without any known positive" in shown
    assert cut_or_overlapping(page) == []
    after = open_images.with_labels(simulate(open_images.labels, "fpc", 50, np.random.default_rng(0)))
    page = draw_labels(after, open_images.labels)
    (axes,) = page.figure.axes
    assert line(axes, "before")[1].tolist() == y.tolist()
    assert line(axes, "known positive")[1].max() == 50
    assert cut_or_overlapping(page) == []
    assert is_whole(page.save(tmp_path / "labels.png"))


@pytest.mark.parametrize("count", [0, 1])
def test_labels_without_a_positive_or_an_image(count, tmp_path):
    for classes in (["only"], [f"class {c}" for c in range(300)]):
        data = annotations(np.full((count, len(classes)), -1), classes)
        assert is_whole(draw_labels(data, data.labels).save(tmp_path / f"{len(classes)}.png"))


# ---------------------------------------------------------------------------------------------------------------- prior


def test_prior_of_few_classes_shows_every_value_and_the_agreement(tmp_path):
    rng = np.random.default_rng(0)
    prior, annotated, truth = rng.random(21), rng.random(21) * 0.1, rng.random(21)
    prior[4] = np.nan
    classes = [f"Pattern {c}" for c in range(21)]
    page = draw_prior(prior, annotated, classes, truth)
    (axes,) = page.figure.axes
    order = np.argsort(-np.nan_to_num(prior, nan=-1))
    np.testing.assert_array_equal(line(axes, "estimated")[0], prior[order])
    np.testing.assert_array_equal(line(axes, "annotated")[0], np.maximum(annotated, axes.get_xlim()[0])[order])
    np.testing.assert_array_equal(line(axes, "true")[0], np.maximum(truth, axes.get_xlim()[0])[order])
    from scipy.stats import spearmanr

    known = ~np.isnan(prior)
    shared = len(set(order[:10]) & set(np.argsort(-np.where(known, truth, -1))[:10]))
    correlation = spearmanr(prior[known], truth[known]).statistic
    assert {f"{shared} of 10 shared with the truth", f"rank correlation {correlation:.2f}"} <= set(texts(page))
    assert cut_or_overlapping(page) == []
    assert is_whole(page.save(tmp_path / "prior.png"))


def test_prior_of_many_classes_is_a_scatter_of_all(open_images, tmp_path):
    rng = np.random.default_rng(0)
    truth = frequency(open_images.labels) * 3
    prior = np.clip(truth**0.8 * rng.lognormal(0, 0.5, 9605) + 1e-5, 0, 1)
    page = draw_prior(prior, frequency(open_images.labels), open_images.classes, truth)
    for axes, values in zip(page.figure.axes, (frequency(open_images.labels), truth), strict=True):
        name = "annotated" if values is not truth else "true"
        floor = axes.get_xlim()[0]
        np.testing.assert_array_equal(line(axes, name)[0], np.maximum(values, floor))
        np.testing.assert_array_equal(line(axes, name)[1], np.maximum(prior, floor))
    shown = texts(page)
    for values in (prior, truth):
        for c in np.argsort(-values)[:10]:
            assert open_images.classes[c] in shown
            assert share(values[c]) in shown
    assert cut_or_overlapping(page) == []
    assert is_whole(draw_prior(prior, truth, open_images.classes).save(tmp_path / "prior.png"))


@pytest.mark.parametrize("classes", [5, 9605])
def test_the_annotation_model_shows_every_delta_its_interval_and_what_csl_would_do(classes, tmp_path):
    rng = np.random.default_rng(0)
    prior, delta = rng.uniform(0, 0.1, classes), rng.exponential(0.3, classes)
    names = [f"<{name}$" for name in range(classes)]
    model = pd.DataFrame(
        {"class": names, "prior": prior, "delta": delta, "delta_low": delta / 2, "delta_high": 2 * delta}
    )
    page = draw_annotation(model, 0.05)
    axes = page.figure.axes[0]
    out, negative = (line for line in axes.lines if line.get_label().startswith("CSL"))
    assert sorted(out.get_xdata()) == sorted(delta[prior > 0.05])
    assert sorted(negative.get_xdata()) == sorted(delta[prior <= 0.05])
    (bars,) = axes.collections
    lengths = [segment[1, 0] - segment[0, 0] for segment in bars.get_segments()]
    np.testing.assert_allclose(lengths, 1.5 * np.sort(delta)[::-1])
    assert Image.open(page.save(tmp_path / "a.png")).height > 300


def test_prior_that_is_constant_or_unknown_ranks_nothing(tmp_path):
    for count in (1, 21, 500):
        classes = [str(c) for c in range(count)]
        page = draw_prior(np.full(count, np.nan), np.full(count, 0.01), classes, np.linspace(0, 1, count))
        assert "ranks nothing: all equal or unknown" in texts(page)
        assert cut_or_overlapping(page) == []
        assert is_whole(draw_prior(np.zeros(count), np.zeros(count), classes).save(tmp_path / f"{count}.png"))
    with pytest.raises(InputError, match=r"found \(3,\) annotated frequencies, expected 2"):
        draw_prior(np.zeros(2), np.zeros(3), ["a", "b"])


# ---------------------------------------------------------------------------------------------------------- predictions


def test_labels_on_a_sheet_are_judged_one_by_one(photos):
    # Attribute "neck" has three values, "hat" is yes or no; then two classes of their own.
    classes = ["neck 0", "neck 1", "neck 2", "hat", "dog", "cat"]
    groups = {"neck": slice(0, 3), "hat": slice(3, 4)}
    probabilities = np.array(
        [[0.1, 0.4, 0.3, 0.9, 0.8, 0.2], [0.1, 0.4, 0.3, 0.2, 0.9, 0.6], [0.3, 0.2, 0.1, 0.7, 0.1, 0.1]]
    )
    targets = np.array([[0, 1, 0, 0, -1, 1], [1, 0, 0, 1, 1, 0], [-1, -1, -1, 1, 0, -1]])
    sheet = Sheet(photos[:3], probabilities, targets, classes, groups, threshold=0.5)
    judged = [[(kind, classes[c], score) for kind, c, score in judge(sheet, i)] for i in range(3)]
    assert judged[0] == [
        ("true", "neck 1", 0.4),
        ("false", "hat", 0.9),
        ("missed", "cat", 0.2),
        ("unknown", "dog", 0.8),
    ]
    assert judged[1] == [("true", "dog", 0.9), ("false", "cat", 0.6), ("false", "neck 1", 0.4),
                         ("missed", "hat", 0.2), ("missed", "neck 0", 0.1)]  # fmt: skip
    assert judged[2] == [("true", "hat", 0.7), ("unknown", "neck 0", 0.3)]
    page = draw_contact_sheet(sheet)
    shown = texts(page)
    assert {"true (3)", "false (3)", "missed (3)", "predicted, truth unknown (2)"} <= set(shown)
    assert {symbol: shown.count(symbol) for symbol in "✓✗○?"} == {"✓": 4, "✗": 4, "○": 4, "?": 3}  # and the legend's
    colours = {t.get_text(): t.get_color() for t in page.figure.texts if t.get_text() in "✓✗○?" and t.get_text()}
    assert len(set(colours.values())) == 4
    assert cut_or_overlapping(page) == []


def test_sheet_of_hundreds_of_labels_counts_what_it_does_not_name(photos, tmp_path):
    rng = np.random.default_rng(0)
    classes = [f"{'a very long name of a class, ' * 3}{c}" for c in range(400)]
    probabilities = rng.random((8, 400))
    targets = partly_known(8, 400, rng)
    sheet = Sheet(photos, probabilities, targets, classes, threshold=0.9)
    page = draw_contact_sheet(sheet, lines=8)
    entries = [judge(sheet, i) for i in range(8)]
    named = sum(text.startswith("a very") for text in texts(page))
    rest = [text for text in texts(page) if text.startswith("and ")]
    assert len(rest) == 8
    hidden = sum(int(word) for text in rest for word in text.split() if word.isdigit())
    assert named == 8 * 7
    assert named + hidden == sum(map(len, entries))
    assert all(any(symbol in text for text in texts(page)) for symbol in "✓✗○?")
    assert "cannot be read" in texts(page)
    assert cut_or_overlapping(page) == []
    assert is_whole(page.save(tmp_path / "sheet.png"))


def test_pixels_of_a_sheet_are_those_of_the_image(tmp_path):
    Image.new("RGB", (258, 258), (200, 30, 60)).save(tmp_path / "red.png")
    sheet = Sheet([str(tmp_path / "red.png")], np.zeros((1, 1)), np.zeros((1, 1), int), ["thing"])
    draw_contact_sheet(sheet).save(tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3)
    assert (pixels == (200, 30, 60)).all(1).sum() == 258 * 258


def test_chosen_images_are_the_same_every_time():
    first = choose_images(1000, 24, seed=3)
    assert first.tolist() == choose_images(1000, 24, seed=3).tolist()
    assert first.tolist() != choose_images(1000, 24, seed=4).tolist()
    assert first.tolist() == sorted(set(first.tolist()))
    assert len(first) == 24
    assert choose_images(3).tolist() == [0, 1, 2]
    assert choose_images(0).tolist() == []


def test_predictions_of_infer(photos, tmp_path):
    few = [Prediction("a $1 bill", 0.91234), Prediction("b_c", 0.5)]
    many = [Prediction(str(i), 0.9) for i in range(9)]
    for n in (1, 3, 8):
        page = draw_predictions(photos[:n], [few, many, [], few, few, few, few, few][:n])
        assert is_whole(page.save(tmp_path / f"{n}.png"))
    assert {"a $1 bill", "0.91", "b_c", "0.50", "and 3 more", "no predictions"} <= set(texts(page))


# --------------------------------------------------------------------------------------------------------------- curves


def test_precision_and_recall_are_those_of_sklearn_over_annotated_entries(tmp_path):
    rng = np.random.default_rng(0)
    targets = partly_known(300, 12, rng)
    scores = np.round(rng.random((300, 12)) * 0.7 + 0.3 * (targets == 1), 2)  # with ties
    targets[:, 3] = np.where(targets[:, 3] == 1, 0, targets[:, 3])  # no positive
    classes = [f"class {c}" for c in range(12)]
    chosen = [5, 3, 0, 7, 8, 9, 10, 11, 1]
    page = draw_precision_recall(scores, targets, classes, chosen)
    (axes,) = page.figure.axes
    shown = texts(page)
    for c in chosen:
        known = targets[:, c] != -1
        if c == 3:
            assert f"no curve: 0 of {known.sum()} positive" in shown
            continue
        precision, recall, _ = precision_recall_curve(targets[known, c], scores[known, c])
        x, y = line(axes, classes[c])
        np.testing.assert_array_equal(x, recall)
        np.testing.assert_array_equal(y, precision)
        ap = average_precision_score(targets[known, c], scores[known, c])
        assert f"AP {100 * ap:.1f}   {(targets[:, c] == 1).sum()} of {known.sum()} positive" in shown
    styles = {(found.get_color(), found.get_linestyle(), str(found._dash_pattern)) for found in axes.lines}
    assert len(styles) == len(axes.lines) == 8
    assert cut_or_overlapping(page) == []
    assert is_whole(page.save(tmp_path / "curves.png"))


def test_classes_of_the_curves_span_the_range():
    ap = np.array([0.9, 0.1, np.nan, 0.5, 0.7, 0.3, 1.0, 0.2])
    positives = np.array([50, 40, 0, 30, 20, 12, 1, 11])
    assert choose_classes(ap, positives) == [0, 4, 3, 7, 1]  # the perfect one has a single positive
    assert choose_classes(ap, positives, most=2) == [0, 1]
    assert choose_classes(ap, np.ones(8, int), most=3) == [6, 3, 1]
    assert choose_classes(np.full(3, np.nan), np.zeros(3, int)) == []
    assert choose_classes(np.array([0.5]), np.array([3])) == [0]


def test_classes_are_named_by_name_or_key():
    classes, keys = ["Cat", "Dog", "Cat"], ["/m/1", "/m/2", "/m/3"]
    assert named_classes(["Dog", "Cat"], classes, keys) == [1, 0, 2]
    assert named_classes(["/m/3"], classes, keys) == [2]
    with pytest.raises(InputError, match=r"^--plot_classes: no class 'Doog' among 3, expected names such as Dog$"):
        named_classes(["Doog"], classes, keys)


def test_curves_without_any_class(tmp_path):
    none = np.full((5, 2), -1)
    page = draw_precision_recall(np.zeros((5, 2)), none, ["a", "b"])
    assert "no class has both annotated positives and negatives" in texts(page)
    assert is_whole(page.save(tmp_path / "none.png"))


# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("count", [8, 200])
def test_strange_names_are_shown_as_they_are(photos, tmp_path, count):
    classes = (STRANGE * 25)[:count]
    rng = np.random.default_rng(0)
    labels = partly_known(40, count, rng, known=0.9)
    data = annotations(labels, classes)
    prior = rng.random(count)
    sheet = Sheet(photos[:2], rng.random((2, count)), labels[:2], classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a formula that does not parse, a glyph that is missing
        pages = {
            "labels": draw_labels(data, data.labels),
            "prior": draw_prior(prior, prior, classes),
            "sheet": draw_contact_sheet(sheet),
            "curves": draw_precision_recall(rng.random((40, count)), labels, classes, list(range(8))),
        }
        assert {name: cut_or_overlapping(page) for name, page in pages.items()} == {name: [] for name in pages}
        for name, page in pages.items():
            for text in page.figure.findobj(lambda artist: hasattr(artist, "get_parse_math")):
                assert not text.get_parse_math()
            assert is_whole(page.save(tmp_path / f"{name}.png"))
    shown = texts(pages["curves"])
    assert {
        "cost in $ or $",
        "under_score_2^2",
        "\\alpha",
        "日本の猫",
        "Größe",
        "a b",
        "(no name)",
    } <= set(shown)
    (cut,) = [text for text in shown if text.startswith("WW")]
    assert "…" in cut


def test_a_name_is_cut_in_its_middle_to_the_inches_there_are():
    with styled():
        page = Page(5, 5)
        for text in ("x" * 100, "i" * 3000, "Vehicle registration plate of a lorry, front", "猫" * 60):
            for width in (0.5, 1.0, 2.0):
                cut = page.fit(text, width)
                assert page.measure(cut) <= width
                assert page.measure(cut) > width - 0.3
                head, _, tail = cut.partition("…")
                assert text.startswith(head)
                assert text.endswith(tail)
        assert page.fit("short", 1.0) == "short"


def test_numbers_and_shares():
    assert [number(v) for v in (0, 0.01, 1, 1000, 1e7, 1e-6)] == ["0", "0.01", "1", "1,000", "10 M", "0.000001"]
    found = [share(v) for v in (0, 1, 0.74, 0.00012, 0.99988, 0.94, 0.005, float("nan"))]
    assert found == ["0 %", "100 %", "74 %", "0.012 %", "99.988 %", "94 %", "0.50 %", "–"]


def test_settings_of_the_caller_stay_as_they_were(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw_labels(annotations(np.ones((2, 2)), ["a", "b"])).save(tmp_path / "labels.png")
    assert dict(mpl.rcParams) == before


def test_a_picture_that_fails_leaves_the_old_one(tmp_path, photos, monkeypatch):
    path = tmp_path / "sheet.png"
    page = draw_predictions(photos[:1], [[]])
    page.save(path)
    before = path.read_bytes()

    def break_off(file, **_):
        file.write_bytes(before[:100])
        raise OSError("no more")

    monkeypatch.setattr(page.figure, "savefig", break_off)
    with pytest.raises(OSError, match="no more"):
        page.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


# ----------------------------------------------------------------------------------------------------------------- runs


def test_a_run_is_drawn_from_its_own_files(tmp_path, photos):
    rng = np.random.default_rng(0)
    full = (rng.random((30, 5)) < 0.4).astype(int)
    after = simulate(LabelMatrix.from_dense(full), "rps", 0.5, rng)
    classes = [f"class {c}" for c in range(5)]
    train = Annotations([""] * 30, after, classes)
    val = Annotations(photos[:4], LabelMatrix.from_dense(full[:4]), classes)
    run = RunFolder(tmp_path)
    write_prior(run.train_prior, classes, rng.random(5))
    for epoch in (1, 1.5, 2):
        numbers = {"mAP_model": 10.0 * epoch, "mAP_ema": None, "mAP_negative_ema": None}
        run.append_log({"epoch": epoch, "step": 1, "loss": 1 / epoch, **numbers})
    scores = Scores(rng.random((1, 3, 5)), np.array([0, 1, 3]), [])  # one could not be read
    made = plot_training(run, train, LabelMatrix.from_dense(full), LabelMatrix.from_dense(full), val, scores)
    pictures = ["training.png", "labels.png", "prior.png", "predictions.png", "precision_recall.png"]
    assert [p.name for p in made] == pictures
    assert all(p.parent == run.plots and is_whole(p) for p in made)


def test_validation_is_drawn(tmp_path, photos):
    rng = np.random.default_rng(0)
    labels = partly_known(7, 6, rng)
    data = Annotations(photos[:7], LabelMatrix.from_dense(labels), [f"class {c}" for c in range(6)])
    rows = np.array([0, 2, 5, 6])
    made = plot_validation(tmp_path, "test", data, rows, rng.random((4, 6)), 0.5, data.labels, [1, 2])
    assert [p.name for p in made] == [
        "test_labels.png", "test_prior.png", "test_predictions.png", "test_precision_recall.png",
    ]  # fmt: skip
    assert all(is_whole(p) for p in made)


def test_tensorboard_holds_scalars_pictures_and_the_prior(tmp_path, photos):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from csl.training.board import Board, scores_to_show

    rng = np.random.default_rng(0)
    labels = partly_known(8, 21, rng)
    data = Annotations(photos, LabelMatrix.from_dense(labels), [f"Neck {c}" for c in range(21)])
    board = Board(tmp_path, data, data)
    priors = [rng.random(21), np.full(21, np.nan)]
    for epoch, prior in enumerate(priors, start=1):
        shown = scores_to_show(rng.random((7, 21)), np.arange(7))
        board.write(epoch, {"loss": 0.5 / epoch, "mAP_model": float("nan"), "step": 3, "mAP_ema": None}, prior, shown)
    board.write(3, {"loss": 0.1}, priors[0], None)
    board.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "histograms": 0})
    events.Reload()
    tags = events.Tags()
    assert tags["scalars"] == ["loss"]
    assert [(e.step, round(e.value, 4)) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25), (3, 0.1)]
    assert sorted(tags["images"]) == ["predictions", "prior/classes"]
    assert [e.step for e in events.Images("predictions")] == [1, 2]
    for event in events.Images("predictions") + events.Images("prior/classes"):
        picture = Image.open(BytesIO(event.encoded_image_string))
        assert picture.size == (event.width, event.height)
        assert np.asarray(picture).std() > 1
    (first, third) = events.Histograms("prior")
    assert (first.step, third.step) == (1, 3)
    assert first.histogram_value.num == 21
    assert first.histogram_value.sum == pytest.approx(priors[0].sum())


def test_train_and_validate_leave_their_pictures(garments, tmp_path, capsys):
    from csl.cli import validate
    from csl.runs.config import TrainConfig
    from csl.training.experiment import train

    config = TrainConfig(
        data=str(garments), path_dest=str(tmp_path / "run"), model_name="test_resnet", image_size=32, batch_size=8,
        epochs=1, workers=0, augment="none", device="cpu", partial_loss_mode="selective", prior_path="auto",
    )  # fmt: skip
    said = []
    train(config, said.append)
    plots = tmp_path / "run" / "plots"
    names = ["labels.png", "precision_recall.png", "predictions.png", "prior.png", "training.png"]
    assert sorted(p.name for p in plots.iterdir()) == names
    assert any("training.png, labels.png, prior.png, predictions.png, precision_recall.png" in line for line in said)
    assert is_whole(tmp_path / "run" / "prior" / "plots" / "prior.png")

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"loss", "mAP_model", "mAP_ema"} <= set(events.Tags()["scalars"])
    assert sorted(events.Tags()["images"]) == ["predictions", "prior/classes"]
    assert events.Tags()["histograms"] == ["prior"]

    flags = {"model_path": str(tmp_path / "run"), "workers": 0, "thre": 0.3}
    validate.main({**flags, "plot_classes": ["Neck 0", "Pattern 9"]})
    made = ["val_labels.png", "val_precision_recall.png", "val_predictions.png", "val_prior.png"]
    assert sorted(p.name for p in plots.iterdir()) == sorted(names + made)
    assert all(is_whole(plots / name) for name in names + made)
    assert "pictures in" in capsys.readouterr().out
    with pytest.raises(InputError, match="--plot_classes: no class 'Neck 9' among 21"):
        validate.main({**flags, "plot_classes": ["Neck 9"]})
