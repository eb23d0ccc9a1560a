"""Linear heads on features: side by side as alone, without sight of the image they score, on the features as they are."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from csl.losses import PartialSelectiveLoss
from csl.losses.groups import GroupLoss
from csl.losses.large_loss import PermanentCorrection
from csl.training import linear


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(linear, "LEAST_STEPS", 30)


def problem(images=60, features=7, classes=5):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(images, features, generator=rng)
    truth = x @ torch.randn(features, classes, generator=rng) > 0.5
    known = torch.rand(images, classes, generator=rng) < 0.6
    return x, torch.where(known, truth.to(torch.int8), torch.tensor(-1, dtype=torch.int8))


def test_heads_are_trained_side_by_side_as_each_alone(few_steps):
    x, y = problem()
    of_images = PermanentCorrection(delta=0.1, shape=(60, 5))  # changes with the epoch, and remembers images
    for loss in (of_images, PartialSelectiveLoss("ignore"), PartialSelectiveLoss("selective", likelihood_topk=1)):
        together = linear.fit_heads(x, y, loss, (1e-3, 1e-1), seed=3)
        for l2, head in zip((1e-3, 1e-1), together, strict=True):
            (alone,) = linear.fit_heads(x, y, loss, [l2], seed=3)
            torch.testing.assert_close(head.weight, alone.weight, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(head.bias, alone.bias, rtol=1e-4, atol=1e-5)
    assert not of_images.corrected.any()
    assert together[0].weight.norm() > 1.2 * together[1].weight.norm()


def test_a_head_is_near_the_minimum_of_its_loss():
    x, y = problem(400)
    (head,) = linear.fit_heads(x, y, PartialSelectiveLoss("ignore"), [3e-2], seed=0)
    exact = nn.Linear(7, 5)
    optimizer = torch.optim.LBFGS(exact.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss_of(one):
        entries = nn.functional.binary_cross_entropy_with_logits(one(x), (y == 1).float(), reduction="none")
        return entries[y != -1].sum() / len(x) + 3e-2 * one.weight.square().sum()

    def closure():
        optimizer.zero_grad()
        loss_of(exact).backward()
        return loss_of(exact)

    optimizer.step(closure)
    assert loss_of(exact).item() <= loss_of(head).item() < 1.2 * loss_of(exact).item()


def test_a_head_of_exclusive_classes_is_scikit_learns_multinomial_regression():
    x, _ = problem(400)
    value = (x @ torch.randn(7, 3, generator=torch.Generator().manual_seed(2))).argmax(1)  # of an attribute
    y = nn.functional.one_hot(value, 3).to(torch.int8)
    y[:150] = -1  # unknown attributes are left out
    loss, groups = GroupLoss([slice(0, 3)], 3), [slice(0, 3)]
    (head,) = linear.fit_heads(x, y, loss, [1e-1], seed=0, groups=groups)
    theirs = LogisticRegression(C=1 / (2 * 1e-1 * len(x)), max_iter=1000).fit(x[150:], value[150:])
    with torch.no_grad():
        p = torch.sigmoid(head(x)).numpy()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(p, theirs.predict_proba(x), atol=0.03)
    weight, bias = linear.Standardised(x).folded_into(head)
    torch.testing.assert_close(
        linear.linear_head(weight, bias, groups)(x), head(linear.Standardised(x)(x)), rtol=1e-3, atol=1e-3
    )


def test_an_image_is_scored_by_a_head_that_has_not_seen_its_labels(few_steps):
    x, y = problem()
    fold = linear.folds_of(len(x), 3, seed=1)
    assert fold.bincount().tolist() == [20, 20, 20]
    changed = y.clone()
    changed[fold == 1] = 1 - changed[fold == 1].clamp(min=0)
    scored = [
        linear.cross_fitted(x, labels, lambda _: PartialSelectiveLoss("ignore"), [1e-2], 0, fold)[0]
        for labels in (y, changed)
    ]
    assert torch.equal(scored[0][fold == 1], scored[1][fold == 1])
    assert not torch.isclose(scored[0][fold != 1], scored[1][fold != 1]).any()


def test_a_head_for_standardised_features_is_one_for_the_features():
    features = torch.randn(50, 6, dtype=torch.float64) * torch.tensor([1, 20, 0.1, 3, 0, 5]) + torch.arange(6)
    standardised, head = linear.Standardised(features), nn.Linear(6, 3, dtype=torch.float64)
    x = standardised(features)
    torch.testing.assert_close(x.mean(0), torch.zeros(6, dtype=torch.float64), atol=1e-9, rtol=0)
    weight, bias = standardised.folded_into(head)
    torch.testing.assert_close(features @ weight.T + bias, head(x))
