"""The class prior from a number that a person counts on a few photos: how many labels an image has."""

import numpy as np
import torch
from torch import Tensor

from csl.errors import InputError

HIGHEST = 0.95
"""Prior of a class at most, as long as fewer of its labels are known: none of a model of all images is 1."""


def prior_by_count(positives: np.ndarray, images: int, labels_per_image: float) -> Tensor:
    """The prior of classes of which positives alone are known, each as likely to be noted as another.

    The labels that an image has are shared out over the classes as the known positives are: pi_c = K n_c / sum(n). With one
    positive an image that is drawn from those it has, it holds on average (Cole et al., arXiv 2106.09708, train so).

    Args:
        positives: int [C] the known positives n of each class.
        images: N.
        labels_per_image: K, the mean number of labels that an image has, known or not.

    Returns:
        float32 [C], never below the known share of a class.

    Raises:
        InputError: no positive is known, or more of them an image than `labels_per_image`.
    """
    known = positives.sum() / max(images, 1)
    if not known:
        raise InputError("--labels_per_image: no positive label is known in the training images, expected some")
    if labels_per_image < known:
        raise InputError(
            f"--labels_per_image {labels_per_image:g}: {known:.4g} labels an image are known already; expected as many or more"
        )
    prior = np.minimum(labels_per_image * positives / positives.sum(), HIGHEST)
    return torch.from_numpy(np.maximum(prior, positives / images)).float()
