"""The loss of exclusive attributes: the likelihood of the values that are left open, beside another loss."""

import math

import numpy as np
import pytest
import torch

from csl import InputError
from csl.losses.annotation import annotated_shares
from csl.losses.groups import GroupLoss
from csl.losses.options import LossOptions
from csl.losses.selective import PartialSelectiveLoss
from csl.models.exclusive import exclusive_logits

GROUPS = [slice(1, 4), slice(5, 7)]  # of 8 classes: 0, 4 and 7 are in none
REST = [0, 4, 7]


def softmax(z):
    e = [math.exp(x) for x in z]
    return [x / sum(e) for x in e]


def loop(z, y, annotated=None):
    """The formula, image by image, on the outputs of the last layer; cross-entropy of the other known classes."""
    total = 0.0
    for i in range(len(z)):
        for group in GROUPS:
            p, labels = softmax(z[i, group]), list(y[i, group])
            if set(labels) == {-1}:
                if annotated is not None:
                    total -= math.log(sum(q * (1 - e) for q, e in zip(p, annotated[group], strict=True)))
                continue
            left = [k for k, label in enumerate(labels) if label == 1] or [k for k, v in enumerate(labels) if v == -1]
            total -= math.log(sum(p[k] for k in left)) if left else 0.0
        for c in REST:
            p = 1 / (1 + math.exp(-z[i, c]))
            total -= 0 if y[i, c] == -1 else math.log(p if y[i, c] == 1 else 1 - p)
    return total


def problem(images=40):
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 3, (images, 8)), rng.integers(-1, 2, (images, 8))
    for group in GROUPS:  # a label of each kind: known, wholly unknown, known in part, ruled out, two values
        for i in range(images):
            if i % 5 == 0:
                y[i, group] = 0
                y[i, rng.integers(group.start, group.stop)] = 1
            elif i % 5 == 1:
                y[i, group] = -1
            elif i % 5 == 2:
                y[i, group] = rng.integers(-1, 1, group.stop - group.start)
    return z, y


def test_it_is_the_likelihood_of_what_the_labels_leave_open():
    z, y = problem()
    annotated = np.random.default_rng(1).uniform(0, 0.9, 8)
    for e in (None, annotated):
        share = None if e is None else torch.tensor(e)
        loss = GroupLoss(GROUPS, 8, PartialSelectiveLoss("ignore", gamma_pos=0.0, gamma_neg=0.0), annotated=share)
        found = loss(exclusive_logits(torch.tensor(z), GROUPS), torch.tensor(y))
        assert found.item() == pytest.approx(loop(z, y, e), rel=1e-6)


def test_gradients_are_those_of_cross_entropy_over_the_values():
    z, y = problem()
    known = torch.tensor([i for i in range(len(y)) if i % 5 == 0])
    x = torch.tensor(z, requires_grad=True)
    GroupLoss(GROUPS, 8, PartialSelectiveLoss("ignore"))(exclusive_logits(x, GROUPS), torch.tensor(y)).backward()
    for group in GROUPS:
        expected = torch.softmax(x[known][:, group], 1) - torch.tensor(y)[known][:, group]
        torch.testing.assert_close(x.grad[known][:, group], expected.detach(), rtol=1e-9, atol=1e-12)
        assert x.grad[1::5, group].abs().max() == 0  # unknown attributes
    loss = GroupLoss([slice(0, 3)], 3, annotated=torch.tensor([0.1, 0.5, 0.8]))
    targets = torch.tensor([[-1, -1, -1], [0, -1, -1], [0, 1, 0]])
    start = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: loss(exclusive_logits(one, [slice(0, 3)]), targets), start)


def test_an_unknown_attribute_says_nothing_where_every_value_is_annotated_alike():
    z, y = torch.randn(5, 3, requires_grad=True), torch.full((5, 3), -1)
    for share in (None, torch.full((3,), 0.7)):
        (gradient,) = torch.autograd.grad(
            GroupLoss([slice(0, 3)], 3, annotated=share)(exclusive_logits(z, [slice(0, 3)]), y), z
        )
        assert gradient.abs().max() < 1e-6
    rare = torch.tensor([0.99, 0.99, 0.0])  # the third value is never annotated: that is what an unknown one is
    (gradient,) = torch.autograd.grad(
        GroupLoss([slice(0, 3)], 3, annotated=rare)(exclusive_logits(z, [slice(0, 3)]), y), z
    )
    assert (gradient[:, 2] < 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_logits_are_those_of_softmax_probabilities(dtype):
    rng = np.random.default_rng(2)
    z = torch.tensor(rng.normal(0, 6, (200, 8))).to(dtype)
    s = exclusive_logits(z, GROUPS)
    assert s.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(s[:, REST], z[:, REST].to(s.dtype))
    for group in GROUPS:
        expected = torch.log_softmax(z[:, group].double(), 1)
        torch.testing.assert_close(torch.sigmoid(s[:, group]).double(), expected.exp(), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(torch.nn.functional.logsigmoid(s[:, group]).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(s[:, 5], (z[:, 5].double() - z[:, 6].double()).to(s.dtype), rtol=1e-5, atol=1e-5)


def test_extreme_and_equal_outputs_keep_finite_logits_and_gradients():
    z = torch.tensor([[90.0, -90, 0], [5, 5, 5], [3, 3, -200], [1e4, 0, 0]], requires_grad=True)
    s = exclusive_logits(z, [slice(0, 3)])
    torch.testing.assert_close(s[1], torch.full((3,), -math.log(2)))
    torch.testing.assert_close(s[0], torch.tensor([90.0, -180, -90]), atol=1e-4, rtol=0)
    (gradient,) = torch.autograd.grad(torch.nn.functional.logsigmoid(s[:, 0]).sum(), z)
    assert torch.isfinite(gradient).all()


def test_options_make_the_loss_of_the_classes_that_are_in_no_group():
    prior = torch.tensor([0.1, 0.2, 0.3, 0.5, 0.9, 0.4, 0.6, 0.2])
    known = torch.stack([prior * 0.5, (1 - prior) * 0.25])
    loss = LossOptions(loss="annotation").create_loss(prior, known, (30, 8), GROUPS)
    torch.testing.assert_close(loss.other.prior, prior[REST])
    torch.testing.assert_close(loss.missed.exp(), 1 - annotated_shares(prior, known)[0].float())
    assert torch.equal(loss.prior, prior)
    whole = LossOptions(partial_loss_mode="ignore").create_loss(None, None, (30, 8), [slice(0, 8)])
    assert whole.other is None
    role = LossOptions(loss="role", loss_options="k=2").create_loss(None, None, (30, 8), GROUPS)
    assert role.by_image
    assert role.other.theta.shape == (30, 3)
    with pytest.raises(InputError, match="3 classes are in no group"):
        GroupLoss(GROUPS, 8)
