"""From scores to decisions: calibrated probabilities, and the thresholds of classes and attributes."""

from csl.decisions.decisions import Decisions
from csl.decisions.from_scores import decide, undecidable
from csl.decisions.thresholds import Goal

__all__ = ["Decisions", "Goal", "decide", "undecidable"]
