"""A head with a hidden layer on the features of a frozen network, in place of a linear one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from csl.machine.precision import cpu_bf16
from csl.models.heads import HiddenLayer
from csl.training.linear import descend

RATE = 2e-3


def fit_hidden(
    x: Tensor, y: Tensor, criterion: nn.Module, l2: Sequence[float], seed: int, groups: Sequence[slice] = ()
) -> list[HiddenLayer]:
    """Heads with a hidden layer from features to logits, one for each weight of L2; arguments are those of `fit_heads`.

    All start from the same weights. Where the processor computes in bfloat16, products of matrices do.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)  # of the first weights, and of dropout
        heads = [HiddenLayer(x.shape[1], y.shape[1]) for _ in l2]
        for head in heads:
            head.load_state_dict(heads[0].state_dict())
            nn.init.constant_(head.last_layer.bias, -2.0)  # most labels are absent
        low = torch.autocast("cpu", torch.bfloat16, enabled=cpu_bf16() is not None)

        def forward(rows):
            with low:
                return torch.stack([head(rows) for head in heads]).float()  # [L, B, C]

        def penalty():
            squares = [
                head.hidden_layer.weight.square().sum() + head.last_layer.weight.square().sum() for head in heads
            ]
            return torch.tensor(l2) @ torch.stack(squares)

        parameters = [parameter for head in heads for parameter in head.parameters()]
        descend(parameters, forward, penalty, RATE, x, y, [criterion] * len(l2), seed, groups)
    for head in heads:
        head.last_layer.exclusive = tuple(groups)
    return [head.eval().requires_grad_(False) for head in heads]
