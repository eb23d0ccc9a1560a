"""Linear heads on the features of a frozen network, trained in seconds."""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csl.machine.draws import generator
from csl.models.exclusive import exclusive_logits
from csl.models.heads import Classifier

EPOCHS, LEAST_STEPS, BATCH, RATE = 12, 400, 512, 0.07
"""Of the training of a head: few images are seen oftener, until there have been enough steps. The learning rate is `RATE` over
the square root of the number of features, as each step moves a logit by all of them."""


class Standardised(nn.Module):
    """Features [N, F] less their mean and over their deviation, both [F], of the images that a head is trained on."""

    def __init__(self, features: Tensor):
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("deviation", features.std(0, correction=0) + 1e-3)  # a feature may be the same everywhere

    def forward(self, features: Tensor) -> Tensor:
        """[N, F] -> [N, F]."""
        return (features - self.mean) / self.deviation

    def folded_into(self, head: nn.Linear) -> tuple[Tensor, Tensor]:
        """Weight [C, F] and bias [C] that give on the features themselves what `head` gives on the standardised ones."""
        weight = head.weight.detach() / self.deviation
        return weight, head.bias.detach() - weight @ self.mean


def fit_heads(
    x: Tensor, y: Tensor, criterion: nn.Module, l2: Sequence[float], seed: int, groups: Sequence[slice] = ()
) -> list[Classifier]:
    """Linear heads from features to logits, one for each weight of L2, from zero by AdamW under one cycle of the rate.

    They are trained side by side on the same batches, each as if it were alone: a product of matrices for all of them is
    faster, and AdamW looks at each weight by itself.

    Args:
        x: float32 [N, F], standardised.
        y: int8 [N, C] in {1, 0, -1}.
        criterion: (logits [B, C], targets [B, C]) to a sum over the images, as the losses of `csl.losses` are.
        l2: [L] weights of the sum of squared weights of a head, beside the mean over the images.
        seed: of the order of the images.
        groups: of classes that exclude each other (`csl.models.exclusive`).
    """
    weight = torch.zeros(len(l2) * y.shape[1], x.shape[1], requires_grad=True)  # [L C, F]
    bias = torch.full((len(l2) * y.shape[1],), -2.0, requires_grad=True)  # [L C]: most labels are absent
    decay = torch.tensor(l2).repeat_interleave(y.shape[1])  # [L C]

    def forward(x):
        return F.linear(x, weight, bias).unflatten(1, (len(l2), -1)).transpose(0, 1)  # [L, B, C]

    def penalty():
        return decay @ weight.square().sum(1)

    descend([weight, bias], forward, penalty, RATE / x.shape[1] ** 0.5, x, y, [criterion] * len(l2), seed, groups)
    heads = zip(weight.detach().chunk(len(l2)), bias.detach().chunk(len(l2)), strict=True)
    return [linear_head(w, b, groups) for w, b in heads]


def descend(
    parameters: Sequence[Tensor],
    forward: Callable[[Tensor], Tensor],
    penalty: Callable[[], Tensor],
    rate: float,
    x: Tensor,
    y: Tensor,
    criteria: Sequence[nn.Module],
    seed: int,
    groups: Sequence[slice] = (),
) -> None:
    """Train heads side by side by AdamW under one cycle of the rate.

    Args:
        parameters: of all of the heads.
        forward: features [B, F] to the logits [L, B, C] of L heads.
        penalty: () to what is added to the mean over the images of the losses, a scalar.
        rate: the highest learning rate.
        criteria: L losses, of which each head has a copy of its own, for one that changes with the epoch or remembers images.
        x, y, seed, groups: as `fit_heads` takes them.
    """
    steps_per_epoch = -(-len(x) // BATCH)
    epochs = max(EPOCHS, -(-LEAST_STEPS // steps_per_epoch))
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps_per_epoch, pct_start=0.1)
    rng, criteria = generator("order", seed, 0), [copy.deepcopy(one) for one in criteria]
    for epoch in range(epochs):
        for one in criteria:
            if hasattr(one, "begin_epoch"):
                one.begin_epoch(epoch + 1)
        for rows in torch.from_numpy(rng.permutation(len(x))).split(BATCH):
            logits = forward(x[rows])  # [L, B, C]
            logits = exclusive_logits(logits.flatten(0, 1), groups).view(logits.shape)
            loss = penalty()
            for one, each in zip(criteria, logits, strict=True):
                loss = loss + one(each, y[rows], *[rows] * getattr(one, "by_image", False)) / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def linear_head(weight: Tensor, bias: Tensor, groups: Sequence[slice] = ()) -> Classifier:
    """The last layer of a network with this weight [C, F] and bias [C], whose groups of classes exclude each other."""
    head = Classifier(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    head.exclusive = tuple(groups)
    return head.eval()


def folds_of(images: int, folds: int, seed: int) -> Tensor:
    """int64 [N] the fold of each image, of equal sizes but for one."""
    return torch.from_numpy(generator("held out", seed).permutation(images) % folds)


def cross_fitted(
    x: Tensor,
    y: Tensor,
    create: Callable[[Tensor], nn.Module],
    l2: Sequence[float],
    seed: int,
    fold: Tensor,
    groups: Sequence[slice] = (),
    fit: Callable[..., list[nn.Module]] = fit_heads,
) -> Tensor:
    """Logits [L, N, C] of every image by heads that were not trained on it.

    Args:
        x, y, l2, seed, groups: as `fit` takes them.
        create: (labels [n, C] of the images that heads are trained on) to their loss.
        fold: [N], each of which is left out by one head for each weight of L2.
        fit: trains them, `fit_heads` or another with its arguments.
    """
    logits = torch.empty(len(l2), *y.shape)
    for number in fold.unique():
        out = fold == number
        heads = fit(x[~out], y[~out], create(y[~out]), l2, seed, groups)
        with torch.no_grad():
            logits[:, out] = torch.stack([head(x[out]) for head in heads])
    return logits
