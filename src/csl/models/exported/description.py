"""What an exported network says of itself, as texts that each format can carry: classes, image size, preprocessing."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csl.errors import InputError
from csl.labels.trust import check_class_names

FORMAT = "csl-export-1"

PREPROCESSING = {
    "layout": "NCHW",
    "channels": "RGB",
    "range": [0, 1],
    "resize": "antialiased bilinear to image_size (height, width), the aspect ratio is not kept",
    "mean": None,
    "std": None,
}
"""What the input is. Networks of timm subtract mean and standard deviation themselves."""

INPUT = "images"

SUFFIXES = (".onnx", ".pt2")
"""Files that are run as they are; `.safetensors` holds weights and is a checkpoint."""


@dataclass(frozen=True)
class Description:
    """What travels with the network.

    Attributes:
        model_name: as `csl.models.create_model` takes it.
        head: "linear", "bottleneck" or "ml_decoder".
        classes: C names.
        keys: what identifies each class (OpenImages: its MID), C.
        groups: for attributes, the slice of classes of each.
        image_size: side, or (H, W).
        sigmoid: whether the network gives probabilities; else logits.
        precision: "float32" or "int8".
        version: of csl.
    """

    model_name: str
    head: str
    classes: list[str]
    keys: list[str]
    groups: dict[str, slice] | None
    image_size: int | tuple[int, int]
    sigmoid: bool = False
    precision: str = "float32"
    version: str = ""

    @property
    def height_width(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else tuple(self.image_size)

    @property
    def output(self) -> str:
        """The name of what comes out."""
        return "probabilities" if self.sigmoid else "logits"

    def to_metadata(self) -> dict[str, str]:
        """Name -> JSON text."""
        values: dict[str, Any] = {
            "format": FORMAT,
            "model_name": self.model_name,
            "head": self.head,
            "num_classes": len(self.classes),
            "classes": self.classes,
            "keys": self.keys,
            "groups": {name: [group.start, group.stop] for name, group in (self.groups or {}).items()} or None,
            "image_size": list(self.height_width),
            "preprocessing": PREPROCESSING,
            "output": self.output,
            "precision": self.precision,
            "version": self.version,
        }
        return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def read_description(metadata: Mapping[str, str], path: Path, outputs: int | None = None) -> Description:
    """The description that `Description.to_metadata` wrote.

    Args:
        metadata: name -> JSON text.
        path: the file, as in messages.
        outputs: how many values the network gives for an image, None where it does not say.

    Raises:
        InputError: metadata that `python -m csl export` did not write, or that does not fit itself or the network.
    """
    try:
        values = {name: json.loads(text) for name, text in metadata.items() if name in _TYPES}
        if values.get("format") != FORMAT:
            raise InputError(
                f"{path}: its classes and preprocessing are not in it, expected a file of `python -m csl export`"
            )
        wrong = next((name for name, kind in _TYPES.items() if not isinstance(values.get(name), kind)), None)
        if wrong is not None:
            raise InputError(
                f"{path}: its {wrong!r} is {values.get(wrong)!r:.80}, not what `python -m csl export` writes"
            )
        found = Description(
            model_name=values["model_name"],
            head=values["head"],
            classes=[str(name) for name in values["classes"]],
            keys=[str(key) for key in values["keys"]],
            groups={name: slice(*map(int, ends)) for name, ends in values["groups"].items()}
            if values["groups"]
            else None,
            image_size=_size(values["image_size"]),
            sigmoid=values["output"] == "probabilities",
            precision=values["precision"],
            version=values["version"],
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: its metadata cannot be read ({' '.join(str(error).split())[:120]})") from error
    count = len(found.classes)
    if len(found.keys) != count or (outputs is not None and outputs != count):
        raise InputError(f"{path}: {count} class names, {len(found.keys)} keys and {outputs} outputs, expected as many")
    if any(not 0 <= group.start < group.stop <= count for group in (found.groups or {}).values()):
        raise InputError(f"{path}: its attributes go beyond its {count} classes")
    check_class_names(found.classes, path)
    return found


_TYPES = {
    "format": str, "model_name": str, "head": str, "classes": list, "keys": list, "groups": (dict, type(None)),
    "image_size": list, "output": str, "precision": str, "version": str,
}  # fmt: skip


def _size(pair):
    height, width = (int(side) for side in pair)
    if min(height, width) < 1 or math.prod((height, width)) > 1 << 28:
        raise InputError(f"image size {height}x{width}, expected positive numbers of pixels")
    return height if height == width else (height, width)
