"""The class prior: the estimated frequency of each class, annotated or not (arXiv 2110.10955, section 3.3).

A temporary model trained on annotated labels alone gives two estimates: the mean over its last epoch of sigmoid(train-mode
logits), which is the published one, and label-shift expectation maximisation on images that it was not trained on. Both need
known negatives; without them a prior comes from the number of labels that an image has.
"""

from csl.prior.count import prior_by_count
from csl.prior.file import read_prior, read_prior_interval, write_prior
from csl.prior.mean import ClassPrior
from csl.prior.shift import PriorEstimate, estimate_prior, estimate_prior_interval

__all__ = [
    "ClassPrior",
    "PriorEstimate",
    "estimate_prior",
    "estimate_prior_interval",
    "prior_by_count",
    "read_prior",
    "read_prior_interval",
    "write_prior",
]
