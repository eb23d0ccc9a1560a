"""A probe: a frozen network, whose features are made once, and the head that learns the most from partial labels.

Which loss that is, the class prior, and the weight of L2 are chosen on the training images alone, by what is known of
them: `FOLDS` heads each score the images that they were not trained on, and the estimated average precision of these scores
(`csl.metrics.estimated_average_precision`) decides. A head takes seconds, so that all of them can be tried.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from csl.errors import InputError
from csl.labels import LabelMatrix
from csl.losses.annotation import annotated_shares, annotation_delta
from csl.losses.groups import outside
from csl.losses.options import LossOptions, settings_of
from csl.machine.files import replacing
from csl.metrics import cross_entropy, estimated_average_precision, mean_average_precision
from csl.models.exclusive import Groups
from csl.models.heads import Classifier, HiddenLayer, last_layers
from csl.predict.features import with_features
from csl.predict.scoring import show_bar
from csl.prior import PriorEstimate, estimate_prior_interval
from csl.training.annotation import shares_of
from csl.training.hidden import fit_hidden
from csl.training.linear import Standardised, cross_fitted, fit_heads, folds_of

FOLDS = 3
L2 = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
EXPONENTS = (0.0, 1.0)
"""Of known negatives, to choose from."""

HIDDEN_L2 = (1e-4, 1e-3)
"""For a hidden layer, which has dropout beside it."""

SAME = 1e-3
"""Median of |delta| up to which heads with the annotation loss are the same as those that leave un-annotated entries out."""

LOSSES: dict[str, dict[str, Any]] = {
    "annotation": {"loss": "annotation"},
    "ignore": {"loss": "csl", "partial_loss_mode": "ignore"},
    # As published: the most likely, and those of frequent classes, are left out.
    "selective": {"loss": "csl", "partial_loss_mode": "selective", "gamma_unann": 4.0, "likelihood_topk": 5,
                  "prior_threshold": 0.5},
    "negative": {"loss": "csl", "partial_loss_mode": "negative", "gamma_unann": 0.0},
}  # fmt: skip
"""The losses to choose from, each with its settings beside `gamma_neg`."""

KNOWN_ALONE = LossOptions(loss="csl", partial_loss_mode="ignore", gamma_neg=0.0)
"""Cross-entropy of known labels, whose heads give the first estimate of the prior; one of `LOSSES`."""

OF_KNOWN_LABELS = ("annotation", "ignore")
"""The losses that differ on exclusive attributes."""


@dataclass(frozen=True)
class Candidate:
    """A loss and a weight of L2 for the head.

    Attributes:
        loss: one of `LOSSES`, or the name of another that was given.
        gamma_neg: exponent of known negatives; None for that of the loss that was given.
        l2: weight of the sum of squared weights.
        head: "linear" or "hidden".
        score: the criterion on out-of-fold scores, in percent; NaN where it is undefined.
    """

    loss: str
    gamma_neg: float | None
    l2: float
    head: str = "linear"
    score: float = float("nan")

    @property
    def settings(self) -> dict[str, Any]:
        """Of `LossOptions`."""
        return LOSSES[self.loss] | {"gamma_neg": self.gamma_neg}


@dataclass(frozen=True)
class Probed:
    """What a probe found out.

    Attributes:
        head: that of the best candidate, trained on all images, for features as the network makes them.
        best: the candidate.
        candidates: all of them, with their scores.
        estimate: the class prior by label-shift EM on out-of-fold scores; None without a known negative or with a prior.
        published: float32 [C] the published prior, the mean prediction of heads that leave the unknown out; None likewise.
        predicted: float32 [C] the mean prediction of `head`.
    """

    head: Classifier | HiddenLayer
    best: Candidate
    candidates: list[Candidate]
    estimate: PriorEstimate | None
    published: Tensor | None
    predicted: Tensor

    @property
    def prior(self) -> Tensor | None:
        """float32 [C] the class prior, without its interval."""
        return None if self.estimate is None else self.estimate.prior


def last_layer(model: nn.Module, name: str, flag: str = "--probe") -> Classifier:
    """The linear layer from the features of a network to its logits.

    Raises:
        InputError: the network has another head than one linear layer; it names the flag.
    """
    layers = last_layers(model)
    if len(layers) != 1:
        raise InputError(
            f"{flag}: {name} ends in {len(layers)} linear layers for its classes, expected one (--head linear)"
        )
    return layers[0]


def features_of(
    model: nn.Module,
    layer: Classifier,
    loader: torch.utils.data.DataLoader,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    progress: str | None,
) -> tuple[Tensor, np.ndarray]:
    """What the last layer of a network takes in for each image of a loader that can be read.

    Returns:
        float32 [N, F], and int64 [N] the rows of the images.
    """
    parts = [
        (taken.float().cpu(), batch.indices.numpy())
        for batch, _, taken in with_features(model, layer, loader, device, amp_dtype, progress)
    ]
    if not parts:
        return torch.empty(0, layer.in_features), np.empty(0, np.int64)
    features, rows = zip(*parts, strict=True)
    return torch.cat(features), np.concatenate(rows)


def kept_features(
    path: Path, weights: dict[str, Tensor], about: str, make: Callable[[], tuple[Tensor, np.ndarray]]
) -> tuple[tuple[Tensor, np.ndarray], bool]:
    """Features of a network from the file at `path`, or made and kept there; and whether they were there.

    Args:
        path: an .npz file, replaced where it holds those of another network or of other images.
        weights: of the network, by whose sums they are known again.
        about: what else they depend on: images, their size, and so on.
        make: makes them.
    """
    digest = hashlib.sha256(about.encode("utf-8", "surrogateescape"))
    for name, value in weights.items():
        digest.update(f"{name}{tuple(value.shape)}{value.detach().double().sum().item()!r}".encode())
    key = digest.hexdigest()
    if path.exists():
        try:
            with np.load(path) as kept:
                if str(kept["key"]) == key:
                    return (torch.from_numpy(kept["features"]), kept["rows"]), True
        except (OSError, ValueError, KeyError, EOFError):  # a file of another program, or a broken one: made anew
            pass
    features, rows = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, key=key, features=features.numpy(), rows=rows)
    return (features, rows), False


def probe(
    features: Tensor,
    labels: LabelMatrix,
    seed: int,
    say: Callable[[str], None],
    groups: Sequence[slice] = (),
    exponents: Sequence[float] = EXPONENTS,
    given: LossOptions | None = None,
    hidden: bool = False,
    collected: LabelMatrix | None = None,
    prior: Tensor | None = None,
) -> Probed:
    """Choose a loss and a weight of L2 for a linear head, and train it; or one with a hidden layer and the same loss.

    Args:
        features: float32 [N, F] of the training images.
        labels: [N, C] what is known of them.
        seed: of the folds and of the order of the images.
        say: prints one line.
        groups: of classes that exclude each other, of which the head gives softmax probabilities.
        exponents: of known negatives, to choose from.
        given: the loss of the head, so that there is the weight of L2 alone to choose; None for any of `LOSSES`.
        hidden: whether a hidden layer may be better.
        collected: [N, C] the labels without answers to questions, from which the prior, the shares that are annotated and the
            criterion are estimated; None for `labels`.
        prior: [C] the class prior where it is known without negatives; None to estimate it from them.

    Raises:
        InputError: no positive is known, or fewer images than folds.
    """
    y = torch.from_numpy(labels.to_dense())  # [N, C]
    if not (y == 1).any():
        raise InputError("--probe: no positive label is known in the training images, expected some")
    if len(y) < 2 * FOLDS:
        raise InputError(f"--probe: {len(y)} training images, expected {2 * FOLDS} or more")
    unasked = y if collected is None else torch.from_numpy(collected.to_dense())
    if not ((unasked == 1).any() and (unasked == 0).any()):  # the answers are all that is known on one side
        unasked = y
    known = None if unasked is y else shares_of(unasked)
    standardised = Standardised(features)
    x, fold = standardised(features), folds_of(len(y), FOLDS, seed)
    estimate = predicted = known_alone = None
    if prior is None and (y == 0).any():
        estimate, predicted, known_alone = priors_by_heads(x, y, seed, fold, groups, unasked)
        prior = estimate.prior
        say(
            f"probe: prior by label-shift EM on out-of-fold scores, {prior.sum():.2f} labels an image (mean prediction "
            f"{predicted.sum():.2f}, annotated {(y == 1).float().sum(1).mean():.2f})"
        )
    tried, losses = [], {}
    if given is not None:
        losses[given.loss, given.gamma_neg] = given
    else:
        for name, gamma in _names(
            prior is not None, bool((y == 0).any()), bool(outside(list(groups), y.shape[1])), exponents
        ):
            losses[name, gamma] = replace(LossOptions(), **Candidate(name, gamma, 0.0).settings)
    for (name, gamma), options in tqdm(losses.items(), desc="heads", leave=False, disable=not show_bar()):
        if options == KNOWN_ALONE and known_alone is not None:
            logits = known_alone
        else:
            logits = cross_fitted(x, y, _creating(options, prior, predicted, groups, known), L2, seed, fold, groups)
        tried += [
            Candidate(name, gamma, l2, score=_score(one, unasked, prior)) for l2, one in zip(L2, logits, strict=True)
        ]
    best = max(tried, key=lambda one: one.score)
    create = _creating(losses[best.loss, best.gamma_neg], prior, predicted, groups, known)
    if hidden:
        logits = cross_fitted(x, y, create, HIDDEN_L2, seed, fold, groups, fit_hidden)
        scores = [_score(one, unasked, prior) for one in logits]
        tried += [replace(best, head="hidden", l2=l2, score=s) for l2, s in zip(HIDDEN_L2, scores, strict=True)]
        say(f"probe: {max(scores):.2f} with a hidden layer, {best.score:.2f} without")
        best = max(tried, key=lambda one: one.score)
    (head,) = (fit_hidden if best.head == "hidden" else fit_heads)(x, y, create(y), [best.l2], seed, groups)
    mean = torch.sigmoid(head(x)).mean(0).detach()
    first = head.hidden_layer if best.head == "hidden" else head
    weight, bias = standardised.folded_into(first)
    first.load_state_dict({"weight": weight, "bias": bias})
    by = "mAP with un-annotated as negative" if prior is None else "estimated mAP"
    of_loss = {one.loss: max(other.score for other in tried if other.loss == one.loss) for one in tried}
    say(f"probe: {by} on out-of-fold scores: " + ", ".join(f"{loss} {score:.2f}" for loss, score in of_loss.items()))
    of_negatives = "" if best.gamma_neg is None else f"exponent {best.gamma_neg:g} of known negatives, "
    say(f"probe: {best.loss}, {of_negatives}{best.head} head, L2 {best.l2:g}")
    return Probed(head, best, tried, estimate, predicted, mean)


def write_candidates(path: Path, candidates: list[Candidate]) -> None:
    """Write the candidates and their scores as a CSV, the best first."""
    with replacing(path) as temporary:
        pd.DataFrame(candidates).sort_values("score", ascending=False).to_csv(temporary, index=False)


def priors_by_heads(
    x: Tensor, y: Tensor, seed: int, fold: Tensor, groups: Groups = (), unasked: Tensor | None = None
) -> tuple[PriorEstimate, Tensor, Tensor]:
    """The frequency of each class by label-shift EM on out-of-fold scores, and the published mean prediction.

    It is the mean, on the scale of logits, of two estimates: by the scores of heads that leave un-annotated entries out, and by
    those of heads with the annotation loss by the first estimate, which rank the images better. The second is lower; again and
    again it would get lower still, past the truth where few labels are known.

    Args:
        x: float32 [N, F], standardised.
        y: int8 [N, C] in {1, 0, -1}.
        seed: of the order of the images.
        fold: [N] the fold of each image.
        groups: of classes that exclude each other.
        unasked: int8 [N, C] labels without answers to questions, None for `y`: heads learn from the answers, but by which
            process labels are known is seen without them.

    Returns:
        The estimate with its interval; the published prior, float32 [C] in (0, 1); and the logits [L, N, C] of the heads that
        leave un-annotated entries out (`KNOWN_ALONE`), for each weight of L2.
    """
    unasked = y if unasked is None else unasked
    known = None if unasked is y else shares_of(unasked)
    known_alone = cross_fitted(x, y, _creating(KNOWN_ALONE, None, None, groups), L2, seed, fold, groups)
    best = min(known_alone, key=lambda one: cross_entropy(torch.sigmoid(one).numpy(), y.numpy()))
    first, predicted = estimate_prior_interval(best, unasked), torch.sigmoid(best).mean(0)
    if annotation_delta(*annotated_shares(first.prior, shares_of(unasked))).abs().median() < SAME:
        return first, predicted, known_alone
    by_first = _creating(LossOptions(loss="annotation", gamma_neg=0.0), first.prior, None, groups, known)
    logits = cross_fitted(x, y, by_first, L2, seed, fold, groups)
    second = estimate_prior_interval(max(logits, key=lambda one: _score(one, unasked, first.prior)), unasked)
    both = (torch.sigmoid((torch.logit(a) + torch.logit(b)) / 2) for a, b in zip(first, second, strict=True))
    return PriorEstimate(*both), predicted, known_alone


def _names(with_prior, with_negatives, others, exponents):
    """[(name, exponent)] to try, with a prior or without, with a known negative or without, and with classes outside of
    exclusive groups or without."""
    left_out = {"annotation": not with_prior, "ignore": not with_negatives}
    names = [name for name in LOSSES if not left_out.get(name)]
    if not others:
        names = OF_KNOWN_LABELS if with_prior else ["ignore"]
    of_negatives = exponents if with_negatives and others else (0.0,)
    return [(name, gamma) for name in names for gamma in of_negatives]


def _creating(options, prior, predicted, groups, known=None):
    """(labels of the images that are trained on) -> the loss; `known` [2, C] are other shares known than theirs."""
    used = predicted if options.partial_loss_mode == "selective" and predicted is not None else prior
    used = used if "prior" in settings_of(options.loss) else None
    return lambda y: options.create_loss(used, shares_of(y) if known is None else known, tuple(y.shape), groups)


def _score(logits, y, prior):
    """The criterion in percent."""
    if prior is None:
        return mean_average_precision(logits, y, unannotated="negative")
    return 100 * float(np.nanmean(estimated_average_precision(logits, y, prior)))
