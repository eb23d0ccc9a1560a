"""csl.decisions against the truth that drawn scores hide, against scikit-learn and loops, and through a file."""

import json

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_score, recall_score

from csl import InputError
from csl.decisions import Decisions, Goal, decide, undecidable
from csl.decisions.calibration import calibrate
from csl.decisions.decisions import COMMON, FEW, OWN
from csl.decisions.thresholds import FEWEST, Curve, common_threshold, interval
from csl.labels import LabelMatrix


def population(images=3000, classes=12, seed=0):
    """Scores p [N, C] that are wrong by a slope and a bias, their true probabilities, and all labels."""
    rng = np.random.default_rng(seed)
    frequency = np.exp(rng.uniform(np.log(0.03), np.log(0.3), classes))
    s = rng.normal(logit(frequency), 2.0, (images, classes))
    truth = (rng.random(s.shape) < expit(s)).astype(np.int8)
    slope, bias = np.exp(rng.normal(0.5, 0.1, classes)), rng.normal(1.0, 0.3, classes)
    return expit((s - bias) / slope).astype(np.float32), expit(s), truth


def fpc(truth, each, seed=1):
    """As many known positives as known negatives of each class."""
    rng, y = np.random.default_rng(seed), np.full_like(truth, -1)
    for c in range(truth.shape[1]):
        for value in (0, 1):
            rows = np.flatnonzero(truth[:, c] == value)
            y[rng.choice(rows, min(each, len(rows)), replace=False), c] = value
    return y


def off(q, expected):
    return np.abs(q - expected).mean()


def test_a_class_with_many_labels_is_calibrated_as_by_logistic_regression():
    p, _, truth = population()
    s, nothing = logit(p.astype(float)), np.zeros(12)
    found = calibrate(s, truth, nothing, nothing, np.ones(12, bool))
    for c in range(12):
        exact = LogisticRegression(C=np.inf, tol=1e-8).fit(s[:, [c]], truth[:, c])
        assert found.slope[c] == pytest.approx(exact.coef_.item(), rel=0.06)
        assert found.bias[c] == pytest.approx(exact.intercept_.item(), abs=0.1)


def test_few_labels_lean_on_the_other_classes_and_are_nearer_to_the_truth_than_alone():
    p, probabilities, truth = population(classes=40)
    s, nothing, known = logit(p.astype(float)), np.zeros(40), np.random.default_rng(2).random(truth.shape) < 0.03
    y = np.where(known, truth, -1).astype(np.int8)
    shows = (y == 1).any(0) & (y == 0).any(0)
    found = calibrate(s, y, nothing, nothing, shows)
    ours, alone = [], []
    for c in np.flatnonzero(shows):
        rows = y[:, c] != -1
        exact = LogisticRegression(C=np.inf).fit(s[rows, c, None], y[rows, c])
        alone.append(off(exact.predict_proba(s[:, [c]])[:, 1], probabilities[:, c]))
        ours.append(off(found.of_class(c, s[:, c]), probabilities[:, c]))
    assert np.mean(ours) < 0.6 * np.mean(alone)
    assert (found.own[shows] < 1).all()


def test_probabilities_are_those_of_all_images_however_the_labels_were_collected():
    p, probabilities, truth = population(2000, 20)
    y = fpc(truth, 50)
    found = decide(p, LabelMatrix.from_dense(y))
    assert found.shown == "of all images, by the estimated prior"
    nothing = np.zeros(20)
    as_known = calibrate(logit(p.astype(float)), y, nothing, nothing, np.ones(20, bool))
    naive = np.stack([as_known.of_class(c, logit(p[:, c].astype(float))) for c in range(20)], 1)
    assert off(found.calibrated(p), probabilities) < 0.4 * off(naive, probabilities)
    assert np.abs(np.log(np.array(found.prior) / truth.mean(0))).mean() < 0.4
    complete = decide(p, LabelMatrix.from_dense(truth))
    assert complete.shown == "as annotated: every label is known"
    assert off(complete.calibrated(p), probabilities) < 0.25 * off(p, probabilities)


def test_answers_that_were_asked_for_mislead_where_they_count_as_collected():
    """A hundred answers a class, to what scores highest: why `Annotations.as_collected` leaves them out."""
    p, probabilities, truth = population(3000, 12)
    collected = fpc(truth, 50)
    with_answers = collected.copy()
    for c in range(12):
        asked = np.argsort(-np.where(collected[:, c] == -1, p[:, c], -1))[:100]
        with_answers[asked, c] = truth[asked, c]
    without, taken = (decide(p, LabelMatrix.from_dense(y)) for y in (collected, with_answers))
    assert off(without.calibrated(p), probabilities) < off(taken.calibrated(p), probabilities)


def macro_f1(p, truth, thresholds):
    return np.mean([f1_score(truth[:, c], p[:, c] > t) for c, t in enumerate(thresholds)])


def test_the_class_thresholds_are_ahead_of_half_and_of_one_for_all():
    p, _, truth = population(4000, 20)
    found = decide(p[:2000], LabelMatrix.from_dense(fpc(truth[:2000], 40)))
    q, rest = found.calibrated(p[2000:]), truth[2000:]
    own = macro_f1(q, rest, found.thresholds)
    assert own > macro_f1(p[2000:], rest, [0.5] * 20) + 0.05
    assert own > macro_f1(q, rest, [found.common] * 20) - 0.01  # these classes are equally hard
    assert macro_f1(p[2000:], rest, found.raw_thresholds) == pytest.approx(own, abs=1e-3)
    inside = np.mean(
        [low <= f1_score(rest[:, c], q[:, c] > t) <= high for c, (t, low, high)
         in enumerate(zip(found.thresholds, found.classes.low, found.classes.high, strict=True))]
    )  # fmt: skip
    assert inside > 0.6  # the interval does not hold for errors of the prior


@pytest.mark.parametrize(("text", "score"), [("precision=0.8", precision_score), ("recall=0.7", recall_score)])
def test_a_wished_precision_or_recall_is_reached(text, score):
    p, _, truth = population(8000, 6)
    found = decide(p[:4000], LabelMatrix.from_dense(truth[:4000]), goal=Goal.parse(text))
    q, wished = found.calibrated(p[4000:]), Goal.parse(text).value
    for c, threshold in enumerate(found.thresholds):
        if found.classes.basis[c] == OWN:
            assert score(truth[4000:, c], q[:, c] > threshold) == pytest.approx(wished, abs=0.12)
            assert found.classes.low[c] < found.classes.reached[c] < found.classes.high[c]
    assert found.classes.basis.count(OWN) >= 4


def test_the_curve_and_the_common_threshold_are_the_formula():
    rng = np.random.default_rng(0)
    q = rng.integers(1, 20, (50, 3)) / 20  # with ties
    curves = [Curve(q[:, c]) for c in range(3)]

    def numbers(c, t):
        return q[q[:, c] > t, c].sum(), (q[:, c] > t).sum(), q[:, c].sum()

    for t in (0.001, 0.32, 0.5, 0.99):
        np.testing.assert_allclose(np.stack(curves[1].above(t)), numbers(1, t)[:2])
    best = Goal().place(curves[1].hits, curves[1].predictions, curves[1].hits[-1])
    h, n, p = numbers(1, curves[1].threshold(best))
    assert 2 * h / (n + p) == max(2 * a / (b + p) for a, b, _ in (numbers(1, t) for t in np.arange(0, 1, 0.01)))

    def mean_f1(t):
        return np.mean([2 * h / (n + p) for h, n, p in (numbers(c, t) for c in range(3))])

    found = common_threshold(curves, Goal())
    assert mean_f1(found) == pytest.approx(max(mean_f1(t) for t in np.linspace(0.005, 0.995, 199)))
    precise = common_threshold(curves, Goal("precision", 0.7))
    h, n, _ = np.sum([numbers(c, precise) for c in range(3)], 0)
    assert h / n >= 0.7
    h, n, _ = np.sum([numbers(c, precise - 0.005) for c in range(3)], 0)
    assert h / n < 0.7


def test_the_interval_of_recall_is_the_beta_distribution_of_the_known_positives():
    known, above = np.zeros(5000, bool), np.zeros(5000, bool)
    known[:20], above[:14], above[3000:3100] = True, True, True
    low, high = interval(above, known, 0.3, Goal("recall", 0.5))
    np.testing.assert_allclose([low, high], beta(14.5, 6.5).ppf([0.05, 0.95]), atol=0.02)


def test_a_class_has_few_labels_where_the_interval_of_a_share_of_them_is_wide():
    widths = [np.ptp(beta(m / 2 + 0.5, m / 2 + 0.5).ppf([0.05, 0.95])) for m in (FEWEST - 1, FEWEST)]
    assert widths[0] > 0.5 > widths[1]


def test_classes_say_what_their_thresholds_rest_on():
    p, _, truth = population()
    y = np.where(np.random.default_rng(0).random(truth.shape) < 0.5, truth, -1).astype(np.int8)
    y[:, 0], y[y[:, 1] == 0, 1] = -1, -1  # nothing known; no negative known
    few = np.flatnonzero(y[:, 2] == 1)[FEWEST - 1 :]
    y[few, 2] = -1
    found = decide(p, LabelMatrix.from_dense(y))
    assert found.classes.basis[:4] == [COMMON, COMMON, FEW, OWN]
    assert found.thresholds[:2].tolist() == [found.common] * 2
    assert np.isnan(found.classes.low[:2]).all()
    assert "2 take the common one" in found.line()
    assert "1 have few known labels" in found.line()
    assert truth[:, 1].mean() / 3 < found.prior[1] < 3 * truth[:, 1].mean()


def test_a_class_that_is_never_sure_enough_waits_for_a_score_that_is():
    p, _, truth = population(1000, 3)
    p[:, 0] = 0.3 + p[:, 0] / 1000 * (truth[:, 0] == truth[::-1, 0])  # says little
    found = decide(p, LabelMatrix.from_dense(truth), goal=Goal("precision", 0.7))
    assert found.thresholds[0] == 0.7
    assert np.isnan(found.classes.reached[0])
    assert "1 do not reach it" in found.line()
    assert found.calibrated(np.full((1, 3), 0.3, np.float32))[0, 0] < 0.7


def test_attributes_have_the_best_value_or_are_unsure():
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1.5, (4000, 4))
    truth = (z + rng.gumbel(size=z.shape)).argmax(1)
    p = torch.softmax(torch.from_numpy(2 * z), 1).numpy().astype(np.float32)  # surer than right
    labels = LabelMatrix.from_dense((np.arange(4) == truth[:, None]).astype(np.int8)[:2000])
    found = decide(p[:2000], labels, {"neck": slice(0, 4)}, Goal("precision", 0.8))
    values = [found.best_value("neck", q) for q in found.calibrated(p[2000:])]
    best, score, sure = (np.array(column) for column in zip(*values, strict=True))
    right = best == truth[2000:]
    assert right.mean() < 0.7
    assert right[sure].mean() == pytest.approx(0.8, abs=0.05)
    assert off(score.mean(), right.mean()) < 0.05 < p[2000:].max(1).mean() - right.mean()
    assert found.attributes.low[0] < found.attributes.reached[0] < found.attributes.high[0]


def test_without_known_negatives_a_prior_stands_in_for_them():
    p, probabilities, truth = population(classes=20)
    y = np.where((truth == 1) & (np.random.default_rng(0).random(truth.shape) < 0.5), 1, -1).astype(np.int8)
    labels = LabelMatrix.from_dense(y)
    with pytest.raises(InputError, match="no class has a known positive and a known negative"):
        decide(p, labels)
    assert undecidable(labels, torch.ones(20)) is None
    found = decide(p, labels, prior=torch.from_numpy(truth.mean(0)))
    assert off(found.calibrated(p), probabilities) < 0.35 * off(p, probabilities)


def test_what_it_refuses():
    p, _, truth = population(50, 3)
    nothing = LabelMatrix.from_dense(np.full_like(truth, -1))
    with pytest.raises(InputError, match="thresholds: no positive is known"):
        decide(p, nothing)
    for scores in (p[:, :2], p * np.nan, p + 1):
        with pytest.raises(InputError, match="thresholds: "):
            decide(scores, LabelMatrix.from_dense(truth))
    for text in ("precision", "precision=1", "recall=x", "f1=0.5", "accuracy=0.9", "precision=nan"):
        with pytest.raises(InputError, match="--target .*: expected precision=P or recall=R"):
            Goal.parse(text)
    assert str(Goal.parse("Recall=0.80")) == "recall 0.8"


def test_decisions_come_back_from_a_file_and_damaged_ones_are_refused():
    p, _, truth = population(400, 5)
    truth[:, 4] = -1
    groups = {"a": slice(0, 2), "b": slice(2, 3)}
    found = decide(p, LabelMatrix.from_dense(truth), groups)
    plain = json.loads(json.dumps(found.to_plain(), allow_nan=False))
    back = Decisions.from_plain(plain, "x", 5, groups)
    assert back.to_plain() == found.to_plain()
    np.testing.assert_array_equal(back.calibrated(p), found.calibrated(p))
    assert Decisions.from_plain({"format": "another"}, "x", 5, groups) is None
    assert Decisions.from_plain(None, "x", 5, groups) is None
    damaged = [
        (plain, 4, groups),
        (plain, 5, None),
        ({**plain, "classes": 3}, 5, groups),
        ({"format": plain["format"]}, 5, groups),
    ]
    for key, value in (("slope", [None] * 5), ("basis", ["?"] * 5), ("threshold", "abcde"), ("bias", [[1]] * 5)):
        damaged.append(({**plain, "classes": {**plain["classes"], key: value}}, 5, groups))
    for values, classes, of in damaged:
        with pytest.raises(InputError, match="x: its decisions cannot be read"):
            Decisions.from_plain(values, "x", classes, of)
