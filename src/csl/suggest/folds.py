"""What K-fold heads on a network's frozen features and the image's other known labels say about each class.

The network's own scores of the images that it was trained on say little: it has learned their labels by heart. Here linear
heads are trained on its features, and a map (`csl.suggest.relations`) on their scores and the known labels, K times, each time
without one part of the images; an image is scored by those that were trained without it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from csl.errors import InputError
from csl.labels.class_set import several_values
from csl.losses import PartialSelectiveLoss
from csl.losses.annotation import AnnotationLoss
from csl.metrics import cross_entropy
from csl.prior import estimate_prior
from csl.suggest.relations import Relations, fit_relations
from csl.training.annotation import shares_of
from csl.training.linear import Standardised, fit_heads, folds_of

L2 = (3e-3, 1e-2, 3e-2)
"""Of the heads, to choose from by the cross-entropy of known labels out of fold."""


@dataclass(frozen=True)
class Folded:
    """Heads and maps of K folds.

    Attributes:
        rows: int64 [n] of the images that they were trained on, rising.
        fold: int64 [n] of each the fold, whose head and map were trained without it.
        standardised: of the features.
        heads, relations: K.
        prior: float32 [C] the estimated frequency of each class; None where no negative is known.
        delta: float32 [C] log odds that a label is known, of positives over negatives (`csl.losses.annotation`): an unknown
            entry is there with the probability sigmoid(logit - delta). 0 without a prior.
    """

    rows: np.ndarray
    fold: np.ndarray
    standardised: Standardised
    heads: list[nn.Linear]
    relations: list[Relations]
    prior: Tensor | None
    delta: Tensor

    @torch.no_grad()
    def logits(self, rows: np.ndarray, features: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the heads, and of the maps on them, float32 [B, C] both.

        Of an image that they were trained on: of those of its fold; of any other the mean of all.

        Args:
            rows: int64 [B].
            features: float32 [B, F].
            known: int8 [B, C] in {1, 0, -1}.
        """
        x = self.standardised(features)
        z = torch.stack([head(x) for head in self.heads])  # [K, B, C]
        t = torch.stack([of_fold(one, known) for of_fold, one in zip(self.relations, z, strict=True)])
        places = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        inside = np.flatnonzero(self.rows[places] == rows)
        fold = self.fold[places[inside]]
        both = z.mean(0), t.mean(0)
        for chosen, every in zip(both, (z, t), strict=True):
            chosen[inside] = every[fold, inside]
        return both


def fit_folds(
    rows: np.ndarray,
    features: Tensor,
    y: Tensor,
    folds: int,
    seed: int,
    groups: Mapping[str, slice] | None = None,
    say: Callable[[str], None] = lambda line: None,
    l2: tuple[float, ...] = L2,
) -> Folded:
    """Train the heads and the maps.

    Args:
        rows: int64 [n] of the images, rising.
        features: float32 [n, F] of them.
        y: int8 [n, C] in {1, 0, -1}, what is known of them.
        folds: K.
        seed: of the folds and of the order of the images.
        groups: for attributes, the slice of classes of each.
        say: prints one line.
        l2: weights of L2 of the heads to choose from.

    Raises:
        InputError: fewer than two images a fold, or no positive known.
    """
    if len(rows) < 2 * folds:
        raise InputError(f"--folds {folds}: {len(rows)} images with known labels, expected {2 * folds} or more")
    if not (y == 1).any():
        raise InputError("no positive label is known in these images, expected some to learn from")
    with_negatives = bool((y == 0).any())
    of_known = PartialSelectiveLoss("ignore" if with_negatives else "negative", gamma_neg=0.0, gamma_unann=0.0)
    standardised, fold = Standardised(features), folds_of(len(rows), folds, seed)
    x = standardised(features)
    z, heads = torch.empty(len(l2), *y.shape), []
    for k in range(folds):
        out = fold == k
        heads.append(fit_heads(x[~out], y[~out], of_known, l2, seed))
        with torch.no_grad():
            z[:, out] = torch.stack([head(x[out]) for head in heads[k]])
    loss = [cross_entropy(torch.sigmoid(one).numpy(), y.numpy()) for one in z]
    best = int(np.argmin(loss))
    z = z[best]
    prior, delta, create = None, torch.zeros(y.shape[1]), lambda part: of_known
    if with_negatives:
        prior = estimate_prior(z, y)
        delta = AnnotationLoss(prior=prior, known=shares_of(y)).delta

        def create(part):
            return AnnotationLoss(prior=prior, known=shares_of(part))

    relations = [fit_relations(z[fold != k], y[fold != k], create(y[fold != k]), seed, groups) for k in range(folds)]
    folded = Folded(rows, fold.numpy(), standardised, [of_fold[best] for of_fold in heads], relations, prior, delta)
    _, t = folded.logits(rows, features, y)
    after = cross_entropy(torch.sigmoid(t).numpy(), y.numpy())
    say(
        f"{folds} folds of the {len(rows):,} images with known labels, {features.shape[1]:,} features, L2 {l2[best]:g}: "
        f"cross-entropy of known labels {loss[best]:.4f} by the image, {after:.4f} by its other labels as well"
    )
    return folded


def probabilities(t: Tensor, delta: Tensor, known: Tensor, groups: Mapping[str, slice] | None = None) -> Tensor:
    """How likely each unknown entry is there, float32 [B, C]; those of an attribute's values that are left sum to one.

    Args:
        t: float32 [B, C] logits of `Folded`.
        delta: [C] of `Folded`.
        known: int8 [B, C] in {1, 0, -1}.
        groups: for attributes, the slice of classes of each; a class of its own is a question of its own.
    """
    p = torch.sigmoid(t - delta)
    for group in several_values(groups).values():
        left = p[:, group] * (known[:, group] == -1)
        p[:, group] = left / left.sum(1, keepdim=True).clamp_min(1e-12)
    return p
