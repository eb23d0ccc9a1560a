"""Heads of folds: no image is scored by one that was trained on it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from csl import InputError
from csl.metrics import cross_entropy
from csl.suggest import relations
from csl.suggest.folds import fit_calibrated, fit_folds, probabilities
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


@pytest.mark.parametrize("by_map", [True, False])
def test_heads_or_maps_whichever_rank_the_known_labels_better(by_map, monkeypatch):
    """What is known of class 0 says all of class 1, which scores do not; or good scores of a few images, and a map of noise."""
    monkeypatch.setattr(relations, "LEAST_STEPS", 60)
    rng, said = np.random.default_rng(0), []
    truth = rng.random((300, 3) if by_map else (40, 30)) < (0.4 if by_map else 0.2)
    truth[:, 1] = ~truth[:, 0] if by_map else truth[:, 1]
    scores = torch.from_numpy(np.float32((0.1 if by_map else 3) * truth - 2 + rng.normal(size=truth.shape)))
    y = torch.from_numpy(np.where(rng.random(truth.shape) < 0.6, truth, -1).astype(np.int8))
    folded = fit_calibrated(np.arange(len(y)), scores, y, 2, 0, say=said.append)
    z, t = folded.logits(folded.rows, scores, y)
    known = (y != -1).numpy()
    by_image, by_labels = (100 * average_precision_score(y[known], s[known].numpy()) for s in (z, t + folded.odds))
    assert folded.by_map == by_map == (by_labels > by_image)
    assert f"{by_image:.2f} by the image, {by_labels:.2f} by its other labels as well" in said[-1]
    assert said[-1].endswith("scores are by both" if by_map else "scores are by the image alone")
    assert torch.equal(folded.among_all(folded.rows, scores, y), t if by_map else z - folded.odds)


def test_a_known_label_is_held_against_what_known_labels_say(monkeypatch):
    """Nearly every positive is known and a tenth of the negatives: about half of what is known is there, of all a tenth."""
    for module in (linear, relations):
        monkeypatch.setattr(module, "LEAST_STEPS", 60)
    rng = np.random.default_rng(0)
    truth = rng.random((1500, 3)) < 0.1
    x = torch.from_numpy(np.float32(2.5 * truth + rng.normal(size=truth.shape)))
    y = torch.from_numpy(np.where(rng.random(truth.shape) < np.where(truth, 0.9, 0.1), truth, -1).astype(np.int8))
    fitted, known = fit_folds(np.arange(1500), x, y, 2, 0, l2=(1e-4,)), y != -1
    share = y[known].double().mean().item()
    for by_map in (True, False):
        logits = replace(fitted, by_map=by_map).among_all(fitted.rows, x, y)
        assert abs(torch.sigmoid(logits + fitted.odds)[known].mean().item() - share) < 0.15
        assert torch.sigmoid(logits)[known].mean().item() < share
        assert torch.sigmoid(logits).mean().item() < 0.25


def test_scores_of_networks_are_calibrated_and_mapped_out_of_fold(monkeypatch):
    monkeypatch.setattr(relations, "LEAST_STEPS", 20)
    rng, said = np.random.default_rng(0), []
    truth = rng.random((600, 3)) < 0.3
    sure = torch.from_numpy(np.float32(9 * truth + 3 * rng.normal(size=truth.shape)))  # too sure, and too high
    y = torch.from_numpy(np.where(rng.random(truth.shape) < 0.7, truth, -1).astype(np.int8))
    y[:, 2] = torch.where(y[:, 2] == 0, -1, y[:, 2])  # of which no negative is known
    folded = fit_calibrated(np.arange(600), sure, y, 3, 0, say=said.append)
    z, _ = folded.logits(folded.rows, sure, y)
    known = y[:, :2] != -1
    before, after = (cross_entropy(torch.sigmoid(s[:, :2]).numpy(), y[:, :2].numpy()) for s in (sure, z))
    assert after < 0.2 < 0.8 < before
    assert abs((torch.sigmoid(z[:, :2])[known].mean() - y[:, :2][known].float().mean()).item()) < 0.02
    for k, head in enumerate(folded.heads):  # each from the other folds
        mine = torch.from_numpy(folded.fold != k) & known[:, 0]
        oracle = LogisticRegression(C=1e6).fit(sure[mine, :1], y[mine, 0])
        assert head.slope[0].item() == pytest.approx(oracle.coef_[0, 0], rel=0.25)
    assert torch.isfinite(folded.among_all(folded.rows, sure, y)).all()
    assert "scored by runs that were not trained on them" in said[0]


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
