"""Heads of folds: no image is scored by one that was trained on it."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from csl import InputError
from csl.suggest import relations
from csl.suggest.folds import fit_folds, probabilities
from csl.training import linear


@pytest.fixture(scope="module")
def nonsense():
    """240 images of 200 random features, whose labels have nothing to do with them, and heads of three folds."""
    torch.manual_seed(0)
    x, y = torch.randn(240, 200), (torch.rand(240, 2) < 0.5).to(torch.int8)
    with pytest.MonkeyPatch.context() as patch:
        for module in (linear, relations):
            patch.setattr(module, "LEAST_STEPS", 150)
        return x, y, fit_folds(np.arange(0, 480, 2), x, y, 3, 0, l2=(1e-4,))


def test_labels_that_were_learned_by_heart_are_not_seen(nonsense):
    x, y, folded = nonsense
    z, _ = folded.logits(folded.rows, x, y)
    by_heart = folded.heads[0](folded.standardised(x)).detach()
    for c in range(2):
        assert 0.35 < roc_auc_score(y[:, c], z[:, c]) < 0.65
        trained_on = folded.fold != 0
        assert roc_auc_score(y[trained_on, c], by_heart[trained_on, c]) > 0.95


def test_of_another_image_the_mean_of_all_folds_counts(nonsense):
    x, y, folded = nonsense
    rows = np.array([0, 1, 2, 1000])  # 1 and 1000 are none of theirs
    z, t = folded.logits(rows, x[:4], y[:4])
    every = torch.stack([head(folded.standardised(x[:4])) for head in folded.heads]).detach()  # [K, 4, C]
    for place in range(4):
        mine = every[folded.fold[rows[place] // 2], place] if place in (0, 2) else every[:, place].mean(0)
        assert torch.allclose(z[place], mine)
    both = torch.stack([one(k, y[:4]) for one, k in zip(folded.relations, every, strict=True)]).detach()
    assert torch.allclose(t[1], both[:, 1].mean(0))


def test_the_values_of_an_attribute_that_are_left_sum_to_one():
    known = torch.tensor([[-1, -1, -1, -1], [-1, 0, -1, 1]], dtype=torch.int8)
    t, delta = torch.tensor([[0.0, 1.0, 2.0, 1.0], [0.0, 5.0, 2.0, 1.0]]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    p = probabilities(t, delta, known, {"neck": slice(0, 3), "hat": slice(3, 4)})
    free = torch.sigmoid(t)
    assert torch.allclose(p[0, :3], free[0, :3] / free[0, :3].sum())
    assert torch.allclose(p[1, [0, 2]], free[1, [0, 2]] / free[1, [0, 2]].sum())
    assert p[1, 1] == 0
    assert torch.allclose(p[:, 3], torch.tensor([0.5, 0.5]))


def test_too_little_to_learn_from_is_one_line():
    x, y = torch.randn(5, 3), torch.zeros(5, 2, dtype=torch.int8)
    with pytest.raises(InputError, match="--folds 3: 5 images with known labels, expected 6 or more"):
        fit_folds(np.arange(5), x, y, 3, 0)
    with pytest.raises(InputError, match="no positive label is known"):
        fit_folds(np.arange(5), x, y, 2, 0)
