"""What was decided for a network: the calibration and the thresholds that a checkpoint and an exported file hold."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from csl.decisions.calibration import logits
from csl.errors import InputError, shown
from csl.labels.class_set import several_values

FORMAT = "csl-decisions-1"

OWN, FEW, COMMON = "own", "few", "common"
"""What a threshold rests on: known labels of its own; few of them (`csl.decisions.thresholds.FEWEST`), so that it leans on the
other classes; or the common threshold, where no positive or no negative is known."""

UNSURE = "unsure"
"""The value of an attribute whose best one is too unlikely."""


@dataclass(frozen=True)
class Rows:
    """Thresholds of classes, or of attributes; each a list of as many.

    Attributes:
        slope, bias: of the calibration: probability = sigmoid(slope * logit(score) + bias).
        threshold: of calibrated probabilities.
        reached: what the threshold is estimated to reach of the goal, in [0, 1]; NaN where nothing
            is above it.
        low, high: its interval.
        basis: "own", "few" or "common".
    """

    slope: list[float]
    bias: list[float]
    threshold: list[float]
    reached: list[float]
    low: list[float]
    high: list[float]
    basis: list[str]

    def calibrated(self, scores: np.ndarray | float, rows: np.ndarray | slice | int = slice(None)) -> np.ndarray:
        """Scores in [0, 1] to calibrated probabilities, float64.

        Args:
            scores: [..., K]; with `rows`, of any shape that fits these.
            rows: which of the K each score is of.
        """
        return expit(np.asarray(self.slope)[rows] * logits(scores) + np.asarray(self.bias)[rows])


@dataclass(frozen=True)
class Decisions:
    """Calibrated probabilities and thresholds of a network with C classes.

    Attributes:
        goal: what the thresholds were chosen for, in words.
        shown: what the probabilities are of, in words: all images by the estimated prior, or as annotated.
        classes: of the C classes.
        prior: C frequencies that go with `shown`.
        common: the threshold of all classes together.
        images: how many it was decided on.
        attributes: of the best value of each attribute of several classes, by the share of its probability among all of them.
        names: of these attributes.
    """

    goal: str
    shown: str
    classes: Rows
    prior: list[float]
    common: float
    images: int
    attributes: Rows
    names: list[str]

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """Scores [..., C] in [0, 1] of the network to probabilities, of their dtype."""
        return self.classes.calibrated(scores).astype(scores.dtype)

    @property
    def thresholds(self) -> np.ndarray:
        """float64 [C] of calibrated probabilities."""
        return np.asarray(self.classes.threshold)

    def best_value(self, attribute: str, probabilities: np.ndarray) -> tuple[int, float, bool]:
        """Of calibrated probabilities [K] of the values of an attribute: the best, its probability, and whether it is sure."""
        row, best = self.names.index(attribute), int(probabilities.argmax())
        share = probabilities[best] / max(float(probabilities.sum()), 1e-12)
        sure = float(self.attributes.calibrated(share, row))
        return best, sure, sure > self.attributes.threshold[row]

    @property
    def raw_thresholds(self) -> np.ndarray:
        """float64 [C] the same of the network's own scores."""
        z = logits(self.thresholds)
        return expit((z - np.asarray(self.classes.bias)) / np.asarray(self.classes.slope))

    def line(self) -> str:
        """The decisions in one line."""
        basis = self.classes.basis
        few = ", ".join(
            f"{basis.count(kind)} {words}"
            for kind, words in (
                (FEW, "have few known labels"),
                (COMMON, "take the common one, for want of known labels"),
            )
            if kind in basis
        )
        unreached = sum(math.isnan(value) for value in self.classes.reached)
        few += f"{', ' if few else ''}{unreached} do not reach it" if unreached else ""
        low, high = min(self.classes.threshold), max(self.classes.threshold)
        return (
            f"thresholds of {len(basis)} classes for {self.goal}, {low:.2f} to {high:.2f} (common {self.common:.2f}"
            f"{'; ' if few else ''}{few}); probabilities {self.shown}"
        )

    def table(self, names: list[str]) -> pd.DataFrame:
        """A row for each class of these names, in the order of the network: what its threshold is and rests on."""
        columns = {name: getattr(self.classes, name) for name in ("threshold", "reached", "low", "high", "basis")}
        return pd.DataFrame({"class": names, "prior": self.prior, **columns})

    def to_plain(self) -> dict[str, Any]:
        """Numbers, texts and lists alone; what is NaN is None."""
        return {"format": FORMAT, **_without_nan(asdict(self))}

    @classmethod
    def from_plain(
        cls, values: object, place: str | Path, classes: int, groups: Mapping[str, slice] | None
    ) -> "Decisions | None":
        """What `to_plain` made, for a network of these classes and groups; None of anything that is not of this format.

        Raises:
            InputError: it is of this format, but damaged or of other classes.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            return None
        names = list(several_values(groups))
        try:
            found = cls(
                str(values["goal"]), str(values["shown"]), _rows(values["classes"], classes),
                _numbers(values["prior"], classes), float(values["common"]), int(values["images"]),
                _rows(values["attributes"], len(names)), [str(name) for name in values["names"]],
            )  # fmt: skip
            if found.names != names:
                raise ValueError(f"attributes {shown(found.names)}, expected {shown(names)}")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f"{place}: its decisions cannot be read ({reason}); validate.py --calibrate makes them anew"
            ) from None
        return found


def _rows(values, count):
    numbers = {name: _numbers(values[name], count) for name in ("slope", "bias", "threshold", "reached", "low", "high")}
    basis = [str(kind) for kind in values["basis"]]
    if len(basis) != count or not set(basis) <= {OWN, FEW, COMMON}:
        raise ValueError(f"basis of {len(basis)}, expected {count} of {OWN}, {FEW} and {COMMON}")
    if not all(math.isfinite(number) for name in ("slope", "bias", "threshold") for number in numbers[name]):
        raise ValueError("a slope, bias or threshold that is not finite")
    return Rows(**numbers, basis=basis)


def _numbers(values, count):
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ValueError(f"found {shown(values)}, expected {count} numbers")
    return [math.nan if value is None else float(value) for value in values]


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
