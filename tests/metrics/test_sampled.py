"""csl.metrics.sampled against scikit-learn, scipy and finite differences; its design and its intervals against the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binom
from sklearn.metrics import average_precision_score, precision_score, recall_score

from csl import InputError
from csl.metrics.sampled import (
    BINS,
    EDGES,
    ScoreCounts,
    _of_share,
    draw,
    estimate,
    expected_average_precision,
    fit_curve,
    shares,
    threshold_for,
)


def population(images, classes, seed, known):
    """Scores, labels and the known ones: of positives, and of high scores more than of others, none by any model of here."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((images, classes)) < rng.uniform(0.03, 0.3, classes)).astype(np.int8)
    scores = expit(rng.normal(size=truth.shape) + 2.5 * truth - 3)
    chance = known * np.where(truth == 1, 1, 0.2) * np.where(scores > 0.1, 1, 0.2)
    return scores, truth, np.where(rng.random(truth.shape) < chance, truth, -1).astype(np.int8)


def counted(scores, labels):
    counts = ScoreCounts.empty(scores.shape[1])
    return counts, counts.add(scores, labels)


def test_counts_are_those_of_a_loop_whatever_the_blocks():
    scores, _, labels = population(50, 3, 0, 0.5)
    counts, bins = counted(scores, labels)
    expected = np.zeros((3, 3, BINS), int)
    for i in range(50):
        for c in range(3):
            assert EDGES[bins[i, c]] <= scores[i, c] < np.append(EDGES, 1)[bins[i, c] + 1]
            expected[labels[i, c] + 1, c, bins[i, c]] += 1
    np.testing.assert_array_equal(counts.by_label, expected)
    blocks = ScoreCounts.empty(3)
    for part in (slice(0, 7), slice(7, 50)):
        blocks.add(scores[part].astype(np.float32), labels[part])
    np.testing.assert_array_equal(blocks.by_label, expected)
    assert counts.images == 50
    np.testing.assert_allclose(counts.mean_scores(), scores.mean(0), rtol=0.02)
    ends = ScoreCounts.empty(2)
    assert ends.add(np.array([[0.0, 1.0]], np.float32), np.array([[-1, 1]])).tolist() == [[0, BINS - 1]]
    for bad in (np.nan, 1.5, -0.1):
        with pytest.raises(InputError, match="outside"):
            ends.add(np.array([[0.5, bad]]), np.array([[-1, 1]]))


def test_average_precision_of_known_labels_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    scores = EDGES[np.stack([rng.permutation(BINS)[:90] for _ in range(4)], 1)] * (1 + 1e-9)  # one image a bin
    labels = (rng.random((90, 4)) < 0.3).astype(np.int8)
    counts, _ = counted(scores, labels)
    found, _ = expected_average_precision(counts.positives, counts.unknown, counts.all, np.zeros((4, BINS)))
    expected = [average_precision_score(labels[:, c], scores[:, c]) for c in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_unknown_labels_count_as_the_mean_over_what_they_may_be():
    """Numerators and denominators of average precision, over all sets of labels of four unknown entries."""
    known, unknown, p = np.array([[1, 0, 1, 0]]), np.array([[0, 1, 1, 2]]), np.array([[0.5, 0.2, 0.7, 0.4]])
    total, hits, positives = known + unknown, 0.0, 0.0
    of = [(b, p[0, b]) for b in range(4) for _ in range(unknown[0, b])]
    for case in range(16):
        labels = [case >> k & 1 for k in range(4)]
        chance = np.prod([q if y else 1 - q for y, (_, q) in zip(labels, of, strict=True)])
        m = known[0] + np.bincount([b for b, _ in of], labels, 4)
        depth = [total[0, b + 1 :].sum() + (total[0, b] + 1) / 2 for b in range(4)]
        hits += chance * sum(m[b] * (m[b + 1 :].sum() + 1 + (m[b] - 1) / 2) / depth[b] for b in range(4))
        positives += chance * m.sum()
    ap, moves = expected_average_precision(known, unknown, total, p)
    assert ap[0] == pytest.approx(hits / positives, rel=1e-12)
    for b in (1, 2, 3):
        ends = []
        for step in (-1e-6, 1e-6):
            moved = p.copy()
            moved[0, b] += step
            ends.append(expected_average_precision(known, unknown, total, moved)[0][0])
        assert moves[0, b] == pytest.approx((ends[1] - ends[0]) / 2e-6 / unknown[0, b], rel=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 60), st.integers(1, 5), st.integers(0, 10**6))
def test_no_cell_is_asked_more_than_it_has(images, classes, questions, most, seed):
    scores, _, labels = population(images, classes, seed, 0.3)
    counts, _ = counted(scores, labels)
    questions = min(questions, np.minimum(counts.unknown, most).sum())
    if not questions:
        return
    share = shares(counts, np.full(classes, 0.1), questions, most)
    assert share.sum() == pytest.approx(1)
    assert (share[counts.unknown == 0] == 0).all()
    c, b = draw(share, questions, np.random.default_rng(seed))
    asked = np.zeros((classes, BINS), int)
    np.add.at(asked, (c, b), 1)
    assert (asked <= np.minimum(counts.unknown, most)).all()


def test_the_first_questions_fall_into_each_cell_by_its_share():
    scores, _, labels = population(60, 2, 3, 0.3)
    counts, _ = counted(scores, labels)
    share = shares(counts, np.full(2, 0.1), 20)
    asked = np.zeros(share.shape)
    for seed in range(1000):
        c, b = draw(share, 20, np.random.default_rng(seed))
        np.add.at(asked, (c[:7], b[:7]), 1)
    assert np.abs(asked.sum(1) / asked.sum() - share.sum(1)).max() < 0.02
    assert np.abs(asked.sum(0) / asked.sum() - share.sum(0)).max() < 0.02


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_curve_is_the_most_likely_one(spread):
    rng = np.random.default_rng(4)
    at, c = rng.normal(-1, 2, 80), rng.integers(0, 4, 80)
    y = (rng.random(80) < expit(-0.5 + 1.5 * at + np.array([1, -1, 0, 0])[c])).astype(float)

    def loss(theta):
        e = theta[0] + theta[1] * at + (theta[2:][c] if spread else 0)
        likelihood = np.logaddexp(0, e).sum() - (y * e).sum()
        return likelihood + ((theta[0] + 0.75) ** 2 + 4 * (theta[1] - 1.9) ** 2 + (theta[2:] ** 2).sum()) / 2

    expected = minimize(loss, np.zeros(6), tol=1e-10).x
    found = fit_curve(at, c, y, 5, spread)
    np.testing.assert_allclose([found.a, found.b], expected[:2], atol=1e-4)
    np.testing.assert_allclose(found.u, [*expected[2:], 0], atol=1e-4)


def sampled(scores, truth, labels, questions, rng, prior):
    """Counts, and what `estimate` says after `questions` answers that are drawn by the design."""
    counts, bins = counted(scores, labels)
    share = shares(counts, prior, questions)
    c, b = draw(share, questions, rng)
    answers = np.array(
        [rng.choice(truth[(bins[:, k] == j) & (labels[:, k] == -1), k]) for k, j in zip(c, b, strict=True)]
    )
    return estimate(counts, prior, share, c, b, answers.astype(float))


def test_estimates_are_right_on_average_and_their_intervals_hold_the_truth():
    """However the labels became known, and with a prior that is off by a factor of three in some classes."""
    scores, truth, labels = population(500, 6, 5, 0.7)
    prior = truth.mean(0) * np.array([3, 1 / 3, 1, 1, 2, 0.5])
    expected = {"labels_an_image": truth.sum(1).mean()}
    expected["mAP"] = np.mean([average_precision_score(truth[:, c], scores[:, c]) for c in range(6)])
    k = 120  # a score of 0.27
    above = (scores >= EDGES[k]).ravel()
    expected["precision"], expected["recall"] = (
        precision_score(truth.ravel(), above),
        recall_score(truth.ravel(), above),
    )
    rng, found = np.random.default_rng(6), {name: [] for name in expected}
    for _ in range(60):
        numbers = sampled(scores, truth, labels, 150, rng, prior)
        for name in expected:
            found[name].append(numbers[name] if numbers[name].ndim == 1 else numbers[name][k])
    for name, value in expected.items():
        middle, low, high = np.array(found[name]).T
        assert ((low <= value) & (value <= high)).mean() >= 0.9, name
        error = 4 * middle.std() / 60**0.5 + 0.03 * value * (name in ("mAP", "recall"))  # which are no sums
        assert abs(middle.mean() - value) < error, name
        assert (high - low).mean() < 8 * middle.std() + 0.02, name


def test_answers_that_nobody_can_give_count_as_the_curve_has_them():
    scores, truth, labels = population(300, 3, 7, 0.3)
    counts, bins = counted(scores, labels)
    prior = truth.mean(0)
    share = shares(counts, prior, 40)
    c, b = draw(share, 40, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    answers = np.array([rng.choice(truth[bins[:, k] == j, k]) for k, j in zip(c, b, strict=True)]).astype(float)
    by = {}
    for value in (0, np.nan, 1):
        by[value] = estimate(counts, prior, share, c, b, np.where(np.arange(40) < 5, value, answers))[
            "labels_an_image"
        ][0]
    none, unsure, every = by.values()
    assert none < unsure < every
    with pytest.raises(InputError, match="found 1"):
        estimate(counts, prior, share, c, b, np.where(np.arange(40) < 1, 1, np.nan))


def test_thresholds_are_where_a_share_and_its_ends_reach_the_target():
    table = np.full((BINS, 3), np.nan)
    table[:200] = np.linspace(0, 1, 200)[:, None] + [0, -0.1, 0.1]
    assert threshold_for(table, 0.505).tolist() == [101, 81, 121]
    assert threshold_for(table, 0.95).tolist() == [190, 170, BINS]


@pytest.mark.parametrize(("share", "draws"), [(0.1, 20), (0.97, 15), (0.5, 30)])
def test_intervals_of_shares_hold_the_truth_where_normal_ones_do_not(share, draws):
    """Exactly, over all numbers of positives that independent draws may have."""
    found, chance = np.arange(draws + 1) / draws, binom.pmf(np.arange(draws + 1), draws, share)
    by_curve = np.full(draws + 1, share * (1 - share) / draws)
    _, low, high = _of_share(found, np.full(draws + 1, share), by_curve, np.full(draws + 1, draws)).T
    assert chance[(low <= share) & (share <= high)].sum() > 0.92
    normal = 1.96 * np.sqrt(found * (1 - found) / draws)
    assert (chance[np.abs(found - share) <= normal].sum() < 0.9) == (share != 0.5)
