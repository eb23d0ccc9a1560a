"""TResNet: a ResNet built for GPU throughput (Ridnik et al., arXiv 2003.13630).

Parameter names are those of the published files. Inputs are RGB in [0, 1], without mean and std.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csl.errors import InputError
from csl.models.abn import InPlaceABN
from csl.models.heads import MLDecoderHead, create_head
from csl.models.narrow import narrowed
from csl.ops import blur, space_to_depth, squeeze_excite

SIZE_STEP, SIZE_MIN = 4, 20
"""Height and width divide by the first (space-to-depth) and are at least the second (reflect padding in stage 4)."""


@dataclass(frozen=True)
class TResNetConfig:
    """What tells one TResNet from another.

    Attributes:
        blocks: blocks in each of the four stages.
        width: factor on the 64 channels of the first stage, cut to a whole number.
        basic_stages: how many of the first stages are of basic blocks; the others are of bottlenecks.
        stem_slope, slope: of the leaky ReLU after the stem and inside the blocks.
    """

    blocks: tuple[int, int, int, int]
    width: float = 1.0
    basic_stages: int = 2
    stem_slope: float = 1e-2
    slope: float = 1e-3


CONFIGS = {
    "tresnet_m": TResNetConfig((3, 4, 11, 3)),
    "tresnet_l": TResNetConfig((4, 5, 18, 3), width=1.2),
    "tresnet_xl": TResNetConfig((4, 5, 24, 3), width=1.3),
    "tresnet_l_v2": TResNetConfig((3, 4, 23, 3), basic_stages=0, stem_slope=1e-6, slope=1e-6),
    "tresnet_v2_l": TResNetConfig((3, 4, 23, 3), basic_stages=0),  # timm's: the same tensors, the slopes of the others
}


class TResNet(nn.Module):
    """Backbone `body` and classifier `head`: images [B, 3, H, W] in [0, 1] to logits [B, num_classes].

    Args:
        config: one of `CONFIGS`.
        num_classes: C.
        head: "linear", "bottleneck", "hidden", "ml_decoder" or "boostlu".
        num_groups: queries of the ML-Decoder head; None for min(100, C).
    """

    def __init__(self, config: TResNetConfig, num_classes: int, head: str = "linear", num_groups: int | None = None):
        super().__init__()
        self.config = config
        planes = int(64 * config.width)
        layers = OrderedDict(SpaceToDepth=SpaceToDepth(), conv1=_conv_abn(48, planes, 3, slope=config.stem_slope))
        channels = planes
        for stage, blocks in enumerate(config.blocks):
            block = BasicBlock if stage < config.basic_stages else Bottleneck
            stride = 1 if stage == 0 else 2
            use_se = stage < 3
            stack = []
            for index in range(blocks):
                stack.append(
                    block(channels, planes * 2**stage, stride if index == 0 else 1, use_se=use_se, slope=config.slope)
                )
                channels = planes * 2**stage * block.expansion
            layers[f"layer{stage + 1}"] = Stage(*stack)
        self.body = nn.Sequential(layers)
        self.num_features = channels
        self.num_classes = num_classes
        self.head = create_head(head, channels, num_classes, num_groups)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to logits [B, C]."""
        check_size(x.shape[-2:])
        return self.head(self.body(x))

    def _initialise(self):
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
        for module in self.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                # Every block starts as its shortcut. InPlace-ABN's gradient at 0 is +1, so it can leave.
                nn.init.zeros_(module.last_abn.weight)
        if not isinstance(self.head, MLDecoderHead):
            for module in self.head.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, 0, 0.01)


class Stage(nn.Sequential):
    """Blocks one after another, whose weights are cast together under autocast; a captured graph has a compiler for that.

    Attributes:
        is_shallow: whether the first block alone is in use. The others, which start as their shortcuts, are left out.
    """

    is_shallow = False

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        if torch.compiler.is_compiling():
            return self._through(x)
        with narrowed(self[0] if self.is_shallow else self, x.device):
            return self._through(x)

    def _through(self, x):
        return self[0](x) if self.is_shallow else super().forward(x)


class BasicBlock(nn.Module):
    """3x3 conv, ABN, [blur], 3x3 conv, ABN, squeeze-excite, + shortcut, ReLU."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int, use_se: bool, slope: float):
        super().__init__()
        self.conv1 = _downsampled(_conv_abn(in_channels, planes, 3, slope=slope), planes, stride)
        self.conv2 = _conv_abn(planes, planes, 3, activation="identity")
        self.se = SqueezeExcite(planes, max(planes // 4, 64)) if use_se else nn.Identity()
        self.use_se = use_se
        self.downsample = _shortcut(in_channels, planes * self.expansion, stride)

    @property
    def last_abn(self) -> InPlaceABN:
        """The normalisation whose weight is 0 at the start."""
        return self.conv2[1]

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, planes, H / stride, W / stride]."""
        out, shortcut = self.conv2(self.conv1(x)), self.downsample(x)
        return self.se(out, shortcut) if self.use_se else F.relu_(out + shortcut)


class Bottleneck(nn.Module):
    """1x1 conv, ABN, 3x3 conv, ABN, [blur], squeeze-excite, 1x1 conv, ABN, + shortcut, ReLU."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int, use_se: bool, slope: float):
        super().__init__()
        self.conv1 = _conv_abn(in_channels, planes, 1, slope=slope)
        self.conv2 = _downsampled(_conv_abn(planes, planes, 3, slope=slope), planes, stride)
        self.se = SqueezeExcite(planes, max(planes // 2, 64)) if use_se else nn.Identity()
        self.conv3 = _conv_abn(planes, planes * self.expansion, 1, activation="identity")
        self.downsample = _shortcut(in_channels, planes * self.expansion, stride)

    @property
    def last_abn(self) -> InPlaceABN:
        """The normalisation whose weight is 0 at the start."""
        return self.conv3[1]

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, 4 planes, H / stride, W / stride]."""
        out, factors = self.conv2(self.conv1(x)), None
        if self.training and isinstance(self.se, SqueezeExcite):
            unscaled = out
            out, attention = self.se(unscaled, with_attention=True)
            factors = unscaled, attention
        else:
            out = self.se(out)
        return self.conv3.join(out, self.downsample(x), factors)


class ConvABN(nn.Sequential):
    """Convolution and InPlace-ABN. In training a 1x1 convolution and an ABN without activation are one operator."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H, W]."""
        return self[1].after_pointwise(x, self[0].weight) if self._merged() else super().forward(x)

    def join(self, x: Tensor, shortcut: Tensor, factors: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """relu(self(x) + shortcut): [B, in, H, W] and [B, out, H, W] -> [B, out, H, W]; x may be told as two factors, too."""
        if self._merged():
            return self[1].after_pointwise(x, self[0].weight, shortcut, factors)
        return F.relu_(self(x) + shortcut)

    def _merged(self):
        conv, abn = self
        known = isinstance(abn, InPlaceABN) and abn.training and abn.activation == "identity"
        return known and conv.kernel_size == (1, 1)


class SqueezeExcite(nn.Module):
    """Channel attention (arXiv 1709.01507), and the end of a block: x * sigmoid(fc2(relu(fc1(mean(x)))))."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(
        self, x: Tensor, shortcut: Tensor | None = None, with_attention: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """[B, C, H, W] -> [B, C, H, W], scaled; with a shortcut of that shape, relu(scaled + shortcut).

        With `with_attention` that and the attention [B, C, 1, 1].
        """
        weights = self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias
        return squeeze_excite(x, *weights, shortcut, with_attention)


class BlurPool(nn.Module):
    """`csl.ops.blur` with its kernel in a buffer that moves with the module and stays out of the state dict."""

    def __init__(self, channels: int):
        super().__init__()
        tap = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(tap, tap).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)]."""
        return blur(x, self.kernel)


class SpaceToDepth(nn.Module):
    """`csl.ops.space_to_depth` by 4."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 48, H/4, W/4], in autocast's precision: as the convolution would have it, moved as that."""
        device = x.device.type
        if x.dtype == torch.float32 and device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        return space_to_depth(x, SIZE_STEP)


def check_size(size: tuple[int, int]) -> None:
    """Raise InputError unless a TResNet takes images of that (height, width)."""
    for side in size:
        if side % SIZE_STEP or side < SIZE_MIN:
            raise InputError(
                f"--image_size {'x'.join(map(str, size))}: {side} pixels, expected height and width that divide by "
                f"{SIZE_STEP} and are at least {SIZE_MIN} for a TResNet"
            )


def _conv_abn(in_channels, out_channels, kernel, activation="leaky_relu", slope=1e-2):
    """Convolution without bias, stride 1, and InPlace-ABN."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return ConvABN(conv, InPlaceABN(out_channels, activation, slope, overwrite=True))


def _downsampled(conv_abn, channels, stride):
    """TResNet never strides a convolution: it blurs the result down."""
    return conv_abn if stride == 1 else nn.Sequential(conv_abn, BlurPool(channels))


def _shortcut(in_channels, out_channels, stride):
    """The residual branch: identity, or average pooling (stride 2) and a 1x1 convolution with ABN."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    layers = [] if stride == 1 else [nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)]
    return nn.Sequential(*layers, _conv_abn(in_channels, out_channels, 1, activation="identity"))
