"""csl.metrics.cross_entropy against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from csl import InputError
from csl.metrics import cross_entropy


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_it_is_the_log_loss_of_what_is_annotated(kind, monkeypatch):
    monkeypatch.setattr("csl.metrics.arrays.CHUNK_ENTRIES", 20)  # several blocks of rows
    rng = np.random.default_rng(0)
    p, targets = rng.random((30, 7)), rng.integers(-1, 2, (30, 7)).astype(np.int8)
    known = targets != -1
    assert cross_entropy(kind(p), kind(targets)) == pytest.approx(log_loss(targets[known], p[known]), rel=1e-12)
    assert np.isnan(cross_entropy(kind(p), kind(np.full_like(targets, -1))))
    assert 27 < cross_entropy(kind(np.zeros((1, 1))), kind(np.ones((1, 1), np.int8))) < 28  # finite where p is 0
    with pytest.raises(InputError, match="expected 1, 0 or -1"):
        cross_entropy(kind(p), kind(targets + 2))
