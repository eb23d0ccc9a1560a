"""The order of `--for training`: near the threshold, few known positives, no copies."""

import numpy as np

from csl.suggest import training
from csl.suggest.training import teaching


def by_the_formula(p, classes, x, positives):
    """{entry: value}, entry by entry as the docstring has it."""
    x = x - x.mean(0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    value = {}
    for c in set(classes):
        left, taken = [i for i in range(len(p)) if classes[i] == c], []
        while left:
            worth = {i: p[i] * (1 - p[i]) * (1 - max([0, *(x[i] @ x[j] for j in taken)]) ** 4) for i in left}
            best = max(left, key=worth.get)
            value[best] = worth[best] / (1 + positives[c] + len(taken))
            left.remove(best)
            taken.append(best)
    return value


def test_the_order_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    p, classes, x = rng.random(40), rng.integers(0, 3, 40), rng.normal(size=(40, 5))
    positives = np.array([0, 3, 20])
    value = by_the_formula(p, classes, x, positives)
    assert teaching(p, classes, x, positives).tolist() == sorted(value, key=value.get, reverse=True)


def test_copies_of_a_photo_come_after_all_others_of_the_class(monkeypatch):
    p, classes = np.array([0.5, 0.5, 0.5, 0.1, 0.9]), np.zeros(5, int)
    x = np.eye(5)[[0, 0, 0, 1, 2]]
    order = teaching(p, classes, x.astype(np.float16), np.array([4]))
    assert order[0] == 0
    assert set(order[1:3]) == {3, 4}
    monkeypatch.setattr(training, "BLOCK", 2)
    assert sorted(teaching(p, classes, x, np.array([4]))) == [0, 1, 2, 3, 4]


def test_a_class_of_few_positives_is_asked_first_and_not_for_ever():
    p, classes, x = np.full(60, 0.5), np.repeat([0, 1], 30), np.random.default_rng(0).normal(size=(60, 400))
    order = classes[teaching(p, classes, x, np.array([0, 10]))]
    assert order[:5].tolist() == [0] * 5
    assert 5 < (order[:30] == 1).sum() < 15
