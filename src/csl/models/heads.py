"""Heads: features [B, F, H, W] of a backbone to logits [B, C].

Parameter names are those of the published files, so that their state dicts load as they are.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csl.errors import InputError
from csl.models.exclusive import exclusive_logits

BOTTLENECK_FEATURES = 512
"""Width of the bottleneck head, as in the published OpenImages weights."""

HIDDEN_FEATURES = 512
"""Width of the hidden layer of the head of that name."""

BOOST = 5.0
"""What BoostLU multiplies positive cells of a class-activation map by, as in the paper."""


HEADS = ("linear", "bottleneck", "hidden", "ml_decoder", "boostlu")


def create_head(name: str, features: int, num_classes: int, num_groups: int | None = None) -> nn.Module:
    """The head of that name in `HEADS`: features [B, F, H, W] to logits [B, C]; `num_groups` is ML-Decoder's."""
    if name == "ml_decoder":
        return MLDecoderHead(features, num_classes, num_groups)
    if name == "hidden":
        return LinearHead(features, num_classes, HiddenLayer)
    return {"bottleneck": BottleneckHead, "boostlu": BoostLUHead}.get(name, LinearHead)(features, num_classes)


class _InFloat32:
    """A last layer, whose logits are scores that are compared: outside of training in float32, also under autocast.

    bfloat16 has 256 values between two powers of two, so that scores which differ would be equal. In training low precision
    stays, as the published training has it: the noise of rounding averages out over steps, and scores are not ranked.

    Attributes:
        exclusive: groups of classes that exclude each other (`csl.models.exclusive`).
    """

    exclusive: tuple[slice, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """As the layer itself, with the logits of softmax probabilities in exclusive groups."""
        if self.training or x.device.type == "meta":  # which has no autocast
            logits = super().forward(x)
        else:
            with torch.autocast(x.device.type, enabled=False):
                logits = super().forward(x.to(self.weight.dtype))
        return exclusive_logits(logits, self.exclusive) if self.exclusive else logits


class Classifier(_InFloat32, nn.Linear):
    """The last linear layer: [..., F] -> [..., C]."""


@cache
def in_float32(layer: type[nn.Module]) -> type[nn.Module]:
    """The class of a last layer that is one of `layer`, linear or convolutional: to be set as the layer's own."""
    return Classifier if layer is nn.Linear else type(f"{layer.__name__}InFloat32", (_InFloat32, layer), {})


class HiddenLayer(nn.Sequential):
    """A hidden layer before the last one: [B, F] -> 512, ReLU, dropout of a half in training, -> [B, C].

    It stands in the place of the linear layer of any network: keys `hidden_layer.*` and `last_layer.*` under that one's name.
    """

    def __init__(self, features: int, num_classes: int):
        hidden, last = nn.Linear(features, HIDDEN_FEATURES), Classifier(HIDDEN_FEATURES, num_classes)
        super().__init__(OrderedDict(hidden_layer=hidden, relu=nn.ReLU(), dropout=nn.Dropout(0.5), last_layer=last))

    def forward(self, x: Tensor) -> Tensor:
        """[B, F] -> [B, C]; outside of training in float32, as `Classifier`."""
        if self.training or x.device.type == "meta":
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.hidden_layer.weight.dtype))


def last_layers(model: nn.Module) -> list[Classifier]:
    """The linear layers that a network of `csl.models.create_model` ends in."""
    return [layer for layer in model.modules() if isinstance(layer, Classifier)]


def replace_layer(model: nn.Module, layer: nn.Module, other: nn.Module) -> None:
    """Put another layer in the place of one of a network's."""
    model.set_submodule(next(name for name, module in model.named_modules() if module is layer), other)


def with_hidden_layer(model: nn.Module, name: str) -> nn.Module:
    """The network of that name with a `HiddenLayer` in the place of the linear layer that it ends in.

    Raises:
        InputError: it ends in none, or in several.
    """
    layers = last_layers(model)
    if len(layers) != 1:
        raise InputError(f"--head hidden: {name} ends in {len(layers)} linear layers for its classes, expected one")
    replace_layer(model, layers[0], HiddenLayer(layers[0].in_features, layers[0].out_features))
    return model


class LinearHead(nn.Sequential):
    """Global average pooling and one linear layer, keys `fc.weight`, `fc.bias`; or another layer in its place."""

    def __init__(self, features: int, num_classes: int, layer: Callable[[int, int], nn.Module] = Classifier):
        super().__init__(OrderedDict(pool=GlobalAveragePool(), fc=layer(features, num_classes)))


class BottleneckHead(nn.Sequential):
    """Global average pooling and two linear layers with nothing between: F -> 512 -> C.

    For thousands of classes: keys `fc.embedding_generator.0.*` and `fc.FC.*`.
    """

    def __init__(self, features: int, num_classes: int, bottleneck_features: int = BOTTLENECK_FEATURES):
        embedding = nn.Sequential(nn.Linear(features, bottleneck_features))
        fc = nn.Sequential(OrderedDict(embedding_generator=embedding, FC=Classifier(bottleneck_features, num_classes)))
        super().__init__(OrderedDict(pool=GlobalAveragePool(), fc=fc))


class BoostLUHead(nn.Module):
    """A class-activation map, its positive cells times `BOOST`, and the mean of all cells: keys `cam.weight`, `cam.bias`.

        logit = mean over cells of b(w f + c),    b(m) = BOOST m where m > 0, else m

    Without b this is `LinearHead`. Cells that speak for a class are boosted because a network that is told that a class is
    absent where it is not learns maps that are too low (Kim et al., arXiv 2304.01804, which trains with `--loss ll_r`).
    """

    exclusive: tuple[slice, ...] = ()

    def __init__(self, features: int, num_classes: int):
        super().__init__()
        self.cam = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map [B, F, H, W] to logits [B, C]; outside of training in float32, as `Classifier`."""
        if self.training or x.device.type == "meta":
            logits = boosted(self.activations(x)).mean((2, 3))
        else:
            with torch.autocast(x.device.type, enabled=False):
                logits = boosted(self.activations(x.to(self.cam.weight.dtype))).mean((2, 3))
        return exclusive_logits(logits, self.exclusive) if self.exclusive else logits

    def activations(self, x: Tensor) -> Tensor:
        """Feature map [B, F, H, W] to the class-activation map [B, C, H, W], before it is boosted."""
        return F.conv2d(x, self.cam.weight[:, :, None, None], self.cam.bias)


def boosted(activations: Tensor) -> Tensor:
    """BoostLU of class-activation maps of any shape."""
    return torch.where(activations > 0, BOOST * activations, activations)


class GlobalAveragePool(nn.Module):
    """Mean over the pixels: [B, F, H, W] -> [B, F]; outside of training in float32, as `Classifier` takes it."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, H, W] -> [B, F]."""
        return x.mean((2, 3), dtype=x.dtype if self.training else torch.promote_types(x.dtype, torch.float32))


class MLDecoderHead(nn.Module):
    """ML-Decoder: class queries attend to the feature map (Ridnik et al., arXiv 2111.12933).

    One decoder layer without self-attention, post-norm; every query then serves ceil(C / queries) classes.

    Args:
        features: channels F of the feature map.
        num_classes: C.
        num_groups: queries; None for min(100, C).
        embedding: width of queries and memory.
    """

    def __init__(self, features: int, num_classes: int, num_groups: int | None = None, embedding: int = 768):
        super().__init__()
        self.decoder = _MLDecoder(features, num_classes, min(num_groups or 100, num_classes), embedding)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map [B, F, H, W] to logits [B, C]."""
        return self.decoder(x.flatten(2).transpose(1, 2))  # [B, HW, F]


class _MLDecoder(nn.Module):
    exclusive: tuple[slice, ...] = ()

    def __init__(self, features, num_classes, num_queries, embedding):
        super().__init__()
        self.num_classes = num_classes
        per_query = math.ceil(num_classes / num_queries)
        self.embed_standart = nn.Linear(features, embedding)  # the published spelling
        self.query_embed = nn.Embedding(num_queries, embedding).requires_grad_(False)  # random and fixed
        self.layers = nn.ModuleList([_DecoderLayer(embedding)])
        self.duplicate_pooling = nn.Parameter(torch.empty(num_queries, embedding, per_query))
        self.duplicate_pooling_bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.xavier_normal_(self.duplicate_pooling)

    def forward(self, x):
        memory = F.relu(self.embed_standart(x))  # [B, HW, E]
        queries = self.query_embed.weight.expand(x.shape[0], -1, -1)  # [B, Q, E]; len(x) would fix B in an export
        for layer in self.layers:
            queries = layer(queries, memory)
        if self.training or x.device.type == "meta":
            logits = self._pooled(queries)
        else:
            with torch.autocast(x.device.type, enabled=False):  # as `Classifier`
                logits = self._pooled(queries.to(self.duplicate_pooling.dtype))
        logits = logits.flatten(1)[:, : self.num_classes] + self.duplicate_pooling_bias
        return exclusive_logits(logits, self.exclusive) if self.exclusive else logits

    def _pooled(self, queries):
        return torch.einsum("bqe,qec->bqc", queries, self.duplicate_pooling)  # [B, Q, ceil(C / Q)]


class _DecoderLayer(nn.Module):
    """Cross-attention and feed-forward with post-norm. The first residual adds the queries to themselves."""

    def __init__(self, embedding, num_heads=8, feedforward=2048, dropout=0.1):
        super().__init__()
        self.norm1 = nn.LayerNorm(embedding)
        self.multihead_attn = nn.MultiheadAttention(embedding, num_heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(embedding)
        self.linear1 = nn.Linear(embedding, feedforward)
        self.linear2 = nn.Linear(feedforward, embedding)
        self.norm3 = nn.LayerNorm(embedding)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries, memory):  # [B, Q, E], [B, HW, E]
        t = self.norm1(queries + self.dropout(queries))
        t = self.norm2(t + self.dropout(self.multihead_attn(t, memory, memory, need_weights=False)[0]))
        feedforward = self.linear2(self.dropout(F.relu(self.linear1(t))))
        return self.norm3(t + self.dropout(feedforward))
