"""Feature maps of a TResNet: after its stages, or up to a named layer.

Both keep the parameter names of the whole network, so that `state_dict()` is the part of a published file that is used.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from csl.errors import InputError
from csl.models.tresnet import SIZE_STEP, BasicBlock, Bottleneck, TResNet, check_size

STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")
"""What an output index means; index i has stride 4 for 0 and 1, then 8, 16, 32."""

# The parts of a block's residual branch in the order they run.
_BRANCH = {BasicBlock: ("conv1", "conv2", "se"), Bottleneck: ("conv1", "conv2", "se", "conv3")}


class FeatureExtractor(nn.Module):
    """A TResNet's body that returns the maps after its stages; what lies behind the last of them is left out.

    Args:
        model: whose layers are used, and shared.
        out_indices: ascending indices in `STAGES`.

    Attributes:
        feature_info: timm's `FeatureInfo` of the maps: their channels, strides (`reduction`) and layers.

    Raises:
        InputError: other indices.
    """

    def __init__(self, model: TResNet, out_indices: Sequence[int] = (1, 2, 3, 4)):
        super().__init__()
        from timm.models import FeatureInfo  # takes seconds, and other networks do without

        indices = tuple(out_indices)
        if not indices or list(indices) != sorted(set(indices)) or not set(indices) <= set(range(len(STAGES))):
            raise InputError(f"out_indices {indices}: expected ascending numbers from 0 (stem) to 4 (last stage)")
        names = tuple(STAGES[i] for i in indices)
        self.body = _up_to(model.body, names[-1:])
        facts = [
            {"module": f"body.{STAGES[i]}", "num_chs": _width(layer), "reduction": SIZE_STEP * 2 ** max(i - 1, 0)}
            for i, layer in ((i, getattr(model.body, STAGES[i])) for i in indices)
        ]
        self.feature_info = FeatureInfo(facts, list(range(len(facts))))
        self._names = names

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] in [0, 1] to maps [B, C_i, ceil(H / stride_i), ceil(W / stride_i)], see `feature_info`."""
        x = pad_to_step(x)
        maps = []
        for name, layer in self.body.named_children():
            x = layer(x)
            if name in self._names:
                maps.append(x)
        return maps


class TruncatedTResNet(nn.Module):
    """What `truncate` returns: `body` up to one layer."""

    def __init__(self, body: nn.Sequential):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to the layer's output [B, C, H', W']."""
        return self.body(pad_to_step(x))


def truncate(model: nn.Module, layer: str) -> TruncatedTResNet:
    """A TResNet up to and with a named layer, such as "layer3" or "layer4.0.conv1".

    Inside a block its residual branch is followed, without the shortcut. The layers are the model's own, not copies.

    Args:
        model: a TResNet, whatever its head.
        layer: a name in `model.body.named_modules()`.

    Raises:
        InputError: another network, or no such layer on the way of the image.
    """
    if not isinstance(model, TResNet):
        raise InputError(f"{type(model).__name__}: only a TResNet is truncated, expected one")
    try:
        return TruncatedTResNet(_up_to(model.body, layer.removeprefix("body.").split(".")))
    except KeyError as error:
        raise InputError(f"layer {layer}: no {error.args[0]}, expected one of {', '.join(error.args[1])}") from error


def pad_to_step(x: Tensor) -> Tensor:
    """Images of any size to sides that divide by 4, by repeating the last row and column; at least 20 pixels a side.

    Raises:
        InputError: fewer pixels.
    """
    bottom, right = (-side % SIZE_STEP for side in x.shape[-2:])
    if bottom or right:
        x = F.pad(x, (0, right, 0, bottom), mode="replicate")
    check_size(x.shape[-2:])
    return x


def _up_to(module, path):
    """The module as far as the layer at `path`, names kept; KeyError(name, choices) where there is none."""
    if not path:
        return module
    order = _BRANCH.get(type(module)) or tuple(name for name, _ in module.named_children())
    children = {name: module.get_submodule(name) for name in order}
    name, *rest = path
    if name not in children:
        raise KeyError(name, list(children) or ["nothing deeper"])
    before = order[: order.index(name)]
    return nn.Sequential(OrderedDict({**{n: children[n] for n in before}, name: _up_to(children[name], rest)}))


def _width(stage):
    """Channels that the stem (convolution, ABN) or a stage of blocks puts out."""
    last = stage[-1]
    return last.last_abn.num_features if isinstance(last, BasicBlock | Bottleneck) else last.num_features
