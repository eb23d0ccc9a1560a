"""Scores of the known entries, and the bootstrap over images, against plain loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from csl.labels import LabelMatrix
from csl.metrics import KnownScores, average_precision, average_precision_of_draws
from csl.metrics.bootstrap import drawn_images, spread


@pytest.fixture
def entries():
    random = np.random.default_rng(3)
    scores = random.random((60, 40)).astype(np.float32).round(1)  # with ties
    targets = random.choice([1, 0, -1], size=scores.shape, p=[0.2, 0.3, 0.5]).astype(np.int8)
    targets[:, 7] = -1
    targets[targets[:, 8] == 0, 8] = -1  # no known negative
    return scores, targets


@pytest.mark.parametrize("form", [np.asarray, LabelMatrix.from_dense, lambda y: LabelMatrix.from_dense(y, fill=0)])
def test_known_entries_are_those_of_the_matrix(entries, form):
    scores, targets = entries
    known = KnownScores.of(scores, form(targets))
    assert (known.num_images, known.num_classes, len(known)) == (60, 40, (targets != -1).sum())
    for c, (images, values, labels) in enumerate(known):
        assert images.tolist() == np.flatnonzero(targets[:, c] != -1).tolist()
        assert np.array_equal(values, scores[images, c])
        assert np.array_equal(labels, targets[images, c])
    positives, negatives = known.counts()
    assert np.array_equal(positives, (targets == 1).sum(0))
    assert np.array_equal(negatives, (targets == 0).sum(0))


def test_batches_in_any_order_give_the_same(entries):
    scores, targets = entries
    rows = np.random.default_rng(0).permutation(60)
    batches = ((part, scores[part], targets[part]) for part in np.split(rows, [7, 8, 40]))
    found, whole = KnownScores.of_batches(batches, (60, 40)), KnownScores.of(scores, targets)
    for name in ("starts", "images", "scores", "labels"):
        assert np.array_equal(getattr(found, name), getattr(whole, name)), name
    assert len(KnownScores.of_batches([], (60, 40))) == 0


def test_each_draw_is_scikit_learns_number_on_the_images_drawn(entries):
    scores, targets = entries
    found = average_precision_of_draws(KnownScores.of(scores, targets), draws=12)
    assert found.shape == (40, 13)
    np.testing.assert_allclose(found[:, 0], average_precision(scores, targets), rtol=1e-12)
    drawn = drawn_images(60, 12)
    assert (drawn.sum(1) == 60).all()
    for c in range(2, 40, 3):
        for d, times in enumerate(drawn):
            rows = np.repeat(np.arange(60), times)
            rows = rows[targets[rows, c] != -1]
            hits = targets[rows, c] == 1
            if hits.any() and not hits.all():
                assert found[c, d] == pytest.approx(average_precision_score(hits, scores[rows, c]), rel=1e-12)
            else:
                assert np.isnan(found[c, d])


def test_the_interval_covers_the_truth_about_nine_times_in_ten():
    random = np.random.default_rng(0)

    def sample(n):
        labels = random.random((n, 1)) < 0.3
        return (random.normal(size=(n, 1)) + 1.5 * labels).astype(np.float32), labels.astype(np.int8)

    truth = average_precision(*sample(200_000))[0]
    inside = 0
    for _ in range(100):
        of_draws = average_precision_of_draws(KnownScores.of(*sample(150)))[0]
        inside += abs(of_draws[0] - truth) <= spread(of_draws[1:])
    assert 80 <= inside <= 98


def test_no_entries_at_all():
    found = average_precision_of_draws(KnownScores.of(np.zeros((5, 2), np.float32), np.full((5, 2), -1)), draws=3)
    assert found.shape == (2, 4)
    assert np.isnan(found).all()
