"""A head with a hidden layer: it learns what no linear head does, and a probe takes it there."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from csl.labels import LabelMatrix
from csl.losses import PartialSelectiveLoss
from csl.losses.groups import GroupLoss
from csl.losses.options import LossOptions
from csl.training import linear, probe
from csl.training.hidden import fit_hidden


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(linear, "LEAST_STEPS", 60)


def problem(images, seed):
    """Features far from zero, and a class that is there where both of them are above or both below their means."""
    x = torch.randn(images, 2, generator=torch.Generator().manual_seed(seed))
    return x * torch.tensor([3, 0.2]) + torch.tensor([5, -1]), (x[:, :1] * x[:, 1:] > 0).to(torch.int8)


def test_a_probe_takes_a_hidden_layer_where_it_tells_more():
    x, truth = problem(600, seed=0)
    truth[::3] = -1
    known_alone, labels = LossOptions(loss="csl", partial_loss_mode="ignore"), LabelMatrix.from_dense(truth.numpy())
    found = probe.probe(x, labels, 0, print, given=known_alone, hidden=True)
    assert found.best.head == "hidden"
    assert found.best.score > 1.2 * max(one.score for one in found.candidates if one.head == "linear")
    x, truth = problem(300, seed=1)
    assert roc_auc_score(truth, found.head(x)) > 0.85  # 0.5 by chance, and by a linear head


def test_the_same_seed_gives_the_same_heads_and_l2_makes_them_smaller():
    x, truth = problem(200, seed=0)
    before = torch.get_rng_state()
    heads, again = (fit_hidden(x, truth, PartialSelectiveLoss("ignore"), (1e-4, 1e-1), seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(heads, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert heads[0].hidden_layer.weight.norm() > heads[1].hidden_layer.weight.norm()


def test_classes_that_exclude_each_other_have_probabilities_that_sum_to_one():
    x, truth = problem(90, seed=0)
    y, groups = torch.cat([truth, 1 - truth], 1), [slice(0, 2)]
    (head,) = fit_hidden(x, y, GroupLoss(groups, 2), [1e-4], seed=0, groups=groups)
    torch.testing.assert_close(torch.sigmoid(head(x)).sum(1), torch.ones(90))
