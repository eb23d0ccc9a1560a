"""csl.losses.annotation against a float64 loop, its limits, and the likelihood that it is derived from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_problems import problem, value_and_gradient

from csl import InputError
from csl.losses import AnnotationLoss, PartialSelectiveLoss, create_loss
from csl.losses.annotation import MOST_ANNOTATED, annotated_shares, annotation_delta


def model_of(classes, seed):
    """A prior [C], and shares [2, C] of images of which the class is known: n1 / N <= pi and n0 / N <= 1 - pi."""
    rng = np.random.default_rng(seed)
    prior = rng.uniform(0.02, 0.98, classes)
    known = np.stack([rng.random(classes) * prior, rng.random(classes) * (1 - prior)])
    return torch.from_numpy(prior), torch.from_numpy(known)


def loop(logits, targets, prior, known, gamma):
    """The negative log-likelihood of every entry in Python floats, and what its constant is left out of."""
    total = 0.0
    for b, c in np.ndindex(*logits.shape):
        p = 1 / (1 + math.exp(-logits[b, c].item()))
        e1, e0 = (known[0, c] / prior[c]).item(), (known[1, c] / (1 - prior[c])).item()
        if targets[b, c] == 1:
            total -= math.log(p)
        elif targets[b, c] == 0:
            total -= p**gamma * math.log(1 - p)
        else:
            total -= math.log(p * (1 - e1) + (1 - p) * (1 - e0)) - math.log(1 - e0)
    return total


def assert_same(ours, theirs, logits, targets):
    for one, other in zip(*(value_and_gradient(loss, logits, targets) for loss in (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 2.5]))
def test_it_is_the_likelihood_of_what_is_annotated_and_what_is_not(batch, classes, seed, gamma):
    logits, targets, _ = problem(batch, classes, seed)
    prior, known = model_of(classes, seed)
    loss = AnnotationLoss(gamma, prior=prior, known=known).double()
    loss.delta = annotation_delta(*annotated_shares(prior, known))  # in float64, as the loop
    assert loss(logits, targets).item() == pytest.approx(loop(logits, targets, prior, known, gamma), rel=1e-9, abs=1e-9)


def test_its_gradient_is_that_of_the_formula():
    logits, targets, _ = problem(6, 5, 1)
    prior, known = model_of(5, 1)
    loss = AnnotationLoss(prior=prior, known=known).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits.clone().requires_grad_())
    _, gradient = value_and_gradient(loss, logits, targets)
    unknown = targets == -1
    expected = torch.sigmoid(logits) - torch.sigmoid(logits - loss.delta)
    torch.testing.assert_close(gradient[unknown], expected[unknown])


def test_the_exponent_of_known_negatives_is_that_of_csl():
    logits, targets, _ = problem(8, 5, 2)
    prior, known = model_of(5, 2)
    known_alone = torch.where(targets == -1, 1, targets)
    for gamma in (0.0, 1.0, 3.0):
        ours = AnnotationLoss(gamma, prior=prior, known=known)
        theirs = PartialSelectiveLoss("negative", gamma_neg=gamma)
        assert_same(ours, theirs, logits, known_alone)


@pytest.mark.parametrize(("mode", "delta"), [("ignore", 0.0), ("negative", math.inf)])
def test_its_limits_are_the_modes_of_csl(mode, delta):
    logits, targets, _ = problem(8, 5, 3)
    loss = AnnotationLoss(gamma_neg=1.0)
    loss.delta = torch.full((5,), delta)
    expected = PartialSelectiveLoss(mode, gamma_neg=1.0, gamma_unann=0.0)
    assert_same(loss, expected, logits, targets)
    without_a_prior = AnnotationLoss(gamma_neg=1.0)
    assert mode != "ignore" or without_a_prior(logits, targets).item() == pytest.approx(loss(logits, targets).item())


def test_annotation_at_random_says_nothing_of_the_label_and_all_positives_annotated_says_it_is_none():
    prior = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    at_random = torch.stack([0.3 * prior, 0.3 * (1 - prior)])
    torch.testing.assert_close(annotation_delta(*annotated_shares(prior, at_random)), torch.zeros(3).double())
    all_positives = torch.stack([prior, 0 * prior])
    expected = torch.full((3,), -math.log(1 - MOST_ANNOTATED), dtype=torch.float64)
    torch.testing.assert_close(annotation_delta(*annotated_shares(prior, all_positives)), expected)


def test_a_prior_below_what_is_known_is_raised_to_it():
    shares = annotated_shares(
        torch.tensor([0.01, 0.99, 0.0, 1.0]), torch.tensor([[0.2, 0.2, 0.0, 0.0], [0.1, 0.1, 0.0, 0.0]])
    )
    assert all(torch.isfinite(one).all() and (one >= 0).all() and (one <= MOST_ANNOTATED).all() for one in shares)
    assert shares[0].tolist()[2:] == [0, 0]


def test_the_best_constant_is_the_frequency_of_the_population():
    """Where annotation depends on the label, the least expected loss is at pi, not at the share among known labels."""
    pi, e1, e0 = 0.15, 0.6, 0.05
    prior, known = torch.tensor([pi]).double(), torch.tensor([[pi * e1], [(1 - pi) * e0]]).double()
    loss = AnnotationLoss(prior=prior, known=known).double()
    counts = {1: pi * e1, 0: (1 - pi) * e0, -1: pi * (1 - e1) + (1 - pi) * (1 - e0)}
    s = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([s], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        total = sum(share * loss(s, torch.tensor([[y]])) for y, share in counts.items())
        total.backward()
        return total

    optimizer.step(closure)
    assert torch.sigmoid(s).item() == pytest.approx(pi, rel=1e-3)


@pytest.mark.parametrize("logit", [-200.0, -50.0, 50.0, 200.0])
def test_it_is_finite_far_out(logit):
    prior, known = model_of(3, 0)
    loss = AnnotationLoss(1.0, prior=prior, known=known)
    value, gradient = value_and_gradient(loss, torch.full((3, 3), logit), torch.tensor([[1], [0], [-1]]).expand(3, 3))
    assert math.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_what_it_refuses():
    prior, known = model_of(3, 0)
    for settings_ in ({"gamma_neg": -1.0}, {"gamma_neg": math.nan}, {"prior": prior}, {"known": known},
                      {"prior": prior + 1, "known": known},
                      {"prior": prior[:2], "known": known}, {"prior": prior, "known": known * math.nan}):  # fmt: skip
        with pytest.raises(InputError):
            create_loss("annotation", **settings_)
    with pytest.raises(InputError, match="a target of 2"):
        AnnotationLoss()(torch.zeros(1, 3), torch.tensor([[0, 1, 2]]))
