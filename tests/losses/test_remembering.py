"""Losses that remember something of every image, against their formulas in Python floats over several steps."""

import math

import numpy as np
import pytest
import torch
from loss_problems import problem

from csl.losses import create_loss


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def bce(x, t):
    return -t * math.log(sigmoid(x)) - (1 - t) * math.log(1 - sigmoid(x))


def steps(count=6, images=9, classes=4, batch=5):
    """Logits and rows of a few batches, and the labels of all images."""
    _, targets, _ = problem(images, classes, 1)
    rng = np.random.default_rng(2)
    for _ in range(count):
        yield (
            torch.from_numpy(rng.normal(0, 2, (batch, classes))),
            torch.from_numpy(rng.choice(images, batch, replace=False)),
            targets,
        )


def steps_of_epochs(loss):
    """The epoch of each of twelve steps, of which three are one; whether the loss has learned something new at its beginning;
    and the step. A run that goes on within an epoch begins it again, and so does each step.
    """
    for number, step in enumerate(steps(count=12)):
        epoch = 1 + number // 3
        for _ in range(2):
            loss.begin_epoch(epoch)
        yield epoch, number % 3 == 0 and epoch > 1, step


def test_permanent_corrections_last():
    delta, corrected, loss = 0.1, set(), create_loss("ll_cp", delta=0.1, shape=(9, 4))
    for step, (logits, rows, targets) in enumerate(steps()):
        epoch = 1 + (step > 1)
        loss.begin_epoch(epoch)
        total, large = 0.0, []
        for b, row in enumerate(rows.tolist()):
            for c, y in enumerate(targets[row].tolist()):
                x = logits[b, c].item()
                if y == -1 and (row, c) not in corrected:
                    large.append((x, row, c))
                total += bce(x, float(y == 1 or (row, c) in corrected))
        for x, row, c in sorted(large, reverse=True)[: math.ceil(20 * delta) if epoch > 1 else 0]:
            corrected.add((row, c))
            total += bce(x, 1) - bce(x, 0)
        found = loss(logits.requires_grad_(), targets[rows], rows)
        assert found.item() == pytest.approx(total, rel=1e-9)
        assert set(map(tuple, loss.corrected.nonzero().tolist())) == corrected
    assert len(corrected) > 5


def estimates_slope(theta, p, y, k, weight):
    """The gradient of half of what the estimates of a batch learn by, by central differences."""

    def value(t):
        known = sum(bce(t[i], y[i]) for i in np.ndindex(t.shape) if y[i] != -1)
        excess = (sum(map(sigmoid, t.flat)) - len(t) * k) ** 2 / t.size
        return (sum(bce(t[i], p[i]) for i in np.ndindex(t.shape)) + known + weight * excess) / 2

    slope, eps = np.zeros_like(theta), 1e-5
    for i in np.ndindex(theta.shape):
        for sign in (1, -1):
            moved = theta.copy()
            moved[i] += sign * eps
            slope[i] += sign * value(moved) / (2 * eps)
    return slope, value(theta)


def test_estimates_of_labels_and_the_network_learn_from_each_other():
    k, weight, rate = 1.5, 0.5, 0.7
    loss = create_loss("role", k=k, weight=weight, rate=rate, shape=(9, 4)).double()
    theta = np.zeros((9, 4))
    for logits, rows, targets in steps():
        x, y, own = logits.numpy().copy(), targets[rows].numpy(), theta[rows]
        probabilities = np.vectorize(sigmoid)
        slope, of_estimates = estimates_slope(own, probabilities(x), y, k, weight)
        expected, of_network = estimates_slope(x, probabilities(own), y, k, weight)
        found = loss(logits.requires_grad_(), targets[rows], rows)
        found.backward()
        assert found.item() == pytest.approx(of_network + of_estimates, rel=1e-9)
        np.testing.assert_allclose(logits.grad, expected, rtol=1e-6, atol=1e-8)
        theta[rows] -= rate * slope
        np.testing.assert_allclose(loss.theta, theta, rtol=1e-6, atol=1e-8)


def best_bin(scores, positives, tau, delta):
    """By trying every score as the threshold."""
    n, n1 = len(scores), len(positives)
    found = []
    for z in scores:
        q, q1 = sum(s >= z for s in scores) / n, sum(s >= z for s in positives) / n1
        if q1:
            spread = math.sqrt(math.log(4 / delta) / (2 * n)) + math.sqrt(math.log(4 / delta) / (2 * n1))
            found.append((q / q1 + (1 + tau) / q1 * spread, q / q1))
    return min(found)[1]


def test_the_risk_of_a_class_prior_that_is_estimated_anew_each_epoch():
    tau, delta = 0.05, 0.2
    loss = create_loss("crisp", tau=tau, delta=delta, warm_up=1, shape=(9, 4)).double()
    last, prior, counts = {}, [0.0] * 4, [(0, 0)] * 4
    for epoch, first, (logits, rows, targets) in steps_of_epochs(loss):
        for c in range(4) if first else ():
            scores = [p for (_, k), p in last.items() if k == c]
            positives = [p for (row, k), p in last.items() if k == c and targets[row, c] == 1]
            counts[c] = len(scores), len(positives)
            prior[c] = min(best_bin(scores, positives, tau, delta), 1) if positives else 0.0
        total, mean = 0.0, [0.0] * 4
        for b, row in enumerate(rows.tolist()):
            for c, y in enumerate(targets[row].tolist()):
                p = sigmoid(logits[b, c].item())
                if epoch == 1:
                    total += bce(logits[b, c].item(), max(y, 0))
                elif y == 1 and counts[c][1]:
                    total += 2 * prior[c] * counts[c][0] / counts[c][1] * (1 - p)
                mean[c] += p / len(rows)
                last[row, c] = p
        if epoch > 1:
            total += len(rows) * sum(abs(m - pi) for m, pi in zip(mean, prior, strict=True))
        found = loss(logits.requires_grad_(), targets[rows], rows)
        assert found.item() == pytest.approx(total, rel=1e-9)
        x = logits.detach().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, y=targets[rows], rows=rows: loss(x, y, rows), x)
    assert sum(pi > 0 for pi in prior) >= 3


@pytest.mark.parametrize(("name", "options"), [("ll_cp", {"delta": 0.2}), ("role", {"k": 1.5})])
def test_nothing_is_remembered_without_a_gradient_and_an_image_twice_counts_twice(name, options):
    loss = create_loss(name, **options, shape=(2, 4))
    loss.begin_epoch(2)
    (memory,) = loss.buffers()
    logits, targets, rows = torch.randn(2, 4), torch.full((2, 4), -1), torch.tensor([1, 1])
    loss(logits, targets, rows)
    assert not memory.any()
    loss(logits.requires_grad_(), targets, rows)
    assert memory[1].any()
    assert not memory[0].any()


@pytest.mark.parametrize(
    ("name", "options"), [("ll_cp", {"delta": 0.2}), ("role", {"k": 1.5}), ("em_apl", {}), ("crisp", {})]
)
def test_logits_that_are_no_number_are_not_remembered(name, options):
    loss = create_loss(name, **options, shape=(2, 4))
    loss.begin_epoch(2)
    logits = torch.full((2, 4), torch.nan, requires_grad=True)
    before = [memory.clone() for memory in loss.buffers()]
    assert loss(logits, torch.full((2, 4), -1), torch.tensor([0, 1])).isnan()
    assert all(map(torch.equal, before, loss.buffers()))


def test_the_least_likely_unknown_entries_of_a_class_become_negatives_for_good():
    alpha, beta, share, ramp = 0.2, 0.5, 0.8, 2
    loss = create_loss("em_apl", alpha=alpha, beta=beta, share=share, warm_up=1, ramp=ramp, shape=(9, 4)).double()
    last, soft = {}, {}
    for epoch, first, (logits, rows, targets) in steps_of_epochs(loss):
        for c in range(4) if first else ():
            of_class = sorted((p, row) for (row, k), p in last.items() if k == c)
            wanted = round(share * min((epoch - 1) / ramp, 1) * len(of_class)) - sum(k == c for _, k in soft)
            free = [(p, row) for p, row in of_class if (row, c) not in soft]
            soft |= {(row, c): p for p, row in free[: max(wanted, 0)]}
        total = 0.0
        for b, row in enumerate(rows.tolist()):
            for c, y in enumerate(targets[row].tolist()):
                x = logits[b, c].item()
                p = sigmoid(x)
                if y != -1:
                    total += bce(x, y)
                elif (row, c) in soft:
                    total += beta * bce(x, soft[row, c])
                else:
                    total -= alpha * bce(x, p)
                if y == -1:
                    last[row, c] = p
        found = loss(logits.requires_grad_(), targets[rows], rows)
        assert found.item() == pytest.approx(total, rel=1e-9)
    assert 5 < len(soft) == int((loss.soft >= 0).sum()) < len(last)
