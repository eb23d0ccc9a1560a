"""Which evaluation of a run is the best, so that its weights become `best.ckpt`."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from csl import checkpoint
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.metrics import cross_entropy, estimated_mean_average_precision, mean_average_precision
from csl.predict.scoring import Scores
from csl.runs.folder import RunFolder
from csl.training import report
from csl.training.optim import contiguous_state

CHOICES = ("annotated", "estimated", "auto")
"""What `--select_by` may be."""

LIKELIER = 2.0
"""How many times likelier a label is to be known where its class is there, or is not, before annotation depends on it."""

WORDS = {
    "mAP": "the mAP on annotated entries",
    "mAP_estimated": "the estimated mAP",
    "mAP_negative": "the mAP with un-annotated as negative (no class has both a known positive and a known negative)",
    "cross_entropy": "the least cross-entropy on annotated entries (no class has positives and other labels)",
    None: "the last one (no label is known)",
}
"""What each criterion of `criterion` takes for the best evaluation."""


def criterion(labels: LabelMatrix) -> str | None:
    """The number that tells which of two evaluations on these labels is the better: the first that is defined.

    An mAP needs a class with positives and negatives. Without one it is NaN, or the same whatever the scores are.
    """
    counts = labels.counts()
    if ((counts.positives > 0) & (counts.negatives > 0)).any():
        return "mAP"
    if ((counts.positives > 0) & (counts.positives < len(labels))).any():
        return "mAP_negative"
    return "cross_entropy" if (counts.unannotated < len(labels)).any() else None


def not_estimated(labels: LabelMatrix, prior: Tensor | None) -> str | None:
    """Why there is no estimated mAP on these labels with this prior [C], None where there is one."""
    counts = labels.counts()
    if prior is None:
        return "no class prior"
    if not counts.unannotated.any():
        return "every label of the validation images is known"
    return None if counts.positives.any() else "no known positive among the validation images"


def choose(labels: LabelMatrix, prior: Tensor | None, select_by: str) -> tuple[str | None, str]:
    """The criterion of `best.ckpt`, and why in words.

    Args:
        labels: of the validation images.
        prior: [C] the frequency of each class, None without one.
        select_by: one of `CHOICES`; "auto" takes the estimated mAP where known negatives are missing, or where in the
            middle class a label is more than `LIKELIER` times as likely to be known with the class as without, or the
            other way round.

    Raises:
        InputError: "estimated" where there is no estimate.
    """
    off = not_estimated(labels, prior)
    if select_by == "estimated":
        if off:
            raise InputError(f"--select_by estimated: {off}, expected auto or annotated")
        return "mAP_estimated", "--select_by estimated"
    if select_by == "annotated" or off:
        return criterion(labels), "--select_by annotated" if select_by == "annotated" else off or ""
    counts, pi = labels.counts(), np.clip(np.asarray(prior.cpu(), float), 1e-6, 1 - 1e-6)
    both = (counts.positives > 0) & (counts.negatives > 0)
    if 2 * both.sum() < (counts.positives > 0).sum():
        return "mAP_estimated", "known negatives are missing"
    odds = np.log(counts.positives[both] / counts.negatives[both]) - np.log(pi / (1 - pi))[both]
    times = math.exp(np.median(np.abs(odds)))
    depends = f"{times:.2g} times likelier to be known on one side of its class than on the other (median; random is 1)"
    return "mAP_estimated" if times > LIKELIER else criterion(labels), f"a label is {depends}"


def validation_numbers(
    probabilities: np.ndarray, targets: np.ndarray, criterion: str | None, prior: Tensor | None = None
) -> dict[str, float]:
    """The mAPs in percent, and the cross-entropy where it is the criterion, of probabilities and targets [N, C].

    With a prior [C] the estimated mAP is one of them.
    """
    numbers = {
        "mAP": mean_average_precision(probabilities, targets),
        "mAP_negative": mean_average_precision(probabilities, targets, unannotated="negative"),
    }
    if prior is not None:
        numbers |= estimated_mean_average_precision(probabilities, targets, prior, draws=0)
    return numbers | ({"cross_entropy": cross_entropy(probabilities, targets)} if criterion == "cross_entropy" else {})


def rank(numbers: Mapping[str, float], criterion: str | None) -> float:
    """The greater the better; minus infinity where the criterion is NaN."""
    value = numbers.get(criterion, math.nan) if criterion else math.nan
    return -math.inf if math.isnan(value) else -value if criterion == "cross_entropy" else value


@dataclass
class Best:
    """The best evaluation of a run so far, whose weights are in `best.ckpt`.

    Attributes:
        run, say: of the run.
        val: the validation images.
        select_by: as `choose` takes it.
        prior: [C] the class prior of the loss; becomes None where no mAP is estimated.
        prior_source: where it is from, in words.
        networks: that are evaluated, by name.
        about: what `best.ckpt` says beside weights and results.
        results: of the best evaluation; {} before the first.
        scores: of the best network alone, [1, N, C], on rank 0; None if an earlier process had them.
    """

    run: RunFolder
    say: Callable[[str], None]
    val: Annotations
    select_by: str
    prior: Tensor | None
    prior_source: str
    networks: Mapping[str, nn.Module]
    about: Mapping[str, Any]
    results: dict[str, Any] = field(default_factory=dict)
    scores: Scores | None = None

    def __post_init__(self):
        self.criterion, why = choose(self.val.labels, self.prior, self.select_by)
        if off := not_estimated(self.val.labels, self.prior):
            self.prior = None
        self.say(f"estimated mAP: off ({off})" if off else f"best.ckpt: by {WORDS[self.criterion]} ({why})")

    def measured(self, scores: Scores) -> dict[str, dict[str, float]]:
        """{network: its `validation_numbers`}, of the scores of all networks [networks, N, C]."""
        targets = self.val.labels.select(scores.indices)  # [N, C]
        return {
            name: validation_numbers(probabilities, targets, self.criterion, self.prior)
            for name, probabilities in zip(self.networks, scores.probabilities, strict=True)
        }

    def keep(self, epoch: int, step: int, results: report.Results, scores: Scores | None) -> None:
        """Write `best.ckpt` on rank 0, which has the scores, if one of the networks is better than all before."""
        if self.prior is not None:
            self.say(report.estimated(results, self.prior_source))
        ranks = {name: rank(numbers, self.criterion) for name, numbers in results.items()}
        better = max(ranks, key=lambda name: (ranks[name], name == "ema"))
        if self.results and ranks[better] <= rank(self.results, self.criterion) and self.criterion is not None:
            return
        self.results = {"epoch": epoch, "step": step, "weights": better, **results[better]}
        if scores is not None:
            which = list(self.networks).index(better)
            self.scores = None  # first: memory may have no room for both
            self.scores = replace(scores, probabilities=scores.probabilities[which : which + 1].copy())
            weights = contiguous_state(self.networks[better])
            checkpoint.write(self.run.best, {"model": weights, **self.about, "best": self.results})

    def estimate(self, scores: Scores) -> dict[str, Any] | None:
        """For `results.json`: the estimated mAP of these scores with its interval, its prior, and what chose the weights."""
        if self.prior is None:
            return None
        targets = self.val.labels.select(scores.indices)
        numbers = estimated_mean_average_precision(scores.probabilities[0], targets, self.prior)
        source = self.prior_source.removeprefix(f"{self.run.path}{os.sep}")  # a run may move
        return numbers | {"prior": source, "best_by": self.criterion}

    def state_dict(self) -> dict[str, Any]:
        """The results, and which weights they are of."""
        return {"best": self.results, "best_weights": self.results.get("weights", "model")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.results = state["best"]
