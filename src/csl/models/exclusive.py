"""Networks whose classes exclude each other in groups: the values of an attribute, of which an image has one.

What such a network gives for a class k of a group is the logit of its softmax probability within the group,

    s_k = z_k - log sum_{j != k} exp z_j,    sigmoid(s_k) = exp z_k / sum_j exp z_j,

z the output of its last layer. So the sigmoid that makes scores of logits gives the softmax everywhere: in metrics, thresholds,
the class prior, and an exported file. In a group of two s is the difference.
"""

from collections.abc import Mapping, Sequence
from math import log

import torch
from torch import Tensor, nn

from csl.errors import InputError
from csl.labels.class_set import several_values

Groups = Sequence[slice]


def exclusive_groups(groups: Mapping[str, slice] | None) -> list[slice]:
    """The groups of several classes; a class of its own excludes no other."""
    return list(several_values(groups).values())


def exclusive_logits(z: Tensor, groups: Groups) -> Tensor:
    """Logits [B, C] in which those of each group are of softmax probabilities, in float32 or float64.

    Args:
        z: [B, C] the output of the last layer.
        groups: slices of two or more classes that do not overlap.
    """
    z = z if z.dtype == torch.float64 else z.float()
    if not groups:
        return z
    parts, end = [], 0
    for group in sorted(groups, key=lambda group: group.start):
        parts += [z[:, end : group.start], _in_group(z[:, group])]
        end = group.stop
    return torch.cat([*parts, z[:, end:]], 1)


def _in_group(z):
    """[B, K] z_k less the log of the sum of the others' exponentials."""
    # All but the greatest have p <= 1/2, where log(1 - p) is safe; for it the others are summed without it.
    log_p = (z - z.logsumexp(1, keepdim=True)).clamp(max=-log(2))
    greatest = torch.arange(z.shape[1], device=z.device) == z.argmax(1, keepdim=True)  # [B, K]
    without = torch.where(greatest, torch.finfo(z.dtype).min, z).logsumexp(1, keepdim=True)  # [B, 1]
    return torch.where(greatest, z - without, log_p - torch.log1p(-log_p.exp()))


def make_exclusive(model: nn.Module, groups: Groups) -> None:
    """Make a network of `csl.models.create_model` give the logits of softmax probabilities in these groups.

    Raises:
        InputError: the network ends in several layers, whose outputs it averages.
    """
    if not groups:
        return
    layers = [layer for layer in model.modules() if hasattr(layer, "exclusive")]
    if len(layers) != 1:
        raise InputError(
            f"--group_loss softmax: the network ends in {len(layers)} layers for its classes, expected one"
        )
    layers[0].exclusive = tuple(groups)
