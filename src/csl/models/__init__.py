"""Networks by name: TResNet with its heads, and every image model of timm."""

from functools import cache

import torch
from torch import nn

from csl.errors import InputError
from csl.machine.image_size import height_width
from csl.models.backbones import (
    TimmWithHead,
    check_timm_size,
    create_timm,
    create_timm_features,
    name_with_tag,
    own_size,
    resampled,
)
from csl.models.features import FeatureExtractor, truncate
from csl.models.fusion import fuse
from csl.models.heads import HEADS
from csl.models.recurrent import without_steps
from csl.models.tresnet import CONFIGS, TResNet, check_size


def create_model(
    name: str,
    num_classes: int = 80,
    bottleneck_head: bool = False,
    head: str | None = None,
    num_groups: int | None = None,
    dropout: float = 0.0,
    features_only: bool = False,
    out_indices: tuple[int, ...] | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> nn.Module:
    """A network that maps RGB images [B, 3, H, W] in [0, 1] to logits [B, num_classes], or to feature maps.

    Args:
        name: "tresnet_m", "tresnet_l", "tresnet_xl", "tresnet_l_v2", "tresnet_v2_l" (timm's), or any name that timm
            knows.
        num_classes: C, 1 or more.
        bottleneck_head: short for head="bottleneck".
        head: "linear", "bottleneck", "hidden", "ml_decoder" or "boostlu". A timm model's linear head is its own classifier.
        num_groups: queries of the ML-Decoder head.
        dropout: before the classifier of a timm model, in [0, 1).
        features_only: no head; the network maps images to a list of maps [B, C_i, H / stride_i, W / stride_i], and has
            `feature_info.channels()` and `.reduction()`. Weights load with `csl.checkpoint.load_backbone`.
        out_indices: which maps, as in timm; for a TResNet 0 is the stem and 1 to 4 the stages. None for timm's choice,
            the four stages of a TResNet.
        image_size: side or (H, W) in pixels, for a timm network whose layers depend on it; None for the network's own.

    Raises:
        InputError: an unknown name, head or map, or a combination that does not exist.
    """
    name = architecture(name)
    head = head or ("bottleneck" if bottleneck_head else "linear")
    if head not in HEADS:
        raise InputError(f"--head {head}: unknown, expected one of {', '.join(HEADS)}")
    if num_classes < 1:
        raise InputError(f"--num_classes {num_classes}: expected 1 or more")
    if out_indices is not None and not features_only:
        raise InputError(f"out_indices {out_indices}: expected only with features_only")
    if name not in CONFIGS:
        if features_only:
            return create_timm_features(name, out_indices, image_size)
        return create_timm(name, num_classes, dropout, head, num_groups, image_size)
    if dropout:
        raise InputError(f"--dropout {dropout}: TResNet has none, expected 0 or a timm model")
    model = TResNet(CONFIGS[name], num_classes, head, num_groups)
    if features_only:
        return FeatureExtractor(model) if out_indices is None else FeatureExtractor(model, out_indices)
    return model


def architecture(name: str) -> str:
    """The name without timm's tag of weights where the network is a TResNet: tresnet_m.miil_in21k is a tresnet_m."""
    plain = name.partition(".")[0]
    return plain if plain in CONFIGS else name


def check_image_size(name: str, size: int | tuple[int, int]) -> None:
    """Raise InputError where the network of that name cannot take images of that side, or (height, width)."""
    if architecture(name) in CONFIGS:
        check_size(height_width(size))
    else:
        check_timm_size(name, size)


@cache
def fewest_images(name: str, size: int | tuple[int, int], head: str = "linear") -> int:
    """The fewest images of a batch that a network can be trained on: 2 if batch norm has one value a channel of one, else 1.

    It is tried, without any values.

    Raises:
        InputError: as `check_image_size`.
    """
    check_image_size(name, size)
    with torch.device("meta"):
        model = create_model(name, head=head, image_size=size).train()
        try:
            with without_steps(model):
                model(torch.empty(1, 3, *height_width(size)))
        except ValueError as error:  # of PyTorch's layers, or of InPlace-ABN
            if "value per channel" not in str(error):
                raise
            return 2
    return 1


__all__ = [
    "CONFIGS",
    "HEADS",
    "FeatureExtractor",
    "TResNet",
    "TimmWithHead",
    "architecture",
    "check_image_size",
    "create_model",
    "fewest_images",
    "fuse",
    "name_with_tag",
    "own_size",
    "resampled",
    "truncate",
]
