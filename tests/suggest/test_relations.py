"""The map from other classes to a class: its formula, what it does not look at, and that it learns."""

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from csl.losses import PartialSelectiveLoss
from csl.suggest import relations as module
from csl.suggest.relations import Relations, fit_relations

IGNORE = PartialSelectiveLoss("ignore", gamma_neg=0.0, gamma_unann=0.0)


def drawn(context, groups=None):
    torch.manual_seed(0)
    relations = Relations(6, torch.tensor(context), groups)
    with torch.no_grad():
        for parameter in relations.parameters():
            parameter.normal_()
    return relations, torch.randn(4, 6), torch.randint(-1, 2, (4, 6)).to(torch.int8)


def test_the_formula():
    context = [0, 2, 3, 5]
    relations, z, y = drawn(context, {"neck": slice(2, 5), "hat": slice(5, 6)})
    a, b = relations.a.double(), relations.b.double()
    u, v, w = relations.scores.double(), relations.there.double(), relations.absent.double()
    attribute = [0, 1, 2, 2, 2, 5]
    for i in range(4):
        for c in range(6):
            t = a[c] * z[i, c] + b[c]
            for m, j in enumerate(context):
                if attribute[j] != attribute[c]:
                    t = (
                        t
                        + u[c, m] * torch.tanh(z[i, j].double() / 3)
                        + v[c, m] * (y[i, j] == 1)
                        + w[c, m] * (y[i, j] == 0)
                    )
            assert abs(t.item() - relations(z, y)[i, c].item()) < 1e-4


def test_a_class_is_not_told_its_own_label_nor_those_of_its_attribute():
    relations, z, y = drawn(range(6), {"neck": slice(2, 5)})
    before = relations(z, y)
    for c, own in ((0, [0]), (2, [2, 3, 4]), (4, [2, 3, 4])):
        for label in (1, 0, -1):
            other = y.clone()
            other[:, own] = label
            assert torch.equal(relations(z, other)[:, c], before[:, c])
    assert not torch.equal(relations(z, 1 - y.clamp_min(0)), before)


def test_it_learns_what_goes_with_what(monkeypatch):
    """Class 1 is there where class 0 is not, which the scores do not say."""
    rng = np.random.default_rng(0)
    truth = rng.random((1200, 3)) < 0.3
    truth[:, 1] = ~truth[:, 0]
    y = torch.from_numpy(np.where(rng.random(truth.shape) < 0.5, truth, -1).astype(np.int8))
    z = torch.from_numpy(rng.normal(size=truth.shape).astype(np.float32))
    monkeypatch.setattr(module, "LEAST_STEPS", 200)
    relations = fit_relations(z[:800], y[:800], IGNORE, 0)
    t = relations(z[800:], y[800:])[:, 1].detach().numpy()
    told, unknown = y[800:, 0].numpy() != -1, y[800:, 1].numpy() == -1
    asked = told & unknown
    assert average_precision_score(truth[800:, 1][asked], t[asked]) > 0.95
    assert average_precision_score(truth[800:, 1][asked], z[800:, 1].numpy()[asked]) < 0.85


def test_of_many_classes_it_looks_at_those_of_which_the_most_is_known(monkeypatch):
    monkeypatch.setattr(module, "CONTEXT", 2)
    monkeypatch.setattr(module, "LEAST_STEPS", 1)
    y = torch.full((8, 5), -1, dtype=torch.int8)
    y[:6, 3], y[:4, 1], y[:2, 0] = 1, 0, 1
    assert fit_relations(torch.zeros(8, 5), y, IGNORE, 0).context.tolist() == [1, 3]
