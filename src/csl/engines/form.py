"""The form of a network that exporters take: plain operators, no branch that depends on the size of an image.

A TResNet is fused (`csl.models.fuse`) and written with operators that inference engines know to run fast:

- space-to-depth and the 3x3 convolution behind it become one 12x12 convolution of stride 4, whose taps are the same numbers;
- the blur is a reflect padding and a depthwise convolution;
- squeeze-and-excitation is a global average pooling and two 1x1 convolutions.

ML-Decoder's attention is written out: tracing PyTorch's would fix the batch.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csl.models import fuse
from csl.models.fusion import FusedConv, FusedSE, FusedTResNet
from csl.models.heads import MLDecoderHead
from csl.models.tresnet import SIZE_STEP, BlurPool


class ExportForm(nn.Module):
    """Images [B, 3, H, W] in [0, 1] to logits [B, C], or to probabilities.

    Args:
        model: as `csl.models.create_model` made it; copied, not changed.
        sigmoid: give probabilities.
    """

    def __init__(self, model: nn.Module, sigmoid: bool = False):
        super().__init__()
        self.sigmoid = sigmoid
        fused = fuse(model)
        self.network = copy.deepcopy(model) if fused is model else fused
        for head in [module for module in self.network.modules() if isinstance(module, MLDecoderHead)]:
            for layer in head.decoder.layers:
                layer.multihead_attn = _CrossAttention(layer.multihead_attn)
        if isinstance(self.network, FusedTResNet):
            self.network = nn.Sequential(*_plain(self.network))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C]."""
        logits = self.network(images)
        return logits.sigmoid() if self.sigmoid else logits


def _plain(fused):
    """Body and head of a fused TResNet, all of it in plain operators."""
    for parent in list(fused.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BlurPool):
                setattr(parent, name, _Blur(child))
            elif isinstance(child, FusedSE):
                setattr(parent, name, _Attention(child))
    _, stem, *stages = fused.body
    return _Stem(stem), *stages, fused.head


class _Stem(nn.Module):
    """Space-to-depth by 4 and a 3x3 convolution with padding 1, as one convolution of the pixels."""

    def __init__(self, conv: FusedConv):
        super().__init__()
        out, channels, kernel, _ = conv.weight.shape
        weight = conv.weight.reshape(out, SIZE_STEP, SIZE_STEP, channels // SIZE_STEP**2, kernel, kernel)
        weight = weight.permute(0, 3, 4, 1, 5, 2)  # [out, 3, tap row, row in patch, tap column, column in patch]
        side = kernel * SIZE_STEP
        self.weight = nn.Parameter(weight.reshape(out, -1, side, side).contiguous(), requires_grad=False)
        self.bias, self.slope = conv.bias, conv.slope
        self.padding = conv.padding * SIZE_STEP

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, out, H / 4, W / 4]."""
        return F.leaky_relu(F.conv2d(x, self.weight, self.bias, stride=SIZE_STEP, padding=self.padding), self.slope)


class _Blur(nn.Module):
    """`csl.ops.blur_ref` with its kernel."""

    def __init__(self, blur: BlurPool):
        super().__init__()
        self.register_buffer("kernel", blur.kernel.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)]."""
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=self.kernel.shape[0])


class _Attention(nn.Module):
    """`FusedSE` on maps of one pixel."""

    def __init__(self, se: FusedSE):
        super().__init__()
        self.fc1, self.fc2 = (_convolution(linear) for linear in (se.fc1, se.fc2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, 1, 1] in (0, 1)."""
        return torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class _CrossAttention(nn.Module):
    """`nn.MultiheadAttention` of queries to a memory that is key and value."""

    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        self.num_heads, self.head_width = attention.num_heads, attention.head_dim
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        self.query, self.key, self.value = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
        self.out = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, queries: Tensor, memory: Tensor, _value: Tensor, need_weights: bool = False):
        """[B, Q, E], [B, N, E] twice -> [B, Q, E] and None."""
        q, k, v = self.query(queries), self.key(memory), self.value(memory)
        q, k, v = (
            t.unflatten(2, (self.num_heads, self.head_width)).transpose(1, 2) for t in (q, k, v)
        )  # [B, heads, ., W]
        attention = torch.softmax(q @ k.transpose(2, 3) * self.head_width**-0.5, dim=-1)  # [B, heads, Q, N]
        return self.out((attention @ v).transpose(1, 2).flatten(2)), None


def _linear(weight, bias):
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = (nn.Parameter(t.detach().clone(), requires_grad=False) for t in (weight, bias))
    return linear


def _convolution(linear):
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, device="meta")
    conv.weight = nn.Parameter(linear.weight.detach()[:, :, None, None], requires_grad=False)
    conv.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return conv
