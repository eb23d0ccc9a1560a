"""From image files to names and scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from csl import checkpoint
from csl.data.dataset import ImageDataset
from csl.data.images import load_rgb
from csl.data.loader import create_loader, default_workers
from csl.data.photo_cache import open_cache
from csl.data.transforms import EvalTransform
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.machine import distributed
from csl.machine.files import parse_json
from csl.models import architecture, check_image_size, fuse
from csl.models.abn import describe_abn
from csl.models.compiling import compile_network
from csl.models.onnx_network import OnnxNetwork, import_onnxruntime
from csl.ops import set_abn_backend
from csl.predict.scoring import Scores, autocast_dtype, choose_device, score
from csl.predict.streaming import Scored, copies, stream
from csl.runs.folder import RunFolder

DEFAULT_IMAGE_SIZE = 448
DEFAULT_BATCH_SIZE = 32


@dataclass
class Predictor:
    """A trained network, ready for images.

    Attributes:
        model: images [B, 3, H, W] in [0, 1] to logits [B, C], on `device`; in inference form (`csl.models.fusion`)
            but for what `abn` says.
        classes: C names; MIDs where the checkpoint has those.
        groups: for attributes, the slice of classes of each.
        image_size: side, or (H, W), that images are resized to.
        device: where the model is.
        amp: as `csl.predict.scoring.autocast_dtype` takes it.
        config: the settings of the run that made the checkpoint, empty for foreign files.
        abn: one line that says what InPlace-ABN runs on, None where it is folded into the convolutions.
        cache: folder where photos that have been resized are kept (`csl.data.photo_cache`), None for nowhere.
    """

    model: nn.Module
    classes: list[str]
    groups: dict[str, slice] | None
    image_size: int | tuple[int, int]
    device: torch.device
    amp: str = "auto"
    config: dict | None = None
    abn: str | None = None
    cache: str | None = None

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
        abn: str | None = None,
        compile: bool = False,
    ) -> "Predictor":
        """The network of a checkpoint, at the image size it was trained with unless another is given.

        Args:
            path: a checkpoint of any format that `csl.checkpoint` reads, or an exported `.onnx`.
            model_name: needed for a foreign file of a timm network.
            num_classes: what is expected, None for whatever the file has.
            image_size: side or (H, W) in pixels.
            default_image_size: where neither the caller nor the file says.
            device: None for a GPU where there is one.
            amp: "auto", "bf16", "fp16" or "off".
            abn: None to fold InPlace-ABN into the convolutions, or the backend (`csl.ops.ABN_BACKENDS`) that its layers
                run on, here and in all of this process.
            compile: compile the network when it first runs.

        Raises:
            InputError: as `csl.checkpoint.load_model`, a size that the network does not take, a backend that does not
                run here, or no compiler; for an exported file as `OnnxNetwork`, or a setting that it has no use for.
        """
        if Path(path).suffix == ".pt2":
            raise InputError(f"{path}: .pt2 files do not run here, use the .onnx file or the checkpoint")
        if Path(path).suffix == ".onnx":
            if abn is not None or compile or amp not in ("auto", "off"):
                flag = "--abn" if abn is not None else "--compile" if compile else f"--amp {amp}"
                raise InputError(f"{flag}: {path} is exported and runs as it is, expected a checkpoint for that")
            return cls._load_onnx(Path(path), model_name, num_classes, image_size, device)
        if abn is not None:
            set_abn_backend(abn)
        model, loaded = checkpoint.load_model(path, model_name, num_classes)
        config = loaded.extra.get("config") or {}
        size = image_size or config.get("image_size") or default_image_size
        size = size if isinstance(size, int) else tuple(size)
        check_image_size(loaded.model_name, size)
        chosen = choose_device(device)
        model = model.to(chosen, memory_format=torch.channels_last).eval()
        line = None if abn is None else describe_abn(model, chosen)
        model = fuse(model) if abn is None else model
        return cls(
            model=compile_network(model, chosen) if compile else model,
            classes=loaded.classes or [f"class {i}" for i in range(loaded.num_classes)],
            groups=loaded.groups,
            image_size=size,
            device=chosen,
            amp=amp,
            config=config,
            abn=line,
        )

    @classmethod
    def _load_onnx(cls, path, model_name, num_classes, image_size, device):
        if not path.is_file():
            raise InputError(f"{path}: no such file, expected an exported network")
        chosen = choose_device(device if device or _onnx_has_cuda() else "cpu")
        network = OnnxNetwork(path, image_size, chosen)
        found = network.description
        if num_classes is not None and num_classes != found.architecture.num_classes:
            raise InputError(f"--num_classes {num_classes}: {path} has {found.architecture.num_classes} classes")
        if model_name is not None and architecture(model_name) != found.architecture.name:
            raise InputError(f"--model_name {model_name}: {path} holds {found.architecture.name}")
        size = image_size or found.image_size
        check_image_size(found.architecture.name, size)
        config = RunFolder(path.parent).config  # of the run that it was exported beside
        return cls(
            model=network.eval(),
            classes=found.class_set.classes,
            groups=found.class_set.groups,
            image_size=size,
            device=chosen,
            amp="off",
            config=parse_json(config.read_bytes(), config) if config.is_file() else {},
        )

    def score(
        self,
        images: Sequence[str],
        batch_size: int = DEFAULT_BATCH_SIZE,
        workers: int | None = None,
        progress: str | None = None,
        shared: bool = False,
        roots: Sequence[str] = (),
    ) -> Scores:
        """Probabilities of image files; unreadable ones are left out and named.

        Args:
            images: paths, N.
            batch_size: images at a time.
            workers: processes that decode; None for one a core.
            progress: label of the progress bar, None for no bar.
            shared: only this process's part of the images; `csl.predict.scoring.gather_scores` joins the parts.
            roots: folders that the files have to lie in, as `Annotations.roots`; () for anywhere.
        """
        workers = default_workers() if workers is None else workers
        dataset = self._dataset(images, roots)
        loader = create_loader(dataset, batch_size, workers if len(images) > batch_size else 0, shared=shared)
        return score([self.model], loader, self.device, autocast_dtype(self.amp, self.device), progress)

    def stream(
        self,
        images: Sequence[str],
        batch_size: int = DEFAULT_BATCH_SIZE,
        workers: int | None = None,
        roots: Sequence[str] = (),
    ) -> Iterator[Scored]:
        """Probabilities of image files as they come, in the order of the images, whatever their number.

        Decoding and network overlap. On a CPU several batches are under way at once, each on cores of its own, which
        do not wait for each other as the threads of one batch do. The arguments are those of `score`.
        """
        workers = default_workers() if workers is None else workers
        dataset = self._dataset(images, roots)
        loader = create_loader(dataset, batch_size, workers if len(images) > batch_size else 0)
        networks = copies(self.model, self.device) if len(images) > batch_size else [self.model]
        return stream(networks, loader, self.device, autocast_dtype(self.amp, self.device))

    def _dataset(self, images, roots):
        labels = LabelMatrix.from_entries([], [], [], (len(images), len(self.classes)))
        transform = EvalTransform(self.image_size)
        cache = open_cache(self.cache, images, transform, distributed.on_rank0(print))
        return ImageDataset(Annotations(images, labels, self.classes, roots=tuple(roots)), transform, cache=cache)

    def predict(self, image: Image.Image | str | Path) -> np.ndarray:
        """[C] probabilities in float32, in the order of `classes`, of one RGB Pillow image or image file."""
        if not isinstance(image, Image.Image):
            image = load_rgb(image)
        pixels = EvalTransform(self.image_size)(image).unsqueeze(0)  # [1, 3, H, W]
        x = pixels.to(self.device, torch.float32, memory_format=torch.channels_last).div_(255)
        dtype = autocast_dtype(self.amp, self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            logits = self.model(x)
        return torch.sigmoid(logits.float())[0].cpu().numpy()


def _onnx_has_cuda():
    return torch.cuda.is_available() and "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()


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
            values[attribute] = [_value_in(name, f"{attribute}:") for name in names]
    return values


def _value_in(name, prefix):
    """The last part of a class's name."""
    return name.removeprefix(prefix) if name.startswith(prefix) else name.rsplit(" ", 1)[-1]


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
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a list of images ({error})") from None
        lines = [line.strip() for line in text.splitlines()]
        found = [str(path.parent / line) for line in lines if line and not line.startswith("#")]
        if not found:
            raise InputError(f"{path}: an empty list, expected one image path a line")
        say(f"{path}: {len(found):,} images listed")
        return found
    return [str(path)]
