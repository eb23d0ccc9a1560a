"""The field's losses for partial labels against their formulas in Python floats, their gradients, and their limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_problems import problem, value_and_gradient
from scipy.optimize import brentq

from csl import InputError
from csl.losses import LOSSES, PartialSelectiveLoss, create_loss
from csl.losses.partial import PartialLoss


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def bce(x, y):
    return -math.log(sigmoid(x) if y == 1 else 1 - sigmoid(x))


def focal(x, gamma):
    return (1 - sigmoid(x)) ** gamma * bce(x, 1)


# Each loss as a loop: logits x[b][c], labels y[b][c], the epoch. `held` are the logits of what has no gradient.


def over_entries(of_known, of_unknown):
    def loop(x, y, epoch, held):
        return sum(
            (of_unknown if y[b][c] == -1 else of_known)(x[b][c], y[b][c], epoch, held[b][c], len(x[b]))
            for b in range(len(x))
            for c in range(len(x[b]))
        )

    return loop


def of_known(x, y, epoch, held, classes):
    return bce(x, y)


def smooth(eps):
    def of(x, y, epoch, held, classes):
        t = 1 - eps / 2 if y == 1 else eps / 2
        return t * bce(x, 1) + (1 - t) * bce(x, 0)

    return of


def hill(x, y, epoch, held, classes):
    return focal(x - 1, 2) if y == 1 else (1.5 - sigmoid(x)) * sigmoid(x) ** 2


def splc(x, y, epoch, held, classes):
    positive = y == 1 or (y == -1 and epoch > 1 and sigmoid(held) > 0.6)
    return focal(x - 1, 2) if positive else focal(-x, 3)


def entropy(x, y, epoch, held, classes):
    p = sigmoid(x)
    return 0.2 * (p * math.log(p) + (1 - p) * math.log(1 - p))


def robust(x, y, epoch, held, classes):
    done, p, q = min((epoch - 1) / 4, 1), sigmoid(x), sigmoid(held)
    k = sigmoid(done * 2 * q - 2)
    v = math.exp(-((q - 0.5 - 0.3 * done) ** 2) / (2 * (2 - 1.5 * done) ** 2))
    return v * (k * (1 - p**0.01) / 0.01 + (1 - k) * (1 - (1 - p) ** 0.5) / 0.5)


def partial_bce(x, y, epoch, held):
    total = 0.0
    for row, labels in zip(x, y, strict=True):
        known = [bce(s, t) for s, t in zip(row, labels, strict=True) if t != -1]
        total += (-4.45 * len(known) / len(row) + 5.45) * sum(known)
    return total


def expected_positives(x, y, epoch, held):
    mean = sum(sigmoid(s) for row in x for s in row) / len(x)
    known = over_entries(of_known, lambda *_: 0.0)(x, y, epoch, held)
    return known + 0.5 * len(x) * len(x[0]) * ((mean - 2) / len(x[0])) ** 2


def strictly_proper(x, y, epoch, held, classes):
    """The asymmetric loss at the v where the slopes of both parts are as the odds of x."""

    def excess(v):
        return math.log(0.6 * sigmoid(3 * v - 3) / sigmoid(-v)) - x

    v = brentq(excess, -8, 20, xtol=1e-13)
    return math.log1p(math.exp(-v)) if y == 1 else math.log1p(math.exp(3 * v - 3)) / 5


def large_loss(correct):
    def loop(x, y, epoch, held):
        entries = [(b, c) for b in range(len(x)) for c in range(len(x[b]))]
        unknown = sorted((e for e in entries if y[e[0]][e[1]] == -1), key=lambda e: -bce(held[e[0]][e[1]], 0))
        large = unknown[: math.ceil(round(len(entries) * (epoch - 1) * 0.1, 9))]
        total = 0.0
        for b, c in entries:
            if (b, c) not in large:
                total += bce(x[b][c], max(y[b][c], 0))
            elif correct:
                total += bce(x[b][c], 1)
        return total

    return loop


REFERENCES = {
    "label_smoothing": ({"eps": 0.2, "alpha_unann": 0.5}, over_entries(smooth(0.2), lambda *a: 0.5 * smooth(0.2)(*a))),
    "wan": ({}, over_entries(of_known, lambda x, y, epoch, held, classes: bce(x, 0) / max(classes - 1, 1))),
    "partial_bce": ({}, partial_bce),
    "epr": ({"k": 2.0, "weight": 0.5}, expected_positives),
    "hill": ({}, over_entries(hill, hill)),
    "splc": ({"gamma_neg": 3.0}, over_entries(splc, splc)),
    "em": ({"alpha": 0.2}, over_entries(of_known, entropy)),
    "gr": ({"ramp": 5, "q3": 0.5}, over_entries(of_known, robust)),
    "spa": ({}, over_entries(strictly_proper, lambda *_: 0.0)),
    "ll_r": ({"delta": 0.1}, large_loss(correct=False)),
    "ll_ct": ({"delta": 0.1}, large_loss(correct=True)),
}
EPOCHS = (1, 2, 3, 9)


def loss_of(name, epoch=1):
    loss = create_loss(name, **REFERENCES[name][0])
    loss.begin_epoch(epoch)
    return loss


def test_every_partial_loss_has_a_reference():
    of_their_own = {"annotation"}
    kinds = {name: kind for name, kind in LOSSES.items() if issubclass(kind, PartialLoss)}
    assert kinds.keys() - of_their_own == REFERENCES.keys() | {n for n, kind in kinds.items() if kind.by_image}


@pytest.mark.parametrize("name", REFERENCES)
@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.sampled_from(EPOCHS),
)
def test_it_is_its_formula(name, batch, classes, seed, known, epoch):
    logits, targets, _ = problem(batch, classes, seed, known)
    expected = REFERENCES[name][1](logits.tolist(), targets.tolist(), epoch, logits.tolist())
    assert loss_of(name, epoch)(logits, targets).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("epoch", EPOCHS)
def test_its_gradient_is_that_of_its_formula(name, epoch):
    """By central differences of the loop, in which what has no gradient does not move."""
    logits, targets, _ = problem(3, 5, 7)
    x, y, loop, step = logits.tolist(), targets.tolist(), REFERENCES[name][1], 1e-5
    expected = np.zeros((3, 5))
    for b, c in np.ndindex(3, 5):
        moved = [[[s + sign * step * ((i, j) == (b, c)) for j, s in enumerate(row)] for i, row in enumerate(x)]
                 for sign in (1, -1)]  # fmt: skip
        expected[b, c] = (loop(moved[0], y, epoch, x) - loop(moved[1], y, epoch, x)) / (2 * step)
    _, gradient = value_and_gradient(loss_of(name, epoch), logits, targets)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", sorted(REFERENCES.keys() - {"gr"}))  # whose weights have no gradient
def test_gradcheck(name):
    logits, targets, _ = problem(3, 5, 7)
    assert torch.autograd.gradcheck(lambda x: loss_of(name, 3)(x, targets), logits.requires_grad_())


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("logit", [-200.0, -50.0, 50.0, 200.0])
def test_it_is_finite_far_out(name, logit):
    targets = torch.tensor([[1], [0], [-1]]).expand(3, 3)
    value, gradient = value_and_gradient(loss_of(name, 3), torch.full((3, 3), logit), targets)
    assert math.isfinite(value)
    assert torch.isfinite(gradient).all()


def assert_same(ours, theirs, logits, targets):
    for one, other in zip(*(value_and_gradient(loss, logits, targets) for loss in (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


CROSS_ENTROPY = {"gamma_neg": 0.0, "gamma_unann": 0.0}
LIMITS = {  # options, epoch, and what csl with these settings is equal to it
    "label_smoothing": [({"eps": 0.0}, 1, {}), ({"eps": 0.0, "alpha_unann": 0.0}, 1, {"mode": "ignore"})],
    "wan": [({"weight": 1.0}, 1, {}), ({"weight": 0.3}, 1, {"alpha_unann": 0.3})],
    "partial_bce": [({"a": 0.0, "b": 1.0}, 1, {"mode": "ignore"})],
    "epr": [({"k": 1.0, "weight": 0.0}, 1, {"mode": "ignore"})],
    "splc": [({"margin": 0.0, "gamma_pos": 0.0, "gamma_neg": 0.0}, 1, {}),
             ({"margin": 0.0, "gamma_pos": 0.0, "gamma_neg": 0.0, "tau": 1.0}, 9, {})],
    "em": [({"alpha": 0.0}, 1, {"mode": "ignore"})],
    "spa": [({"k_neg": 1.0, "b_neg": 0.0, "z_neg": 1.0}, 1, {"mode": "ignore"})],
    "ll_r": [({}, 1, {}), ({"delta": 0.0}, 9, {}), ({"delta": 1.0}, 2, {"mode": "ignore"})],
    "ll_ct": [({}, 1, {}), ({"delta": 0.0}, 9, {})],
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_its_limits_are_settings_of_csl(name):
    logits, targets, _ = problem(6, 5, 3)
    for options, epoch, settings_ in LIMITS[name]:
        ours, theirs = create_loss(name, **options), PartialSelectiveLoss(**CROSS_ENTROPY | settings_)
        ours.begin_epoch(epoch)
        assert_same(ours, theirs, logits, targets)


@pytest.mark.parametrize("name", REFERENCES)
def test_where_every_label_is_known_the_epoch_changes_nothing_and_where_none_is_it_is_finite(name):
    logits, targets, _ = problem(6, 5, 4, known=1.0)
    assert_same(loss_of(name, 1), loss_of(name, 9), logits, targets)
    if name not in ("label_smoothing", "epr", "hill", "splc", "spa"):  # which change what a known label is worth
        assert_same(loss_of(name), PartialSelectiveLoss(**CROSS_ENTROPY), logits, targets)
    value, gradient = value_and_gradient(loss_of(name, 9), logits, torch.full_like(targets, -1))
    assert math.isfinite(value)
    if name in ("partial_bce", "spa"):
        assert not gradient.any()


@pytest.mark.parametrize("options", [{}, {"k_pos": 0.5, "b_pos": -1.0, "z_pos": 2.0, "k_neg": 4.0, "b_neg": 0.5}])
def test_the_strictly_proper_loss_is_least_at_the_probability_itself(options):
    loss, p = create_loss("spa", **options), torch.tensor([[0.001, 0.05, 0.5, 0.9, 0.9999]], dtype=torch.float64)
    s = torch.logit(p).requires_grad_()
    slopes = [torch.autograd.grad(loss(s, torch.full_like(p, y)), s)[0] for y in (1, 0)]
    torch.testing.assert_close(p * slopes[0] + (1 - p) * slopes[1], torch.zeros_like(p), rtol=0, atol=1e-12)


def test_partial_bce_normalises_by_the_count_of_known_labels_on_request():
    logits, targets, _ = problem(6, 5, 5)
    loss = create_loss("partial_bce", a=1.0, b=0.0, gamma=-1.0)
    rows = zip(logits.tolist(), targets.tolist(), strict=True)
    means = [np.mean([bce(s, y) for s, y in zip(x, t, strict=True) if y != -1] or [0.0]) for x, t in rows]
    assert loss(logits, targets).item() == pytest.approx(5 * sum(means), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", REFERENCES)
def test_half_precision_is_computed_in_float32(name, dtype):
    logits, targets, _ = problem(4, 6, 6)
    loss, half = loss_of(name, 3), logits.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found, gradient = value_and_gradient(loss, half, targets.to(torch.int8))
    exact, exact_gradient = value_and_gradient(loss, half.float(), targets)
    assert found == exact
    torch.testing.assert_close(gradient, exact_gradient.to(dtype))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("label_smoothing", {"eps": 1.1}), ("label_smoothing", {"alpha_unann": -1.0}), ("wan", {"weight": math.inf}),
        ("partial_bce", {"gamma": math.nan}), ("epr", {}), ("epr", {"k": math.inf}), ("hill", {"lam": 0.5}),
        ("splc", {"tau": 2.0}), ("splc", {"change_epoch": -1}), ("em", {"alpha": -0.1}), ("gr", {"ramp": 0}),
        ("gr", {"sigma": 0.0}), ("spa", {"k_neg": 0.0}), ("spa", {"b_pos": 1.5}),
        ("ll_r", {"delta": 1.5}), ("ll_ct", {"delta": -1.0}),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(name, options):
    with pytest.raises(InputError, match="expected") as refusal:
        create_loss(name, **options)
    assert "\n" not in str(refusal.value)


def test_wrong_labels_are_refused_and_settings_shown():
    with pytest.raises(InputError, match="a target of 2"):
        create_loss("hill")(torch.zeros(1, 3), torch.tensor([[0, 1, 2]]))
    assert repr(create_loss("splc")) == (
        "SelfPacedLossCorrection(tau=0.6, change_epoch=1, margin=1.0, gamma_pos=2.0, gamma_neg=2.0)"
    )
