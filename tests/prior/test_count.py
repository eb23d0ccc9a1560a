"""csl.prior.prior_by_count: the prior of positives alone, by the labels that an image has."""

import numpy as np
import pytest
import torch

from csl import InputError
from csl.labels import LabelMatrix
from csl.labels.simulation import simulate
from csl.prior import prior_by_count


def test_it_is_the_frequency_where_one_positive_an_image_is_known():
    """Classes of 2 to 60 % that come independently: an image with many labels shows the same one of them as any other."""
    rng = np.random.default_rng(0)
    frequency = rng.uniform(0.02, 0.6, 30)
    truth = (rng.random((200_000, 30)) < frequency).astype(np.int8)
    known = simulate(LabelMatrix.from_dense(truth), "single_positive", None, np.random.default_rng(1))
    prior = prior_by_count(known.counts().positives, len(truth), truth.sum(1).mean())
    assert abs(prior.sum().item() - truth.sum(1).mean()) < 1e-3
    # A class of an image is the likelier to be drawn the fewer others there are, which is about the same for all classes.
    np.testing.assert_allclose(prior, frequency, rtol=0.1)


def test_it_never_is_less_than_what_is_known_nor_certain():
    prior = prior_by_count(np.array([900, 50, 0]), 1000, 3.0)
    assert prior.dtype == torch.float32
    torch.testing.assert_close(prior, torch.tensor([0.95, 3 * 50 / 950, 0.0]))
    torch.testing.assert_close(prior_by_count(np.array([990, 10]), 1000, 1.0), torch.tensor([0.99, 0.01]))


def test_what_cannot_be_is_refused():
    with pytest.raises(
        InputError, match="--labels_per_image 1: 1.5 labels an image are known already; expected as many"
    ):
        prior_by_count(np.array([100, 50]), 100, 1.0)
    with pytest.raises(InputError, match="--labels_per_image: no positive label is known"):
        prior_by_count(np.array([0, 0]), 100, 1.0)
