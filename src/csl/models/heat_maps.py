"""Where in an image a network saw a class.

- Heads that pool a feature map A [F, h, w]: class activation, relu(sum_f w_f A_f) with w_f the mean gradient of the logit over
  the map (Selvaraju et al., Grad-CAM, arXiv 1610.02391, eq. 1 and 2). Behind global average pooling and linear layers w is the
  row of the class in the last layer: the class activation map of Zhou et al., arXiv 1512.04150.
- ML-Decoder: the attention of the class's query to the places of the map, the mean over heads (Ridnik et al., arXiv
  2111.12933), as far as it is more than `EVEN` times that of a query to which all places are alike: it sums to one even where
  the query looks at nothing. Classes that share a query share the map.
- Networks of tokens (ViT): the attention A of the last block weighed by its gradient, the mean over heads of relu(dlogit/dA A)
  (Chefer et al., arXiv 2103.15679, eq. 5), from the token that is classified, or from all where they are averaged.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from csl.errors import InputError
from csl.models.backbones import TimmWithHead, normalised
from csl.models.fusion import FusedTResNet
from csl.models.heads import MLDecoderHead
from csl.models.tresnet import TResNet

EVEN = 1.1
"""Times equal attention to all places, over which a query of ML-Decoder is said to look at one."""

_OURS = (TResNet, FusedTResNet, TimmWithHead)


def has_heat_maps(model: nn.Module) -> bool:
    """Whether `heat_maps` knows a way into the network; an exported one has none."""
    return isinstance(model, _OURS) or (hasattr(model, "forward_features") and hasattr(model, "forward_head"))


def heat_maps(model: nn.Module, x: Tensor, classes: Sequence[int]) -> Tensor:
    """Where in an image a network saw each of some classes.

    Args:
        model: a network of `csl.models.create_model` in eval mode, fused or not.
        x: [1, 3, H, W] in [0, 1].
        classes: K of them.

    Returns:
        float32 [K, h, w] in [0, 1] on the places of the network's map, which covers the whole image: 1 where most was seen of
        the class, 0 everywhere where nothing spoke for it.

    Raises:
        InputError: a network that has neither a map nor tokens of places.
    """
    with torch.enable_grad():
        if not has_heat_maps(model):
            raise _no_map(model)
        if isinstance(model, _OURS):
            with torch.no_grad():
                features = model.features(x) if isinstance(model, TimmWithHead) else model.body(x)
            of = _queries if isinstance(model.head, MLDecoderHead) else _activation
            maps = of(model.head, features, classes)
        else:
            maps = _of_timm(model, x, classes)
    maps = _on_a_grid(maps, x.shape[-2:]).float()
    most = maps.amax((1, 2), keepdim=True)
    return (maps / most.where(most > 0, 1)).detach()


def _activation(head, features, classes):
    """Features [1, F, h, w], or channels last, to [K, h, w]: the head is told apart by what it takes."""
    features = features.float().detach().requires_grad_()
    logits = head(features)
    maps = []
    for c in classes:
        (gradient,) = torch.autograd.grad(logits[0, c], features, retain_graph=True)
        maps.append((gradient.mean((2, 3), keepdim=True) * features).sum(1)[0])
    return torch.stack(maps).relu()


def _queries(head, features, classes):
    """Features [1, F, h, w] to the attention [K, h, w] of the query of each class."""
    decoder, taken = head.decoder, []
    attention = decoder.layers[0].multihead_attn
    handle = attention.register_forward_pre_hook(lambda _, inputs: taken.append(inputs))
    try:
        with torch.no_grad():
            head(features)
            _, weights = attention(*taken[0], need_weights=True)  # [1, Q, h w], the mean over heads
    finally:
        handle.remove()
    of_query = decoder.duplicate_pooling.shape[2]
    chosen = weights[0, [c // of_query for c in classes]]
    return (chosen * chosen.shape[1] - EVEN).relu().reshape(-1, *features.shape[2:])


def _of_timm(model, x, classes):
    with torch.no_grad():
        features = model.forward_features(normalised(model, x))
    if isinstance(features, Tensor) and features.dim() == 4:
        if features.shape[1] == model.num_features:
            return _activation(model.forward_head, features, classes)
        if features.shape[-1] == model.num_features:  # channels last
            return _activation(
                lambda f: model.forward_head(f.permute(0, 2, 3, 1)), features.permute(0, 3, 1, 2), classes
            )
    attention = [part for part in model.modules() if hasattr(part, "fused_attn") and hasattr(part, "attn_drop")]
    if isinstance(features, Tensor) and features.dim() == 3 and attention:
        return _of_tokens(model, attention[-1], x, classes)
    raise _no_map(model)


def _no_map(model):
    return InputError(f"{type(model).__name__}: no heat map of it, expected a network with a feature map or tokens")


def _of_tokens(model, attention, x, classes):
    """[K, N] of the N tokens of places, by the last attention of a network."""
    weights, fused = [], attention.fused_attn
    attention.fused_attn = False  # which would not make the matrix
    handle = attention.attn_drop.register_forward_hook(lambda _, __, out: weights.append(out))
    try:
        logits = model(x.detach().requires_grad_())
    finally:
        handle.remove()
        attention.fused_attn = fused
    matrix, maps = weights[0], []  # [1, heads, from, to]
    prefix = getattr(model, "num_prefix_tokens", 0)
    for c in classes:
        (gradient,) = torch.autograd.grad(logits[0, c], matrix, retain_graph=True)
        seen = (gradient * matrix)[0].relu().mean(0)  # [from, to]
        classified = getattr(model, "global_pool", "") == "token"
        maps.append((seen[0] if classified else seen.mean(0))[prefix:])
    return torch.stack(maps)


def _on_a_grid(maps, size):
    """Tokens [K, N] or [K, N, 1] as [K, h, w], the h x w = N whose shape is nearest to the image's; maps as they are."""
    if maps.dim() == 3 and maps.shape[2] > 1:
        return maps
    maps = maps.flatten(1)
    number, aspect = maps.shape[1], size[0] / size[1]
    heights = [h for h in range(1, number + 1) if number % h == 0]
    height = min(heights, key=lambda h: abs(math.log(h * h / number / aspect)))
    return maps.reshape(len(maps), height, -1)
