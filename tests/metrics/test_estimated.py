"""csl.metrics.estimated_average_precision against a loop, against scikit-learn where all is known, and against the truth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from csl import InputError
from csl.labels import LabelMatrix
from csl.metrics import estimated_average_precision


def loop(scores, targets, prior):
    """The formula, entry by entry."""
    estimates = []
    for c in range(scores.shape[1]):
        known = [i for i in range(len(scores)) if targets[i, c] == 1]
        precisions = []
        for i in known:
            share = sum(scores[j, c] >= scores[i, c] for j in known) / len(known)
            marginal = sum(scores[j, c] >= scores[i, c] for j in range(len(scores))) / len(scores)
            precisions.append(min(1.0, prior[c] * share / marginal))
        estimates.append(sum(precisions) / len(precisions) if precisions else float("nan"))
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


def test_it_is_near_the_truth_where_only_some_positives_are_known():
    rng = np.random.default_rng(1)
    truth = (rng.random((20_000, 4)) < (0.02, 0.1, 0.3, 0.5)).astype(np.int8)
    scores = rng.normal(size=truth.shape) + 2 * truth
    known = np.where((truth == 1) & (rng.random(truth.shape) < 0.4), 1, -1)
    expected = [average_precision_score(truth[:, c], scores[:, c]) for c in range(4)]
    np.testing.assert_allclose(estimated_average_precision(scores, known, truth.mean(0)), expected, atol=0.06)


def test_what_it_refuses():
    scores, targets, prior = np.zeros((3, 2)), np.ones((3, 2), np.int8), np.full(2, 0.5)
    for bad in ((scores[:2], targets, prior), (scores, targets, prior[:1]), (scores, targets, prior * np.nan),
                (scores, targets, prior + 1), (scores, targets + 1, prior), (scores * np.nan, targets, prior)):  # fmt: skip
        with pytest.raises(InputError):
            estimated_average_precision(*bad)
    assert np.isnan(estimated_average_precision(scores, -targets, prior)).all()
