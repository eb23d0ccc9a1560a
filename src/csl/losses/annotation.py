"""The annotation loss: the likelihood of what is annotated and of what is not.

In class c let pi = P(y = 1), e1 = P(annotated | y = 1) and e0 = P(annotated | y = 0), of which the labels show
e1 = n1 / (N pi) and e0 = n0 / (N (1 - pi)), with n1 positives and n0 negatives known among N images. If within a class
annotation depends on y alone, an entry that is not annotated has, at the logit s with p = sigmoid(s), the likelihood

    p (1 - e1) + (1 - p) (1 - e0) = (1 - e0) (1 - p) (1 + exp(s - delta)),    delta = log((1 - e0) / (1 - e1)),

and its loss, up to a constant, and the gradient of that are

    loss(s) = softplus(s) - softplus(s - delta),    loss'(s) = sigmoid(s) - sigmoid(s - delta).

So the entry counts as a positive with the probability sigmoid(s - delta) that the network itself gives a label that nobody
wrote down: one step of expectation maximisation. Delta 0 (annotated at random) leaves it out, as mode "ignore" of CSL;
delta infinite (every positive is annotated) makes it a negative. With e0 = 0 it is learning from positive and unlabelled data
(Elkan and Noto, 2008). Known entries have the cross-entropy, a negative times p ** gamma_neg without gradient through it.
"""

import torch
from torch import Tensor

from csl.errors import InputError
from csl.losses.partial import PartialLoss, by_target, softplus

MOST_ANNOTATED = 1 - 1e-4
"""The largest e1 and e0: an estimate of 1 would make a missing label a proof."""


class AnnotationLoss(PartialLoss):
    """Cross-entropy over annotated entries and the annotation model's likelihood over the others, summed.

    Args:
        gamma_neg: focusing exponent of known negatives, 0 or more.
        prior: [C] in (0, 1), pi: the frequency of each class among all images.
        known: [2, C] in [0, 1], n1 / N and n0 / N: the share of images in which the class is known to be there, and known
            not to be. None with a prior leaves un-annotated entries out.

    Attributes:
        delta: [C] log((1 - e0) / (1 - e1)).

    Raises:
        InputError: a value out of range, or one of `prior` and `known` without the other; in `forward`, shapes that do not fit
            or a label outside {1, 0, -1}.
    """

    def __init__(self, gamma_neg: float = 0.0, prior: Tensor | None = None, known: Tensor | None = None):
        super().__init__()
        if not gamma_neg >= 0:
            raise InputError(f"--gamma_neg {gamma_neg:g}: expected 0 or more")
        if (prior is None) != (known is None):
            raise InputError("AnnotationLoss: expected the class prior and the shares of known labels, both or neither")
        self.gamma_neg = gamma_neg
        self.register_buffer("prior", None if prior is None else torch.as_tensor(prior).float(), persistent=False)
        delta = None if self.prior is None else annotation_delta(*annotated_shares(prior, known)).float()
        self.register_buffer("delta", delta, persistent=False)

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        negative = softplus(s)
        if self.gamma_neg:
            negative = negative * torch.sigmoid(s.detach()) ** self.gamma_neg
        unknown = torch.zeros_like(s) if self.delta is None else softplus(s) - softplus(s - self.delta)
        return by_target(targets, softplus(-s), negative, unknown).sum()


def annotated_shares(prior: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """e1 and e0: the shares of a class's positives and of its negatives that are annotated.

    Args:
        prior: [C] in (0, 1), the frequency of each class.
        known: [2, C] the shares of images in which a class is known to be there, and known not to be.

    Returns:
        Two float64 tensors [C] in [0, `MOST_ANNOTATED`]; 0 where nothing is known.

    Raises:
        InputError: shapes that do not fit, or a value out of range.
    """
    prior, known = torch.as_tensor(prior).double(), torch.as_tensor(known).double()
    if prior.dim() != 1 or known.shape != (2, len(prior)):
        raise InputError(f"prior {tuple(prior.shape)} and known {tuple(known.shape)}: expected [C] and [2, C]")
    if not ((prior >= 0) & (prior <= 1)).all() or not ((known >= 0) & (known <= 1)).all():
        raise InputError("prior and shares of known labels: expected numbers in [0, 1]")
    # The frequency is at least the share that is known to have the class, and at most what is not known to lack it.
    there, absent = known
    prior = torch.minimum(torch.maximum(prior, there), 1 - absent)
    shares = [
        (part / whole.clamp_min(1e-12)).clamp(0, MOST_ANNOTATED)
        for part, whole in ((there, prior), (absent, 1 - prior))
    ]
    return shares[0], shares[1]


def annotation_delta(of_positives: Tensor, of_negatives: Tensor) -> Tensor:
    """[C] delta = log((1 - e0) / (1 - e1)) of e1 and e0, both [C] in [0, 1)."""
    return torch.log1p(-of_negatives) - torch.log1p(-of_positives)
