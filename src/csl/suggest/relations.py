"""What the other classes of an image say about a class: a linear map from scores and known labels to each class.

Of an image with the logits z and the known labels y in {1, 0, -1} the logit of class c is

    t_c = a_c z_c + b_c + sum_j U_cj tanh(z_j / 3) + V_cj [y_j = 1] + W_cj [y_j = 0],

j over the classes of other attributes and of no attribute, never c itself: the answer is not among what it is asked from. It is
trained on known entries alone, as any loss of `csl.losses` has it, so that "skirt" known to be there says "trousers" are not.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from csl.machine.draws import generator

CONTEXT = 512
"""Most classes that the map looks at, those of which the most is known: with 9,605 classes it has 15 million numbers."""

EPOCHS, LEAST_STEPS, BATCH, RATE, L2 = 15, 400, 512, 1e-2, 1e-4
"""Of its training by Adam; L2 is the weight of the sum of squared U, V, W and a - 1."""


class Relations(nn.Module):
    """The map for C classes, which looks at M of them.

    Args:
        num_classes: C.
        context: int64 [M], the classes that it looks at.
        groups: for attributes, the slice of classes of each: of those only the other attributes are looked at.
    """

    def __init__(self, num_classes: int, context: Tensor, groups: Mapping[str, slice] | None = None):
        super().__init__()
        attribute = torch.arange(num_classes)  # [C] the first class of its attribute, or the class itself
        for group in (groups or {}).values():
            attribute[group] = group.start
        others = (attribute[:, None] != attribute[context]).float()  # [C, M]
        self.register_buffer("context", context)
        self.register_buffer("others", others)
        self.a, self.b = nn.Parameter(torch.ones(num_classes)), nn.Parameter(torch.zeros(num_classes))
        self.scores, self.there, self.absent = (nn.Parameter(torch.zeros_like(others)) for _ in range(3))  # U, V, W

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Logits z [B, C] and known labels y [B, C] in {1, 0, -1} to logits t [B, C]."""
        known = y[:, self.context]
        seen = torch.cat([torch.tanh(z[:, self.context] / 3), (known == 1).float(), (known == 0).float()], 1)  # [B, 3M]
        weight = torch.cat([self.others * part for part in (self.scores, self.there, self.absent)], 1)  # [C, 3M]
        return self.a * z + self.b + seen @ weight.T

    def penalty(self) -> Tensor:
        """The sum of squares that L2 weighs, scalar."""
        return sum(part.square().sum() for part in (self.scores, self.there, self.absent, self.a - 1))


def fit_relations(
    z: Tensor, y: Tensor, criterion: nn.Module, seed: int, groups: Mapping[str, slice] | None = None
) -> Relations:
    """Train the map by Adam under a cosine.

    Args:
        z: float32 [N, C], logits of images by a network that was not trained on them.
        y: int8 [N, C] in {1, 0, -1}.
        criterion: (logits [B, C], targets [B, C]) to a sum over the images.
        seed: of the order of the images.
        groups: as `Relations`.
    """
    told = (y != -1).sum(0)
    context = torch.argsort(told, descending=True, stable=True)[:CONTEXT].sort().values
    relations = Relations(y.shape[1], context, groups)
    epochs = max(EPOCHS, -(-LEAST_STEPS // -(-len(z) // BATCH)))
    optimizer = torch.optim.Adam(relations.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(z) // BATCH))
    rng = generator("order", seed, 1)
    for _ in range(epochs):
        for rows in torch.from_numpy(rng.permutation(len(z))).split(BATCH):
            loss = criterion(relations(z[rows], y[rows]), y[rows]) / len(rows) + L2 * relations.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return relations.eval()
