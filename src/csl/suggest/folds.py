"""Linear heads on a network's frozen features, each of which scores the images that it was not trained on.

The network's own scores of its training images say little: it has learned their labels by heart.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from csl.errors import InputError
from csl.losses import PartialSelectiveLoss
from csl.metrics import cross_entropy
from csl.suggest.material import Material
from csl.training.linear import Standardised, fit_heads, folds_of

L2 = (3e-3, 1e-2, 3e-2)
"""To choose from by the cross-entropy of known labels out of fold."""


@dataclass(frozen=True)
class Folded:
    """Heads of K folds.

    Attributes:
        rows: int64 [n] of the images that the heads were trained on, rising.
        fold: int64 [n] the fold of each, whose head was not trained on it.
        standardised: of the features.
        heads: K.
    """

    rows: np.ndarray
    fold: np.ndarray
    standardised: Standardised
    heads: list[nn.Linear]

    @torch.no_grad()
    def logits(self, rows: np.ndarray, features: Tensor) -> Tensor:
        """float32 [B, C] of images [B] by features [B, F]: of the head of their fold, else the mean of all heads."""
        every = torch.stack([head(self.standardised(features)) for head in self.heads])  # [K, B, C]
        places = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        inside = self.rows[places] == rows
        chosen = every.mean(0)
        chosen[inside] = every[self.fold[places[inside]], np.flatnonzero(inside)]
        return chosen


def fold(material: Material) -> tuple[Folded, Tensor, Tensor]:
    """Train heads on the material's images, or on a sample of them.

    Returns:
        The heads, and of the images `rows` that they were trained on the logits out of fold, float32 [n, C], and the known
        labels, int8 [n, C].

    Raises:
        InputError: fewer images than folds, or no positive or no label known.
    """
    options = material.options
    rows, features, y = material.sample()
    if len(rows) < 2 * options.folds:
        raise InputError(f"{material.annotations.source}: {len(rows)} images, expected {2 * options.folds} or more")
    mode = "ignore" if (y == 0).any() else "negative"
    loss = PartialSelectiveLoss(mode, gamma_neg=0.0, gamma_unann=0.0)
    standardised = Standardised(features)
    x, number = standardised(features), folds_of(len(rows), options.folds, options.seed)
    heads = [fit_heads(x[number != k], y[number != k], loss, L2, options.seed) for k in range(options.folds)]
    losses = []
    for choice in range(len(L2)):
        one = Folded(rows, number.numpy(), standardised, [of_fold[choice] for of_fold in heads])
        logits = one.logits(rows, features)
        losses.append((cross_entropy(torch.sigmoid(logits).numpy(), y.numpy()), choice, one, logits))
    _, choice, best, logits = min(losses, key=lambda each: each[:2])
    material.say(f"{options.folds} heads on {features.shape[1]:,} features of {len(rows):,} images, L2 {L2[choice]:g}")
    return best, logits, y
