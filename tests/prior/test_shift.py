"""csl.prior.estimate_prior: the frequency of classes whose annotation depends on the label, against the truth."""

import numpy as np
import pytest
import torch

from csl import InputError
from csl.prior import estimate_prior, estimate_prior_interval

TRUE = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.6])


def images(number, seed, separation=2.0):
    """Truth [N, C], and the log-likelihood ratio [N, C] of one normal feature a class."""
    rng = np.random.default_rng(seed)
    truth = rng.random((number, len(TRUE))) < TRUE
    x = rng.normal(size=truth.shape) + separation * truth
    return truth.astype(np.int8), separation * x - separation**2 / 2


def keep(truth, of_positives, of_negatives, seed):
    """Labels of which those shares are known."""
    shares = np.where(truth == 1, of_positives, of_negatives)
    return np.where(np.random.default_rng(seed).random(truth.shape) < shares, truth, -1).astype(np.int8)


def log_ratio(estimate):
    return np.abs(np.log(np.asarray(estimate) / TRUE)).mean()


def of_network(evidence, labels, confidence):
    """Logits of a network that knows the evidence, takes the frequency among known entries for granted, and is too sure."""
    odds = np.log(((labels == 1).sum(0) + 0.5) / ((labels == 0).sum(0) + 0.5))
    return (confidence * (evidence + odds)).astype(np.float32)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 3.0])
def test_as_many_negatives_as_positives_known_of_every_class(confidence):
    truth, evidence = images(8000, 0)
    labels = keep(truth, 0.15, 0.15 * TRUE / (1 - TRUE), 1)
    counts = (labels == 1).sum(0) / (labels != -1).sum(0)
    logits = of_network(evidence, labels, confidence)
    published = (1 / (1 + np.exp(-logits))).mean(0)
    assert log_ratio(counts) > 1
    assert log_ratio(published) > 0.5
    assert log_ratio(estimate_prior(logits, labels)) < 0.15


def test_labels_known_at_random_are_counted():
    truth, evidence = images(8000, 2)
    labels = keep(truth, 0.1, 0.1, 3)
    estimate = estimate_prior(torch.from_numpy(of_network(evidence, labels, 2.0)), torch.from_numpy(labels))
    np.testing.assert_allclose(estimate, (labels == 1).sum(0) / (labels != -1).sum(0), rtol=1e-5)
    assert log_ratio(estimate) < 0.15


@pytest.mark.parametrize("of_negatives", [0.15, 0.15 * TRUE / (1 - TRUE)], ids=["at random", "by label"])
def test_nine_of_ten_intervals_hold_the_truth(of_negatives):
    held = []
    for seed in range(12):
        truth, evidence = images(3000, seed)
        labels = keep(truth, 0.15, of_negatives, 100 + seed)
        prior, low, high = estimate_prior_interval(of_network(evidence, labels, 1.0), labels)
        assert (low <= prior).all()
        assert (prior <= high).all()
        held.append((low.numpy() <= TRUE) & (high.numpy() >= TRUE))
    assert 0.8 <= np.mean(held) <= 0.99  # 72 intervals; 0.9 but for 0.035 of chance


def test_all_labels_known_is_their_frequency():
    truth, evidence = images(500, 4)
    np.testing.assert_allclose(estimate_prior(evidence, truth), truth.mean(0), rtol=1e-5)


def test_a_class_that_is_known_one_way_alone_has_its_share_among_known_labels():
    truth, evidence = images(300, 5)
    labels = keep(truth, 0.5, 0.5, 6)
    labels[:, 1] = np.where(truth[:, 1] == 1, 1, -1)
    labels[:, 2] = -1
    estimate = estimate_prior(evidence, labels)
    n1 = (labels[:, 1] == 1).sum()
    np.testing.assert_allclose(estimate[1:3], [(n1 + 0.5) / (n1 + 1), 0.5], rtol=1e-5)
    assert torch.isfinite(estimate).all()


def test_what_it_refuses():
    truth, evidence = images(10, 7)
    for bad in ((evidence[:5], truth), (evidence[:0], truth[:0]), (evidence * np.nan, truth), (evidence[0], truth[0])):
        with pytest.raises(InputError, match="prior: "):
            estimate_prior(bad[0], bad[1])
