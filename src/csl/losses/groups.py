"""Cross-entropy over the values of exclusive attributes, beside another loss for all other classes.

For an attribute with the values 1 to K let p be the softmax probabilities and A the values that its labels leave open: those
labelled 1 if there are any, else those that are not labelled 0. The loss is the likelihood of A,

    -log sum_{k in A} p_k,

which is cross-entropy where the value is known, less where it is known in part ("not red"), and nothing where it is unknown.
If the annotation model gives the share e_k of the images with value k of which the attribute is annotated, an unknown one has

    -log sum_k p_k (1 - e_k),

which is constant where all shares are equal. Known in full, a term has the gradient p - y: each of its entries is that of a
sigmoid's cross-entropy, so that it weighs as K entries of another loss do.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csl.errors import InputError
from csl.losses.targets import check_targets
from csl.ops.selective_formula import wide


class GroupLoss(nn.Module):
    """The likelihood of what is known of each attribute, and another loss of the other classes, summed.

    Args:
        groups: slices of the classes of an attribute, two or more each.
        classes: C.
        other: the loss of the classes outside of the groups; None where there are none.
        prior: [C] the class prior, kept for a resumed run.
        annotated: [C] in [0, 1), the share of a value's images that is annotated; None leaves unknown attributes out.

    Attributes:
        rest: the classes outside of the groups, in their order.

    Raises:
        InputError: no loss for the classes outside; in `forward`, shapes that do not fit or a label outside {1, 0, -1}.
    """

    def __init__(
        self,
        groups: list[slice],
        classes: int,
        other: nn.Module | None = None,
        prior: Tensor | None = None,
        annotated: Tensor | None = None,
    ):
        super().__init__()
        self.groups, self.other = groups, other
        self.rest = outside(groups, classes)
        if bool(self.rest) != (other is not None):
            raise InputError(
                f"GroupLoss: {len(self.rest)} classes are in no group, expected a loss for them, and for them alone"
            )
        # On the device: a list would be copied there in each step.
        self.register_buffer("_rest", torch.tensor(self.rest), persistent=False)
        self.register_buffer("prior", prior, persistent=False)
        missed = None if annotated is None else torch.log1p(-torch.as_tensor(annotated)).float()
        self.register_buffer("missed", missed, persistent=False)  # [C] log(1 - e)

    @property
    def by_image(self) -> bool:
        """Whether the other loss remembers images, and `forward` takes their rows."""
        return getattr(self.other, "by_image", False)

    def begin_epoch(self, epoch: int) -> None:
        """Training begins an epoch, from 1."""
        if hasattr(self.other, "begin_epoch"):
            self.other.begin_epoch(epoch)

    def forward(self, logits: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """Logits [B, C], of softmax probabilities in each group, and targets [B, C] in {1, 0, -1} to the summed loss."""
        check_targets(logits, targets)
        loss = logits.new_zeros((), dtype=torch.float32)
        if self.other is not None:
            loss = loss + self.other(logits[:, self._rest], targets[:, self._rest], *rows)
        with torch.autocast(logits.device.type, enabled=False):
            for group in self.groups:
                loss = loss + self._likelihood(wide(logits[:, group]), targets[:, group], group)
        return loss

    def _likelihood(self, s, y, group):
        """Minus the log-likelihood of labels [B, K] in a group of logits [B, K]."""
        log_p = F.logsigmoid(s)
        positive, unknown = y == 1, (y == -1).all(1)  # [B, K], [B]
        is_open = torch.where(positive.any(1, keepdim=True), positive, y == -1)  # A
        known = is_open.any(1) & ~unknown  # labels that rule out every value say nothing
        # A sum over rows that count, as `[known]` would be one, but a GPU would be asked for their number.
        likelihood = log_p.masked_fill(~is_open & known[:, None], -torch.inf).logsumexp(1).masked_fill(~known, 0).sum()
        if self.missed is not None:
            missed = (log_p + self.missed[group]).logsumexp(1)
            likelihood = likelihood + missed.masked_fill(~unknown, 0).sum()
        return -likelihood


def outside(groups: list[slice], classes: int) -> list[int]:
    """The classes of C that are in none of the groups."""
    inside = {c for group in groups for c in range(group.start, group.stop)}
    return [c for c in range(classes) if c not in inside]
