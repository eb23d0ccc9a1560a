"""What K-fold heads on a network's frozen features and the image's other known labels say about each class.

The network's own scores of the images that it was trained on say little: it has learned their labels by heart. Here linear
heads are trained on its features, and a map (`csl.suggest.relations`) on their scores and the known labels, K times, each time
without one part of the images; an image is scored by those that were trained without it. Scores of earlier runs
(`csl.suggest.earlier`) take the place of the features: then a head is no more than their calibration.

Few images teach a map more noise than sense. Heads or maps: those count that rank the known labels better, out of fold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from csl.decisions.calibration import calibrate
from csl.errors import InputError
from csl.labels.class_set import several_values
from csl.losses import PartialSelectiveLoss
from csl.losses.annotation import AnnotationLoss, annotated_shares, annotation_delta
from csl.metrics import average_precision, cross_entropy
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
        odds: float32 [C] log odds that a positive is known, over those of a negative (e1 / e0 of `csl.losses.annotation`): a
            known entry is there with the probability sigmoid(logit + odds). 0 where only one of both is known.
        delta: float32 [C] the same of being unknown: an unknown entry is there with the probability sigmoid(logit - delta).
        by_map: whether the maps count, or the heads alone.
    """

    rows: np.ndarray
    fold: np.ndarray
    standardised: Callable[[Tensor], Tensor]
    heads: list[nn.Module]
    relations: list[Relations]
    prior: Tensor | None
    odds: Tensor
    delta: Tensor
    by_map: bool = True

    def among_all(self, rows: np.ndarray, features: Tensor, known: Tensor) -> Tensor:
        """Logits that count, of heads or maps, among all images, known or not, float32 [B, C]. Arguments as `logits`."""
        z, t = self.logits(rows, features, known)
        return t if self.by_map else z - self.odds

    @torch.no_grad()
    def logits(self, rows: np.ndarray, features: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the heads, among known entries, and of the maps on them, among all; float32 [B, C] both.

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
    collected: Tensor | None = None,
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
        collected: int8 [n, C] the labels that say how labels became known, which answers to suggestions do not; None for y.

    Raises:
        InputError: fewer than two images a fold, or no positive known.
    """
    fold, with_negatives = _divided(rows, y, folds, seed)
    of_known = PartialSelectiveLoss("ignore" if with_negatives else "negative", gamma_neg=0.0, gamma_unann=0.0)
    standardised = Standardised(features)
    x = standardised(features)
    z, heads = torch.empty(len(l2), *y.shape), []
    for k in range(folds):
        out = fold == k
        heads.append(fit_heads(x[~out], y[~out], of_known, l2, seed))
        with torch.no_grad():
            z[:, out] = torch.stack([head(x[out]) for head in heads[k]])
    loss = [cross_entropy(torch.sigmoid(one).numpy(), y.numpy()) for one in z]
    best = int(np.argmin(loss))
    say(
        f"{folds} folds of the {len(rows):,} images with known labels, {features.shape[1]:,} features, L2 {l2[best]:g}: "
        f"cross-entropy of known labels {loss[best]:.4f}"
    )
    heads = [of_fold[best] for of_fold in heads]
    return _with_maps(rows, features, y, fold, standardised, heads, seed, groups, say, collected)


def fit_calibrated(
    rows: np.ndarray,
    logits: Tensor,
    y: Tensor,
    folds: int,
    seed: int,
    groups: Mapping[str, slice] | None = None,
    say: Callable[[str], None] = lambda line: None,
    collected: Tensor | None = None,
) -> Folded:
    """The same of scores by networks that were not trained on the images: a head is the calibration of each class.

    Args:
        logits: float32 [n, C], which take the place of features.
        rows, y, folds, seed, groups, say, collected: as `fit_folds`.

    Raises:
        InputError: as `fit_folds`.
    """
    fold, _ = _divided(rows, y, folds, seed)
    heads = [Calibrated(logits[fold != k], y[fold != k]) for k in range(folds)]
    say(f"{folds} folds of the {len(rows):,} images with known labels, scored by runs that were not trained on them")
    return _with_maps(rows, logits, y, fold, nn.Identity(), heads, seed, groups, say, collected)


class Calibrated(nn.Module):
    """Logits s [B, C] of any networks to those of known entries, a_c s + b_c (`csl.decisions.calibration`).

    Args:
        s: float32 [n, C], of images that the networks were not trained on.
        y: int8 [n, C] in {1, 0, -1}.
    """

    def __init__(self, s: Tensor, y: Tensor):
        super().__init__()
        self.slope, self.bias = torch.ones(y.shape[1]), torch.zeros(y.shape[1])
        there, absent = (y == 1).sum(0), (y == 0).sum(0)  # [C]
        both = (there > 0) & (absent > 0)
        if both.any():
            odds = torch.where(both, torch.log(there.clamp_min(1) / absent.clamp_min(1)), 0.0)
            found = calibrate(s.numpy(), y.numpy(), np.zeros(len(both)), odds.numpy(), both.numpy())
            self.slope, self.bias = torch.from_numpy(found.slope).float(), torch.from_numpy(found.bias).float()

    def forward(self, s: Tensor) -> Tensor:
        """[B, C] -> [B, C]."""
        return self.slope * s + self.bias


def _divided(rows, y, folds, seed):
    """The fold of each image, int64 [n], and whether any negative is known."""
    if len(rows) < 2 * folds:
        raise InputError(f"--folds {folds}: {len(rows)} images with known labels, expected {2 * folds} or more")
    if not (y == 1).any():
        raise InputError("no positive label is known in these images, expected some to learn from")
    return folds_of(len(rows), folds, seed), bool((y == 0).any())


def _with_maps(rows, features, y, fold, standardised, heads, seed, groups, say, collected):
    """Heads that are there already, with maps on them, and the choice between both."""
    with torch.no_grad():
        every = torch.stack([head(standardised(features)) for head in heads])  # [K, n, C]
    z = every[fold, torch.arange(len(rows))]
    told = y if collected is None else collected
    there, absent = (told == 1).any(0), (told == 0).any(0)
    prior, odds, delta = None, torch.zeros(y.shape[1]), torch.zeros(y.shape[1])
    of_known = PartialSelectiveLoss("ignore" if (y == 0).any() else "negative", gamma_neg=0.0, gamma_unann=0.0)
    if absent.any():
        prior = estimate_prior(z, told)
        shares = annotated_shares(prior, shares_of(told))
        odds = torch.where(there & absent, torch.log(shares[0] / shares[1]), 0.0).float()
        delta = annotation_delta(*shares).float()

    relations = []
    for k in range(len(heads)):
        inside = fold != k
        loss = of_known if prior is None else AnnotationLoss(prior=prior, known=shares_of(told[inside]))
        relations.append(fit_relations(z[inside], y[inside], loss, seed, groups))
    folded = Folded(rows, fold.numpy(), standardised, heads, relations, prior, odds, delta)
    _, t = folded.logits(rows, features, y)
    by_image, by_labels = (_precision(logits, y) for logits in (z, t + odds))
    folded = replace(folded, by_map=not by_labels < by_image)
    say(
        f"AP of known labels out of fold, all in one order: {by_image:.2f} by the image, {by_labels:.2f} by its other labels "
        f"as well: scores are by {'both' if folded.by_map else 'the image alone'}"
    )
    return folded


def _precision(logits, y):
    """AP in percent of all known entries in one order, as suggestions are; NaN where all are alike."""
    known = y != -1
    return 100 * float(average_precision(logits[known][:, None], y[known][:, None])[0])


def probabilities(t: Tensor, delta: Tensor, known: Tensor, groups: Mapping[str, slice] | None = None) -> Tensor:
    """How likely each unknown entry is there, float32 [B, C]; those of an attribute's values that are left sum to one.

    Args:
        t: float32 [B, C] logits of `Folded.among_all`.
        delta: [C] of `Folded`.
        known: int8 [B, C] in {1, 0, -1}.
        groups: for attributes, the slice of classes of each; a class of its own is a question of its own.
    """
    p = torch.sigmoid(t - delta)
    for group in several_values(groups).values():
        left = p[:, group] * (known[:, group] == -1)
        p[:, group] = left / left.sum(1, keepdim=True).clamp_min(1e-12)
    return p
