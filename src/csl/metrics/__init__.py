"""Average precision, precision, recall, F1, attribute accuracy and cross-entropy from scores and tri-state labels.

Everywhere `scores` is [N, C], one score per image and class, larger meaning more likely. Only the order matters to
average precision, so logits and probabilities serve alike; a `threshold` is on the scale of the scores. They come as a
NumPy array of any float or integer dtype (memory-mapped too) or as a torch tensor of any dtype. `targets` is [N, C] of 1
(positive), 0 (negative) and -1 (un-annotated): a NumPy array, a torch tensor, or labels with `m[rows] -> int8 [B, C]`.
Those that have a `shape` and `m.T[classes] -> int8 [B, N]` as well, such as `csl.labels.LabelMatrix`, never become dense.

Un-annotated entries take no part in any number, except in `mean_average_precision(..., unannotated="negative")`. Bad
input raises `csl.errors.InputError`: shapes that do not match, targets other than 1, 0 and -1, a NaN among the scores of
annotated entries. Infinite scores are fine, they have an order.
"""

from csl.metrics.attributes import group_accuracy
from csl.metrics.bootstrap import average_precision_of_draws
from csl.metrics.estimated import estimated_average_precision, estimated_f1, estimated_mean_average_precision
from csl.metrics.known import KnownScores
from csl.metrics.likelihood import cross_entropy
from csl.metrics.ranking import average_precision, class_table, mean_average_precision
from csl.metrics.thresholds import averaged_scores, precision_recall_f1

__all__ = [
    "KnownScores", "average_precision", "average_precision_of_draws", "averaged_scores", "class_table", "cross_entropy",
    "estimated_average_precision", "estimated_f1", "estimated_mean_average_precision", "group_accuracy",
    "mean_average_precision", "precision_recall_f1",
]  # fmt: skip
