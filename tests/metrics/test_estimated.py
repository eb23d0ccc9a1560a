"""csl.metrics.estimated_average_precision against a loop, against scikit-learn where all is known, and against the truth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from csl import InputError
from csl.labels import LabelMatrix
from csl.machine.draws import generator
from csl.metrics import estimated_average_precision, estimated_mean_average_precision


def loop(scores, targets, prior, weights=None):
    """The formula, entry by entry, of images that count `weights` times."""
    estimates, weights = [], np.ones(len(scores), int) if weights is None else weights
    images = [i for i in range(len(scores)) for _ in range(weights[i])]
    for c in range(scores.shape[1]):
        known = [i for i in images if targets[i, c] == 1]
        everywhere, precisions = max(prior[c] * len(images), len(known)), []
        for i in known:
            place = sum(scores[j, c] >= scores[i, c] for j in known) - (1 - len(known) / everywhere) / 2
            above = sum(scores[j, c] >= scores[i, c] for j in images)
            precisions.append(min(1.25, everywhere * place / len(known) / above))
        estimates.append(min(1.0, sum(precisions) / len(precisions)) if precisions else float("nan"))
    return np.array(estimates)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_it_is_the_formula(images, classes, values, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, (images, classes)).astype(np.float32)  # with ties
    targets, prior = rng.integers(-1, 2, (images, classes)).astype(np.int8), rng.random(classes)
    expected = loop(scores, targets, prior)
    np.testing.assert_allclose(estimated_average_precision(scores, targets, prior), expected, rtol=1e-12)
    for labels in (torch.from_numpy(targets), LabelMatrix.from_dense(targets)):
        ours = estimated_average_precision(torch.from_numpy(scores), labels, torch.from_numpy(prior))
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_with_all_labels_known_and_their_frequency_as_the_prior_it_is_average_precision():
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(200, 70)), (rng.random((200, 70)) < 0.3).astype(np.int8)
    expected = [average_precision_score(targets[:, c], scores[:, c]) for c in range(70)]
    np.testing.assert_allclose(estimated_average_precision(scores, targets, targets.mean(0)), expected, rtol=1e-12)


def plain(scores, known, prior):
    """The same without the correction: the k-th of m known positives lies at k."""
    found = (known[:, None] & (scores[:, None] >= scores)).sum(0)[known] / known.sum()
    return np.minimum(1, prior * found / (scores[:, None] >= scores).mean(0)[known]).mean()


@pytest.mark.parametrize(("positives", "most"), [(2, 4.0), (5, 3.0), (20, 2.5)])
def test_from_few_known_positives_it_is_nearer_to_the_truth_than_without_the_correction(positives, most):
    """150 classes of 800 images, of 3 to 30 %: percent that the mean of each is off."""
    rng = np.random.default_rng(positives)
    frequency, separation = np.exp(rng.uniform(np.log(0.03), np.log(0.3), 150)), rng.normal(1.5, 0.5, 150)
    truth = np.arange(800)[:, None] < np.round(800 * frequency)
    scores = rng.normal(size=truth.shape) + separation * truth
    order = np.where(truth, rng.random(truth.shape), 2).argsort(0).argsort(0)
    known = order < positives
    expected = 100 * np.mean([average_precision_score(truth[:, c], scores[:, c]) for c in range(150)])
    ours = estimated_mean_average_precision(scores, np.where(known, 1, -1), truth.mean(0), draws=0)["mAP_estimated"]
    without = 100 * np.mean([plain(scores[:, c], known[:, c], truth[:, c].mean()) for c in range(150)])
    assert abs(ours - expected) < most
    assert abs(ours - expected) < abs(without - expected)


POPULATION = 69.28  # average precision of 400,000 of these scores


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(2), 0
    for _ in range(40):
        truth = rng.random((400, 8)) < 0.25
        scores = rng.normal(size=truth.shape) + 1.5 * truth
        known = np.where(truth & (rng.random(truth.shape) < 0.5), 1, -1)
        found = estimated_mean_average_precision(scores, known, np.full(8, 0.25), draws=40)
        held += found["mAP_estimated_low"] <= POPULATION <= found["mAP_estimated_high"]
    assert 30 <= held <= 40


def test_each_draw_is_the_formula_on_the_images_drawn():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 5, (30, 3)).astype(np.float32)
    targets, prior = rng.integers(-1, 2, scores.shape).astype(np.int8), np.array([0.1, 0.5, 0.9])
    random = generator("bootstrap", 0)
    drawn = [np.bincount(random.integers(0, 30, 30), minlength=30) for _ in range(20)]
    found = estimated_mean_average_precision(scores, targets, prior, draws=20)
    spread = 164.5 * np.std([np.nanmean(loop(scores, targets, prior, weights)) for weights in drawn])
    middle = 100 * loop(scores, targets, prior).mean()
    assert found["mAP_estimated"] == pytest.approx(middle, rel=1e-12)
    assert found["mAP_estimated_low"] == pytest.approx(middle - spread, rel=1e-9)
    assert found["mAP_estimated_high"] == pytest.approx(middle + spread, rel=1e-9)
    for name, factor in (("half", 0.5), ("twice", 2)):
        expected = 100 * loop(scores, targets, np.minimum(factor * prior, 1)).mean()
        assert found[f"mAP_estimated_{name}_prior"] == pytest.approx(expected, rel=1e-12)


def test_without_a_known_positive_there_is_no_number():
    found = estimated_mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2), np.int8), np.full(2, 0.5), draws=3)
    assert len(found) == 5
    assert np.isnan(list(found.values())).all()


def test_what_it_refuses():
    scores, targets, prior = np.zeros((3, 2)), np.ones((3, 2), np.int8), np.full(2, 0.5)
    for bad in ((scores[:2], targets, prior), (scores, targets, prior[:1]), (scores, targets, prior * np.nan),
                (scores, targets, prior + 1), (scores, targets + 1, prior), (scores * np.nan, targets, prior)):  # fmt: skip
        with pytest.raises(InputError):
            estimated_average_precision(*bad)
    assert np.isnan(estimated_average_precision(scores, -targets, prior)).all()
