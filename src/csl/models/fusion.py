"""The inference form of a TResNet: every ABN folded into the convolution before it, every activation in place.

    act(xhat * (|w| + eps) + b),  xhat = (conv(x) - mean) / sqrt(var + eps)     is     act(conv'(x) + b')

with conv' and b' computed in float64 once.
"""

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csl.models.abn import InPlaceABN
from csl.models.heads import MLDecoderHead
from csl.models.tresnet import BasicBlock, BlurPool, Bottleneck, SpaceToDepth, SqueezeExcite, TResNet, check_size


def fuse(model: nn.Module) -> nn.Module:
    """The inference form of a TResNet as a new module; any other network comes back as it is.

    The result maps images [B, 3, H, W] to the logits [B, C] that `model.eval()` gives, to rounding. It shares no storage
    with `model`, has no gradient, and has parts of the same names (`body.layer3`, `head`); `state_dict`, `deepcopy`,
    `to`, autocast, `torch.compile` and export work on it. A later change of `model` does not reach it.
    """
    return FusedTResNet(model) if isinstance(model, TResNet) else model


class FusedTResNet(nn.Module):
    """`body` and `head` of a TResNet without normalisation layers: images [B, 3, H, W] in [0, 1] to logits [B, C]."""

    def __init__(self, model: TResNet):
        super().__init__()
        self.num_features, self.num_classes = model.num_features, model.num_classes
        body = OrderedDict()
        for name, part in model.body.named_children():
            if isinstance(part, nn.Sequential) and not isinstance(part[0], nn.Conv2d):
                body[name] = nn.Sequential(*(_fused_block(block) for block in part))
            else:
                body[name] = part if isinstance(part, SpaceToDepth) else _fused_conv(part)
        self.body = nn.Sequential(body)
        self.head = copy.deepcopy(model.head)
        if isinstance(self.head, MLDecoderHead):
            _fix_queries(self.head)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to logits [B, C]."""
        check_size(x.shape[-2:])
        return self.head(self.body(x))


class FusedConv(nn.Module):
    """act(conv(x) + bias + other) of stride 1, act by name: "none", "relu", or, without `other`, "leaky_relu" of `slope`."""

    def __init__(self, weight: Tensor, bias: Tensor, padding: int, activation: str, slope: float = 0.0):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(t, requires_grad=False) for t in (weight, bias))
        self.padding, self.activation, self.slope = padding, activation, slope

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """[B, in, H, W], and [B, out, H, W] to add before a ReLU, which may be overwritten -> [B, out, H, W]."""
        y = F.conv2d(x, self.weight, self.bias, padding=self.padding)
        if other is not None:
            y = y.add_(other)
        if self.activation == "relu":
            return F.relu_(y)
        return F.leaky_relu_(y, self.slope) if self.activation == "leaky_relu" else y

    def extra_repr(self) -> str:
        """The layer's settings, for `print(model)`."""
        out, into, *kernel = self.weight.shape
        return f"{into}, {out}, kernel_size={tuple(kernel)}, activation={self.activation}, slope={self.slope:g}"


class FusedBasicBlock(nn.Module):
    """`BasicBlock` in inference form; its input may be overwritten."""

    def __init__(self, block: BasicBlock):
        super().__init__()
        self.conv1 = _fused_downsampled(block.conv1)
        self.se = _fused_se(block.se)
        self.conv2 = _fused_conv(block.conv2, None if self.se else "relu")
        self.downsample = _fused_shortcut(block.downsample)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, planes, H / stride, W / stride]."""
        out = self.conv1(x)
        shortcut = self.downsample(x)
        if self.se is None:
            return self.conv2(out, shortcut)
        out = self.conv2(out)
        attention = self.se(out)
        return F.relu_(torch.addcmul(shortcut, out, attention))


class FusedBottleneck(nn.Module):
    """`Bottleneck` in inference form; its input may be overwritten."""

    def __init__(self, block: Bottleneck):
        super().__init__()
        self.conv1 = _fused_conv(block.conv1)
        self.conv2 = _fused_downsampled(block.conv2)
        self.se = _fused_se(block.se)
        self.conv3 = _fused_conv(block.conv3, "relu")
        self.downsample = _fused_shortcut(block.downsample)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, 4 planes, H / stride, W / stride]."""
        out = self.conv2(self.conv1(x))
        if self.se is not None:
            attention = self.se(out)
            out = out * attention if out.requires_grad else out.mul_(attention)
        return self.conv3(out, self.downsample(x))


class FusedSE(nn.Module):
    """The attention of `SqueezeExcite`, without the multiplication."""

    def __init__(self, se: SqueezeExcite):
        super().__init__()
        self.fc1, self.fc2 = (_linear(conv) for conv in (se.fc1, se.fc2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, 1, 1] in (0, 1)."""
        return self.fc2(F.relu_(self.fc1(x.mean((2, 3))))).sigmoid_()[:, :, None, None]


def _fused_block(block):
    return (FusedBasicBlock if isinstance(block, BasicBlock) else FusedBottleneck)(block)


def _fused_conv(conv_abn, activation=None):
    """Convolution and ABN as one layer; `activation` in place of an ABN's identity."""
    conv, abn = conv_abn
    assert isinstance(abn, InPlaceABN)
    scale = (abn.weight.double().abs() + abn.eps) * (abn.running_var.double() + abn.eps).rsqrt()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = abn.bias.double() - abn.running_mean.double() * scale
    weight, bias = (t.detach().to(conv.weight.dtype) for t in (weight, bias))
    weight = weight.contiguous(memory_format=torch.channels_last)
    if activation is None:
        activation = "none" if abn.activation == "identity" else abn.activation
    return FusedConv(weight, bias, conv.padding[0], activation, abn.slope)


def _fused_downsampled(part):
    """Convolution and ABN, with the blur that may follow."""
    if isinstance(part[0], nn.Conv2d):
        return _fused_conv(part)
    return nn.Sequential(_fused_conv(part[0]), BlurPool(part[0][1].num_features).to(part[0][0].weight))


def _fused_shortcut(part):
    if isinstance(part, nn.Identity):
        return nn.Identity()
    return nn.Sequential(*(_fused_conv(p) if isinstance(p, nn.Sequential) else copy.deepcopy(p) for p in part))


def _fused_se(se):
    return FusedSE(se) if isinstance(se, SqueezeExcite) else None


def _linear(conv):
    """A 1x1 convolution of one pixel as a linear layer."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1).clone(), requires_grad=False)
    linear.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
    return linear


def _fix_queries(head):
    """Precompute norm1(2 q), as the queries are constants; stored as half of it, because the layer doubles its input."""
    decoder = head.decoder
    layer = decoder.layers[0]
    with torch.no_grad():
        decoder.query_embed.weight.copy_(layer.norm1(2 * decoder.query_embed.weight) / 2)
    layer.norm1 = nn.Identity()
