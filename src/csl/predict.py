"""From image files to names and scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from csl import checkpoint
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader, default_workers
from csl.data.transforms import EvalTransform
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.models import check_image_size, fuse
from csl.scoring import Scores, autocast_dtype, choose_device, score

DEFAULT_IMAGE_SIZE = 448


@dataclass
class Predictor:
    """A trained network, ready for images.

    Attributes:
        model: images [B, 3, H, W] in [0, 1] to logits [B, C], on `device`; in inference form (`csl.models.fuse`).
        classes: C names; MIDs where the checkpoint has those.
        groups: for attributes, the slice of classes of each.
        image_size: side, or (H, W), that images are resized to.
        device: where the model is.
        amp: as `csl.scoring.autocast_dtype` takes it.
        config: the settings of the run that made the checkpoint, empty for foreign files.
    """

    model: nn.Module
    classes: list[str]
    groups: dict[str, slice] | None
    image_size: int | tuple[int, int]
    device: torch.device
    amp: str = "auto"
    config: dict | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        model_name: str | None = None,
        num_classes: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        default_image_size: int = DEFAULT_IMAGE_SIZE,
        device: str | None = None,
        amp: str = "auto",
    ) -> "Predictor":
        """The network of a checkpoint, at the image size it was trained with unless another is given.

        Args:
            path: a checkpoint of any format that `csl.checkpoint` reads.
            model_name: needed for a foreign file of a timm network.
            num_classes: what is expected, None for whatever the file has.
            image_size: side or (H, W) in pixels.
            default_image_size: where neither the caller nor the file says.
            device: None for a GPU where there is one.
            amp: "auto", "bf16", "fp16" or "off".

        Raises:
            InputError: as `csl.checkpoint.load_model`, or a size that the network does not take.
        """
        model, loaded = checkpoint.load_model(path, model_name, num_classes)
        config = loaded.extra.get("config") or {}
        size = image_size or config.get("image_size") or default_image_size
        size = size if isinstance(size, int) else tuple(size)
        check_image_size(loaded.model_name, size)
        chosen = choose_device(device)
        return cls(
            model=fuse(model.to(chosen, memory_format=torch.channels_last)),
            classes=loaded.classes or [f"class {i}" for i in range(loaded.num_classes)],
            groups=loaded.groups,
            image_size=size,
            device=chosen,
            amp=amp,
            config=config,
        )

    def score(
        self, images: Sequence[str], batch_size: int = 32, workers: int | None = None, progress: str | None = None
    ) -> Scores:
        """Probabilities of image files; unreadable ones are left out and named.

        Args:
            images: paths, N.
            batch_size: images at a time.
            workers: processes that decode; None for one a core.
            progress: label of the progress bar, None for no bar.
        """
        labels = LabelMatrix.from_entries([], [], [], (len(images), len(self.classes)))
        dataset = ImageDataset(Annotations(images, labels, self.classes), EvalTransform(self.image_size))
        workers = default_workers() if workers is None else workers
        loader = create_loader(dataset, batch_size, workers if len(images) > batch_size else 0)
        return score([self.model], loader, self.device, autocast_dtype(self.amp, self.device), progress)

    def predict(self, image: Image.Image) -> np.ndarray:
        """[C] probabilities in float32 of one RGB Pillow image."""
        pixels = EvalTransform(self.image_size)(image).unsqueeze(0)  # [1, 3, H, W]
        x = pixels.to(self.device, torch.float32, memory_format=torch.channels_last).div_(255)
        dtype = autocast_dtype(self.amp, self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            logits = self.model(x)
        return torch.sigmoid(logits.float())[0].cpu().numpy()


@dataclass(frozen=True)
class Prediction:
    """One predicted class.

    Attributes:
        name: of the class.
        score: probability in [0, 1].
        attribute: the attribute it is the value of, None for a class of its own.
    """

    name: str
    score: float
    attribute: str | None = None


def name_scores(
    probabilities: np.ndarray,
    classes: Sequence[str],
    groups: dict[str, slice] | None = None,
    threshold: float = 0.7,
    top_k: int = 30,
) -> list[Prediction]:
    """The classes that an image is said to have.

    For an attribute with several values the most likely one, whatever its score. Of all other classes those with a
    score over `threshold`, the most likely first, at most `top_k`.

    Args:
        probabilities: [C] in [0, 1].
        classes: C names.
        groups: attribute -> slice of classes.
        threshold: in [0, 1].
        top_k: 1 or more.
    """
    single = np.ones(len(classes), dtype=bool)
    predictions = []
    for attribute, group in (groups or {}).items():
        if group.stop - group.start > 1:
            single[group] = False
            best = group.start + int(probabilities[group].argmax())
            predictions.append(Prediction(classes[best], float(probabilities[best]), attribute))
    order = np.argsort(-probabilities, kind="stable")
    over = [c for c in order if single[c] and probabilities[c] > threshold][:top_k]
    return predictions + [Prediction(classes[c], float(probabilities[c])) for c in over]


def attribute_table(
    table: pd.DataFrame, probabilities: np.ndarray, groups: dict[str, slice], values: dict
) -> pd.DataFrame:
    """The rows of an attribute CSV with a column `Predicted NAME Type` added for each attribute.

    Args:
        table: N rows as they were read.
        probabilities: [N, C].
        groups: attribute -> slice of classes.
        values: attribute -> the value that each of its classes stands for (see `attribute_values`).
    """
    table = table.copy()
    for attribute, group in groups.items():
        block = probabilities[:, group]  # [N, G]
        chosen = block.argmax(1) if block.shape[1] > 1 else (block[:, 0] > 0.5).astype(int)
        table[f"Predicted {attribute.replace('_', ' ').title()} Type"] = [values[attribute][i] for i in chosen]
    return table


def attribute_values(classes: Sequence[str], groups: dict[str, slice]) -> dict[str, list[str]]:
    """What each class of an attribute is called in its CSV column: "3" for `Neck 3`, "Red" for `colour:Red`."""
    values = {}
    for attribute, group in groups.items():
        names = list(classes[group])
        if len(names) == 1:
            values[attribute] = ["0", "1"]
        else:
            prefix = f"{attribute}:"
            values[attribute] = [
                name.removeprefix(prefix) if name.startswith(prefix) else name.rsplit(" ", 1)[-1] for name in names
            ]
    return values


IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


def find_images(path: str | Path, say: Callable[[str], None] = print) -> list[str]:
    """The image files that `path` stands for: itself, those in a folder (and below), or those in a list file (.txt).

    Paths in a list file, one a line, are relative to it.

    Raises:
        InputError: nothing there, or no image in it.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not found:
            raise InputError(f"{path}: no images, expected files such as .jpg or .png")
        return found
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an image, a folder of images or a list file (.txt)")
    if path.suffix.lower() in (".txt", ".lst", ".list"):
        lines = [line.strip() for line in path.read_text().splitlines()]
        found = [str(path.parent / line) for line in lines if line and not line.startswith("#")]
        if not found:
            raise InputError(f"{path}: an empty list, expected one image path a line")
        say(f"{path}: {len(found):,} images listed")
        return found
    return [str(path)]
