"""Which network a file holds, and the description that exported files carry: classes, image size, preprocessing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csl.errors import InputError, shown
from csl.labels.class_set import ClassSet
from csl.machine.image_size import height_width

FORMAT = "csl-export-1"

PREPROCESSING = {
    "layout": "NCHW",
    "channels": "RGB",
    "range": [0, 1],
    "resize": "antialiased bilinear to image_size (height, width), the aspect ratio is not kept",
    "mean": None,
    "std": None,
}
"""The expected input. Networks of timm subtract mean and standard deviation themselves."""

INPUT = "images"


@dataclass(frozen=True)
class Architecture:
    """The arguments of `csl.models.create_model` that make a network; None where a file does not tell.

    Attributes:
        name: "tresnet_m", ... or a network of timm.
        head: "linear", "bottleneck", "hidden", "ml_decoder" or "boostlu".
        num_classes: outputs of the head.
        num_groups: queries of an ML-Decoder head; None for its default.
    """

    name: str | None = None
    head: str | None = "linear"
    num_classes: int | None = None
    num_groups: int | None = None


@dataclass(frozen=True)
class Description:
    """The metadata of an exported network.

    Attributes:
        architecture: the network.
        class_set: its C classes.
        image_size: side, or (H, W), in pixels.
        sigmoid: whether the network gives probabilities; else logits.
        precision: "float32" or "int8".
        version: of csl.
        background: the colour that transparent images are laid over, or "none": what lies under is seen.
        own_split: whether the run divided its data itself: without its split.csv nobody knows what was trained on.
        decisions: calibration and thresholds, as plain values (`csl.decisions.Decisions.to_plain`); None without.
    """

    architecture: Architecture
    class_set: ClassSet
    image_size: int | tuple[int, int]
    sigmoid: bool = False
    precision: str = "float32"
    version: str = ""
    background: str = "none"
    own_split: bool = False
    decisions: Mapping[str, Any] | None = None

    @property
    def height_width(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return height_width(self.image_size)

    @property
    def output(self) -> str:
        """The name of the output: "probabilities" or "logits"."""
        return "probabilities" if self.sigmoid else "logits"

    def to_metadata(self) -> dict[str, str]:
        """Name -> JSON text."""
        values: dict[str, Any] = {
            "format": FORMAT,
            "model_name": self.architecture.name,
            "head": self.architecture.head,
            "num_classes": len(self.class_set.classes),
            **self.class_set.to_plain(),
            "image_size": list(self.height_width),
            "preprocessing": {**PREPROCESSING, "background": self.background},
            "output": self.output,
            "precision": self.precision,
            "version": self.version,
            **({"own_split": True} if self.own_split else {}),
            **({"decisions": self.decisions} if self.decisions else {}),
        }
        return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def read_description(metadata: Mapping[str, str], path: Path, outputs: int | None = None) -> Description:
    """The description that `Description.to_metadata` wrote.

    Args:
        metadata: name -> JSON text.
        path: the file, as in messages.
        outputs: number of values that the network gives for an image; None if unknown.

    Raises:
        InputError: metadata that `python -m csl export` did not write, or that disagrees with itself or the network.
    """
    names = ("format", "model_name", "head", "output", "precision", "version")  # texts
    try:
        values = {
            name: json.loads(text)
            for name, text in metadata.items()
            if name in (*names, "classes", "keys", "groups", "image_size", "preprocessing", "own_split", "decisions")
        }
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its metadata cannot be read ({' '.join(str(error).split())[:120]})") from error
    if values.get("format") != FORMAT:
        raise InputError(f"{path}: its classes and preprocessing are not in it, use a file of `python -m csl export`")
    for name in names:
        if not isinstance(values.get(name), str):
            raise InputError(f"{path}: its {name!r} is {shown(values.get(name))}, expected a text")
    class_set = ClassSet.from_plain(values, path, outputs)
    return Description(
        architecture=Architecture(values["model_name"], values["head"], len(class_set.classes)),
        class_set=class_set,
        image_size=checked_size(values.get("image_size"), path),
        sigmoid=values["output"] == "probabilities",
        precision=values["precision"],
        version=values["version"],
        background=_background(values.get("preprocessing")),
        own_split=values.get("own_split") is True,
        decisions=values.get("decisions"),
    )


def _background(preprocessing):
    """What files of older versions do not say is "none"."""
    return str(preprocessing.get("background", "none")) if isinstance(preprocessing, dict) else "none"


def checked_size(value: object, place: str | Path) -> int | tuple[int, int]:
    """The image size that an untrusted file states: a side, or (H, W) where they differ.

    Raises:
        InputError: `value` is neither a number of pixels nor a list of one or two.
    """
    sides = value if isinstance(value, list | tuple) else [value]
    if len(sides) not in (1, 2) or not all(type(side) is int and 1 <= side <= 1 << 16 for side in sides):
        raise InputError(f"{place}: image_size is {shown(value)}, expected one or two numbers of pixels")
    return sides[0] if sides[0] == sides[-1] else (sides[0], sides[1])
