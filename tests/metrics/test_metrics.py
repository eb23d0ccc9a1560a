"""csl.metrics against scikit-learn, the original's recorded numbers and plain loops."""

import warnings

import numpy as np
import pytest
import torch
from conftest import golden
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from csl.errors import InputError
from csl.labels import LabelMatrix
from csl.metrics import (
    arrays,
    average_precision,
    averaged_scores,
    class_table,
    group_accuracy,
    mean_average_precision,
    precision_recall_f1,
)

GOLDEN_CASES, GOLDEN_ARRAYS = golden("mean_average_precision")


class Rows:
    """Labels that only answer `m[indices]`, as a sparse matrix would."""

    def __init__(self, dense):
        self.dense = dense

    def __getitem__(self, indices):
        return self.dense[indices]


def draw(seed, num_samples, num_classes, levels=None, unannotated=0.4, positives=0.3, dtype=np.float32):
    """Random scores (of a few levels: many ties) and tri-state targets; the first four classes are degenerate."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((num_samples, num_classes))
    if levels:
        scores = np.round(scores * levels) / levels
    targets = (rng.random((num_samples, num_classes)) < positives).astype(np.int8)
    targets[rng.random(targets.shape) < unannotated] = -1
    for c, values in enumerate(((-1, -1), (0, -1), (1, -1), (0, 1))[:num_classes]):
        targets[:, c] = rng.choice(values, num_samples)
    return scores.astype(dtype), targets


def naive_average_precision(scores, targets):
    """The definition, one threshold after another, in Python floats."""
    result = []
    for column, labels in zip(scores.T, targets.T, strict=True):
        total, defined = 0.0, (labels == 1).any() and (labels == 0).any()
        for threshold in set(column[labels == 1].tolist()):
            above = (column >= threshold) & (labels >= 0)
            precision = np.sum(labels[above] == 1) / np.sum(above)
            total += np.sum((column == threshold) & (labels == 1)) / np.sum(labels == 1) * precision
        result.append(total if defined else np.nan)
    return np.array(result)


def sklearn_average_precision(scores, targets):
    result = []
    for column, labels in zip(scores.T, targets.T, strict=True):
        known = labels >= 0
        defined = (labels == 1).any() and (labels == 0).any()
        result.append(sk.average_precision_score(labels[known], column[known]) if defined else np.nan)
    return np.array(result)


# Average precision


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_samples=st.integers(1, 60),
    num_classes=st.integers(1, 9),
    levels=st.sampled_from([None, 1, 3]),
    unannotated=st.sampled_from([0.0, 0.5, 0.999]),
    positives=st.sampled_from([0.02, 0.3, 0.9]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
@example(0, 1, 1, None, 0.0, 0.3, np.float32)
def test_average_precision_is_sklearns(seed, num_samples, num_classes, levels, unannotated, positives, dtype):
    scores, targets = draw(seed, num_samples, num_classes, levels, unannotated, positives, dtype)
    ap = average_precision(scores, targets)
    assert ap.dtype == np.float64
    assert ap.shape == (num_classes,)
    np.testing.assert_allclose(ap, sklearn_average_precision(scores, targets), rtol=1e-12)
    np.testing.assert_allclose(ap, naive_average_precision(scores, targets), rtol=1e-12)


@pytest.mark.parametrize("case", GOLDEN_CASES, ids=lambda case: case["case"])
def test_golden(case):
    scores, targets, partial, ap_partial = (
        GOLDEN_ARRAYS[f"{case['case']}_{name}"] for name in ("scores", "targets", "partial", "ap_partial")
    )
    tolerance = {"rtol": 0, "atol": 1e-6}
    np.testing.assert_allclose(mean_average_precision(scores, targets, "negative"), case["mAP"], **tolerance)
    np.testing.assert_allclose(mean_average_precision(scores, partial, "negative"), case["mAP_negative"], **tolerance)
    np.testing.assert_allclose(mean_average_precision(scores, partial), case["mAP_partial"], **tolerance)
    ap = average_precision(scores, partial)
    np.testing.assert_allclose(np.nan_to_num(ap, nan=-1), ap_partial, **tolerance)


def test_crowded_spread_and_infinite_scores():
    rng = np.random.default_rng(0)
    crowded = 0.5 + rng.integers(0, 300, 20_000).astype(np.float32) * np.float32(2**-24)
    crowded[:2] = -np.inf, 3e38
    for scores in (crowded, rng.random(20_000, np.float32), -np.exp(rng.normal(0, 10, 20_000)).astype(np.float32)):
        targets = (rng.random(20_000) < 0.05).astype(np.int8)
        targets[0] = 1
        expected = sk.average_precision_score(targets, np.nan_to_num(scores, neginf=-3.4e38))
        np.testing.assert_allclose(average_precision(scores[:, None], targets[:, None]), expected, rtol=1e-12)


def test_ties_enter_together():
    scores = np.array([[0.9], [0.5], [0.5], [0.5], [0.1]])
    targets = np.array([[0], [1], [0], [1], [1]])
    assert average_precision(scores, targets)[0] == pytest.approx(2 / 3 * 2 / 4 + 1 / 3 * 3 / 5)
    assert average_precision(-np.zeros((2, 1)) * [[1], [-1]], [[0], [1]])[0] == 0.5  # -0.0 ties with 0.0


def test_undefined_classes():
    targets = np.array([[1, 0, -1, 1], [1, 0, -1, -1], [1, 0, -1, 0]], np.int8)
    scores = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(average_precision(scores, targets), [np.nan, np.nan, np.nan, 0.5])
    assert mean_average_precision(scores, targets) == 50
    # every class counts: all positive 1, no positive 0, nothing known 0, and 1/3 with the unknown as a negative
    assert mean_average_precision(scores, targets, "negative") == pytest.approx(100 * (1 + 0 + 0 + 1 / 3) / 4)
    assert np.isnan(mean_average_precision(scores[:, :3], targets[:, :3]))


def test_unannotated_entries_do_not_matter():
    scores, targets = draw(1, 80, 12)
    other = np.where(targets == -1, np.random.default_rng(2).permutation(scores), scores)
    other[(targets == -1) & (np.arange(80) % 7 == 0)[:, None]] = np.nan
    np.testing.assert_array_equal(average_precision(scores, targets), average_precision(other, targets))
    for measure in (precision_recall_f1, averaged_scores):
        assert measure(scores, targets, 0.1) == measure(other, targets, 0.1)


@pytest.mark.parametrize("unannotated", [0.0, 0.7, 0.995], ids=["full", "partial", "sparse"])
def test_permutations_change_nothing(unannotated):
    scores, targets = draw(3, 1500, 71, levels=20, unannotated=unannotated)
    if unannotated > 0.9:
        targets[:, :4] = -1  # the degenerate classes are dense
    ap = average_precision(scores, targets)
    np.testing.assert_allclose(ap, sklearn_average_precision(scores, targets), rtol=1e-12)
    order = np.random.default_rng(4).permutation(len(scores))
    np.testing.assert_array_equal(average_precision(scores[order], targets[order]), ap)
    classes = np.random.default_rng(5).permutation(71)
    np.testing.assert_array_equal(average_precision(scores[:, classes], targets[:, classes]), ap[classes])


def test_monotone_maps_change_nothing():
    logits, targets = draw(6, 300, 8, dtype=np.float64)
    ap = average_precision(logits, targets)
    np.testing.assert_array_equal(average_precision(1 / (1 + np.exp(-logits)), targets), ap)
    np.testing.assert_array_equal(average_precision(np.argsort(np.argsort(logits, 0), 0), targets), ap)


def test_float64_scores_that_float32_cannot_tell_apart():
    scores = 1 + np.arange(6.0)[:, None] * 1e-12
    targets = np.array([[0], [1], [0], [0], [1], [1]])
    assert average_precision(scores, targets)[0] == pytest.approx((1 + 1 + 3 / 5) / 3)
    assert average_precision(scores.astype(np.float32), targets)[0] == pytest.approx(0.5)


def test_kinds_of_input_agree(tmp_path):
    scores, targets = draw(7, 200, 11, levels=9)
    expected = average_precision(scores, targets)
    np.save(tmp_path / "scores.npy", scores)
    np.save(tmp_path / "targets.npy", targets)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("scores", "targets")]
    tensor, labels = torch.from_numpy(scores), torch.from_numpy(targets)
    for pair in (
        mapped,
        (tensor, labels),
        (tensor.clone().requires_grad_(), targets),
        (scores, labels),
        (scores, labels.float()),
        (scores, targets.astype(np.float64)),
        (scores, targets.tolist()),
        (scores, Rows(targets)),
        (tensor, LabelMatrix.from_dense(targets)),
        (np.asfortranarray(scores), np.asfortranarray(targets)),
        (scores.repeat(2, axis=1)[:, ::2], targets[::-1][::-1]),
    ):
        np.testing.assert_array_equal(average_precision(*pair), expected)
        assert precision_recall_f1(*pair, 0.1) == precision_recall_f1(scores, targets, 0.1)
        assert averaged_scores(*pair, 0.1) == averaged_scores(scores, targets, 0.1)
    half = tensor.bfloat16()
    np.testing.assert_array_equal(average_precision(half, labels), average_precision(half.float(), labels))
    np.testing.assert_array_equal(
        average_precision(scores.astype(np.float16), targets),
        average_precision(scores.astype(np.float16).astype(np.float64), targets),
    )


def test_rows_are_gathered_in_chunks(monkeypatch):
    scores, targets = draw(8, 70, 5)
    asked = []

    class Counting(Rows):
        def __getitem__(self, indices):
            asked.append(len(indices))
            return super().__getitem__(indices)

    expected = average_precision(scores, targets), averaged_scores(scores, targets)
    monkeypatch.setattr(arrays, "CHUNK_ENTRIES", 160)
    np.testing.assert_array_equal(average_precision(scores, Counting(targets)), expected[0])
    assert asked == [32, 32, 6]
    assert averaged_scores(scores, Counting(targets)) == expected[1]


def test_inputs_are_left_alone():
    scores, targets = draw(9, 50, 6, dtype=np.float64)
    before = scores.copy(), targets.copy()
    average_precision(scores, np.abs(targets))
    average_precision(scores.T.copy().T, np.abs(targets))
    precision_recall_f1(scores, targets, 0.0)
    np.testing.assert_array_equal(scores, before[0])
    np.testing.assert_array_equal(targets, before[1])


def test_infinite_scores_have_an_order():
    scores = np.array([[np.inf], [0.0], [-np.inf], [1.0]])
    assert average_precision(scores, [[1], [0], [1], [0]])[0] == pytest.approx((1 + 2 / 4) / 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_empty(dtype):
    no_image, no_class = np.zeros((0, 3), dtype), np.zeros((3, 0), dtype)
    assert np.isnan(average_precision(no_image, no_image.astype(np.int8))).all()
    assert average_precision(no_class, no_class.astype(np.int8)).shape == (0,)
    assert np.isnan(mean_average_precision(no_image, no_image.astype(np.int8)))
    assert mean_average_precision(no_image, no_image.astype(np.int8), "negative") == 0
    assert np.isnan(class_table(no_image, no_image.astype(np.int8), "abc").AP).all()
    assert all(np.isnan(v) for v in precision_recall_f1(np.zeros((2, 3)), -np.ones((2, 3)), 0.5).values())


# At a threshold


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 40), st.integers(2, 8)),
    positives=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    threshold=st.sampled_from([-1.0, 0.0, 0.5, 9.0]),
)
def test_threshold_scores_are_sklearns(seed, shape, positives, threshold):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.standard_normal(shape), 1)
    targets = (rng.random(shape) < positives).astype(np.int8)
    ours = averaged_scores(scores, targets, threshold)
    per_class = precision_recall_f1(scores, targets, threshold)
    for average in ("micro", "macro", "samples"):
        expected = sk.precision_recall_fscore_support(targets, scores > threshold, average=average, zero_division=0)[:3]
        np.testing.assert_allclose(list(ours[average].values()), expected, rtol=1e-12, atol=1e-15)
        if average != "samples":
            keys = [f"{name}_{'C' if average == 'macro' else 'O'}" for name in "PRF"]
            np.testing.assert_allclose([per_class[key] / 100 for key in keys], expected, rtol=1e-12, atol=1e-15)


def test_threshold_scores_on_annotated_entries():
    scores, targets = draw(10, 120, 7, levels=10)
    known = targets >= 0
    predicted = scores > 0.2
    expected = {
        average: [
            sk.precision_recall_fscore_support(t[k], p[k], average="binary", zero_division=0)[:3]
            for t, p, k in zip(*arrays, strict=True)
            if k.any()
        ]
        for average, arrays in {
            "macro": (targets.T, predicted.T, known.T),
            "samples": (targets, predicted, known),
            "micro": ([targets[known]], [predicted[known]], [known[known]]),
        }.items()
    }
    assert len(expected["macro"]) == 6  # the class without any label is left out
    ours = averaged_scores(scores, targets, 0.2)
    for average, values in expected.items():
        np.testing.assert_allclose(list(ours[average].values()), np.mean(values, axis=0), rtol=1e-12)
    per_class = precision_recall_f1(scores, targets, 0.2)
    np.testing.assert_allclose([per_class[f"{n}_C"] for n in "PRF"], 100 * np.mean(expected["macro"], axis=0))
    np.testing.assert_allclose([per_class[f"{n}_O"] for n in "PRF"], 100 * np.mean(expected["micro"], axis=0))
    assert list(per_class) == ["P_C", "R_C", "F_C", "P_O", "R_O", "F_O"]


def test_score_at_the_threshold_is_no_prediction():
    assert averaged_scores(np.array([[0.5, 0.6]]), [[1, 1]])["micro"]["recall"] == 0.5


# Tables


def test_class_table():
    scores, targets = draw(11, 90, 5)
    table = class_table(scores, targets, ["a", "b", "c", "d", "e"])
    assert list(table.columns) == ["class", "AP", "positives", "negatives", "unannotated"]
    assert list(table["class"]) == ["a", "b", "c", "d", "e"]
    np.testing.assert_allclose(table["AP"], 100 * average_precision(scores, targets))
    for column, value in {"positives": 1, "negatives": 0, "unannotated": -1}.items():
        np.testing.assert_array_equal(table[column], (targets == value).sum(axis=0))
    with pytest.raises(InputError, match="found 1 names, expected 5"):
        class_table(scores, targets, ["a"])


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, Rows, LabelMatrix.from_dense])
def test_group_accuracy(convert):
    rng = np.random.default_rng(12)
    groups = {"neck": slice(0, 4), "floral": slice(4, 5), "pattern": slice(5, 8)}
    scores = rng.random((150, 8)).astype(np.float32)
    targets = np.zeros((150, 8), np.int8)
    values = {"neck": rng.choice(3, 150), "floral": rng.choice(2, 150, p=[0.8, 0.2]), "pattern": rng.choice(3, 150)}
    rows = np.arange(150)
    targets[rows, values["neck"]] = 1  # value 3 never occurs
    targets[:, 4] = values["floral"]
    targets[rows, 5 + values["pattern"]] = 1
    unknown = rng.random(150) < 0.3
    targets[unknown, :5] = -1
    targets[:, 5:] = -1  # an attribute nobody annotated
    of_scores = convert if convert is torch.from_numpy else np.asarray
    table = group_accuracy(of_scores(scores), convert(targets), groups, threshold=0.6)
    assert list(table.columns) == ["attribute", "known", "accuracy", "balanced_accuracy", "majority"]
    assert list(table["attribute"]) == list(groups)
    assert list(table["known"]) == [(~unknown).sum(), (~unknown).sum(), 0]
    guesses = {"neck": scores[:, :4].argmax(axis=1), "floral": scores[:, 4] > 0.6}
    for row, name in enumerate(guesses):
        truth, guess = values[name][~unknown], guesses[name][~unknown]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a predicted value that does not occur
            balanced = sk.balanced_accuracy_score(truth, guess)
        expected = [sk.accuracy_score(truth, guess), balanced, np.bincount(truth).max() / len(truth)]
        np.testing.assert_allclose(table.iloc[row, 2:].to_numpy(float), 100 * np.array(expected))
    assert table.iloc[2, 2:].isna().all()


def test_group_with_partial_labels():
    # a value is known by its positive, even where the rest of the group is not annotated
    table = group_accuracy(np.array([[0.1, 0.9], [0.9, 0.1]]), np.array([[-1, 1], [0, -1]]), {"a": slice(0, 2)})
    assert table.loc[0, ["known", "accuracy"]].tolist() == [1, 100]
    with pytest.raises(InputError, match="row 1 has several positives in attribute 'a'"):
        group_accuracy(np.zeros((2, 2)), np.array([[0, 1], [1, 1]]), {"a": slice(0, 2)})
    with pytest.raises(InputError, match="attribute 'a' has no classes"):
        group_accuracy(np.zeros((2, 2)), np.zeros((2, 2)), {"a": slice(2, 2)})
    with pytest.raises(InputError, match="NaN in attribute 'a'"):
        group_accuracy(np.full((2, 2), np.nan), np.eye(2), {"a": slice(0, 2)})


# Errors


@pytest.mark.parametrize("measure", [average_precision, lambda s, t: averaged_scores(s, t)], ids=["ranked", "counted"])
@pytest.mark.parametrize("convert", [np.asarray, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("unannotated", [0.0, 0.5, 0.999])
def test_bad_values(measure, convert, unannotated):
    scores, targets = draw(13, 100, 30, unannotated=unannotated)
    bad_scores = scores.copy()
    row = int(np.argmax(targets[:, 3] >= 0))
    bad_scores[row, 3] = np.nan
    with pytest.raises(InputError, match="found NaN in column 3"):
        measure(convert(bad_scores), convert(targets))
    bad_targets = targets.copy()
    bad_targets[2, 17] = 2
    with pytest.raises(InputError, match="found 2 in row 2, column 17, expected 1, 0 or -1"):
        measure(convert(scores), convert(bad_targets))
    for value in (0.5, np.nan, 255.0):
        soft = targets.astype(np.float32)
        soft[2, 17] = value
        with pytest.raises(InputError, match=f"targets: found {value}, expected 1, 0 or -1"):
            measure(convert(scores), convert(soft))


def test_bad_arguments():
    scores, targets = draw(14, 10, 4)
    for bad in (targets[:, :3], targets[:9], Rows(targets[:, :3])):
        with pytest.raises(InputError, match="expected"):
            average_precision(scores, bad)
    with pytest.raises(InputError, match=r"scores: found shape \(10,\)"):
        average_precision(scores[:, 0], targets[:, 0])
    with pytest.raises(InputError, match="dtype complex128"):
        average_precision(scores.astype(complex), targets)
    with pytest.raises(InputError, match='found \'ignore\', expected "drop" or "negative"'):
        mean_average_precision(scores, targets, "ignore")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_cuda_is_numpy(dtype):
    scores, targets = draw(16, 5000, 40, levels=50)
    scores = torch.from_numpy(scores).to(dtype)
    for labels in (torch.from_numpy(targets).cuda(), targets, Rows(targets)):
        np.testing.assert_array_equal(average_precision(scores.cuda(), labels), average_precision(scores, targets))
        assert averaged_scores(scores.cuda(), labels, 0.5) == averaged_scores(scores, targets, 0.5)
