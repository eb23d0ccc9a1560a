"""A trained network that takes images and gives probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from csl import checkpoint
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader, default_workers
from csl.data.photo_cache import open_cache
from csl.data.transforms import EvalTransform
from csl.decisions import Decisions
from csl.engines.choice import choose_engine, run_exported, wanted_engine
from csl.engines.exported import ExportedNetwork
from csl.engines.onnx_file import describe
from csl.engines.onnx_network import import_onnxruntime
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.machine import distributed
from csl.machine.files import parse_json
from csl.models import architecture, check_image_size, fuse
from csl.models.abn import describe_abn
from csl.models.compiling import compile_network
from csl.models.heat_maps import heat_maps
from csl.ops import set_abn_backend
from csl.predict.kept_decisions import read_decisions
from csl.predict.scoring import Scores, autocast_dtype, choose_device, score, to_input
from csl.predict.streaming import Scored, collected, copies, stream
from csl.ranges import DEFAULT_BATCH_SIZE, DEFAULT_IMAGE_SIZE
from csl.runs.folder import RunFolder


@dataclass
class Predictor:
    """A trained network, ready for images.

    Attributes:
        model: images [B, 3, H, W] in [0, 1] to logits [B, C], on `device`: an engine's (`csl.engines`), or PyTorch's in
            inference form (`csl.models.fusion`), unless `abn` is set.
        classes: C names; MIDs if the checkpoint has these.
        groups: for attributes, the slice of classes of each.
        image_size: side, or (H, W), that images are resized to.
        device: device of the model.
        amp: as in `csl.predict.scoring.autocast_dtype`.
        config: the settings of the run that made the checkpoint, empty for foreign files.
        abn: one line that names the backend of InPlace-ABN, None if it is folded into the convolutions.
        cache: folder of resized photos (`csl.data.photo_cache`), None for no cache.
        origin: one line on which weights of the file were taken, None where nothing had to be chosen.
        background: the colour that transparent images are laid over (`csl.data.images.load_pixels`).
        decisions: calibration and thresholds of the file; None without. Scores are those of the network nonetheless.
        engine: what runs the network, by name and version.
        engine_line: one line that says which engine that is and why.
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
    origin: str | None = None
    background: str = "none"
    decisions: Decisions | None = None
    engine: str = "torch"
    engine_line: str | None = None

    def __post_init__(self):
        self._transform()  # raises InputError

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
        weights_key: str | None = None,
        background: str | None = None,
        engine: str = "auto",
    ) -> "Predictor":
        """Load the network of a checkpoint, at the image size of its training unless another is given.

        Args:
            path: a checkpoint of any format that `csl.checkpoint` reads, or an exported `.onnx`.
            model_name: needed for a foreign file of a timm network.
            num_classes: expected number of classes, None for any.
            image_size: side or (H, W) in pixels.
            default_image_size: used if neither the caller nor the file gives a size.
            device: None for a GPU if there is one.
            amp: "auto", "bf16", "fp16" or "off".
            abn: None to fold InPlace-ABN into the convolutions, or the backend (`csl.ops.ABN_BACKENDS`) that its layers
                run on, here and in all of this process.
            compile: compile the network when it first runs.
            weights_key: which of the state dicts in the file, as in `csl.checkpoint.read`.
            background: as the attribute; None for that of the training.
            engine: what runs the network on a CPU: "torch", "openvino", "onnx", or "auto" for the fastest that is installed,
                if it gives PyTorch's numbers, which is tried once (`csl.engines.choice`).

        Raises:
            InputError: as `csl.checkpoint.load_model`, a size that the network does not take, a backend or an engine that
                does not run here, or no compiler; for an exported file as `OnnxNetwork`, or a setting that an exported file
                does not take.
        """
        if Path(path).suffix == ".pt2":
            raise InputError(f"{path}: .pt2 files do not run here, use the .onnx file or the checkpoint")
        if Path(path).suffix == ".onnx":
            given = {"--abn": abn, "--compile": compile, "--weights_key": weights_key}
            given |= {f"--amp {amp}": amp not in ("auto", "off")}
            if flag := next((name for name, value in given.items() if value), None):
                raise InputError(
                    f"{flag}: {path} is exported and runs as it is: run without {flag}, or give a checkpoint"
                )
            return cls._load_onnx(Path(path), model_name, num_classes, image_size, device, background, engine)
        if abn is not None:
            set_abn_backend(abn)
        model, loaded = checkpoint.load_model(
            path, model_name, num_classes, image_size, default_image_size, weights_key
        )
        config = loaded.extra.get("config") or {}
        chosen = choose_device(device)
        if amp == "auto" and wanted_engine(engine) == "onnx":
            amp = "off"  # the one precision that it has on a CPU
        autocast_dtype(amp, chosen)
        model = model.to(chosen, memory_format=torch.channels_last).eval()
        line = None if abn is None else describe_abn(model, chosen)
        if abn is not None and line is None:
            raise InputError(f"--abn {abn}: {loaded.model_name} has no InPlace-ABN, expected a TResNet or no --abn")
        pytorch = fuse(model) if abn is None else model
        description = describe(loaded)
        description = replace(description, background=background or description.background)
        runs = choose_engine(
            engine, model, compile_network(pytorch, chosen) if compile else pytorch, loaded.path, description, chosen,
            autocast_dtype(amp, chosen), {"exclusive": str(loaded.exclusive), "with_norm": loaded.with_norm},
            "InPlace-ABN is kept as layers" if abn is not None else "it is compiled" if compile else None,
        )  # fmt: skip
        return cls(
            model=runs.network,
            classes=loaded.classes or [f"class {i}" for i in range(loaded.num_classes)],
            groups=loaded.groups,
            image_size=loaded.image_size,
            device=chosen,
            amp=amp,
            config=config,
            abn=line,
            origin=loaded.origin,
            background=description.background,
            engine=runs.name,
            engine_line=runs.line,
            decisions=read_decisions(loaded.path, loaded.extra.get("decisions"), loaded.num_classes, loaded.groups),
        )

    @classmethod
    def _load_onnx(cls, path, model_name, num_classes, image_size, device, background, engine):
        if not path.is_file():
            raise InputError(f"{path}: no such file, expected an exported network")
        chosen = choose_device(device if device or (engine != "openvino" and _onnx_has_cuda()) else "cpu")
        runs = run_exported(engine, path, image_size, chosen)
        found = runs.network.description
        if num_classes is not None and num_classes != found.architecture.num_classes:
            raise InputError(f"--num_classes {num_classes}: {path} has {found.architecture.num_classes} classes")
        if model_name is not None and architecture(model_name) != found.architecture.name:
            raise InputError(f"--model_name {model_name}: {path} holds {found.architecture.name}")
        size = image_size or found.image_size
        if size != found.image_size:
            check_image_size(found.architecture.name, size)
        config = RunFolder(path.parent).config  # of the run that it was exported beside
        known = {"val_split": True} if found.own_split else {}
        return cls(
            model=runs.network.eval(),
            classes=found.class_set.classes,
            groups=found.class_set.groups,
            image_size=size,
            device=chosen,
            amp="off",
            config=parse_json(config.read_bytes(), config) if config.is_file() else known,
            background=background or found.background,
            decisions=read_decisions(path, found.decisions, len(found.class_set.classes), found.class_set.groups),
            engine=runs.name,
            engine_line=runs.line,
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
        """Probabilities of image files; unreadable files are left out and named.

        Args:
            images: paths, N.
            batch_size: images at a time.
            workers: processes that decode images; None for one a core.
            progress: label of the progress bar, None for no bar.
            shared: score only this process's part of the images; `csl.predict.scoring.gather_scores` joins the parts.
            roots: folders that the files must lie in, as `Annotations.roots`; () for no limit.
        """
        if isinstance(self.model, ExportedNetwork) and distributed.world_size() == 1:
            return collected(self.stream(images, batch_size, workers, roots), len(images), progress)
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

        Decoding and network overlap. On a CPU several batches run at once, each on its own cores: these do not wait for
        each other, as the threads of one batch do. The arguments are those of `score`.
        """
        workers = default_workers() if workers is None else workers
        dataset = self._dataset(images, roots)
        loader = create_loader(dataset, batch_size, workers if len(images) > batch_size else 0)
        networks = copies(self.model, self.device) if len(images) > batch_size else [self.model]
        return stream(networks, loader, self.device, autocast_dtype(self.amp, self.device))

    def _transform(self):
        return EvalTransform(self.image_size, self.background)

    def _dataset(self, images, roots):
        labels = LabelMatrix.from_entries([], [], [], (len(images), len(self.classes)))
        transform = self._transform()
        cache = open_cache(self.cache, images, transform, distributed.on_rank0(print))
        return ImageDataset(Annotations(images, labels, self.classes, roots=tuple(roots)), transform, cache=cache)

    def predict(self, image: Image.Image | str | Path) -> np.ndarray:
        """Probabilities of one image file, or RGB Pillow image: float32 [C], in the order of `classes`.

        A file gives what `score` gives. Of a large JPEG an image has more pixels than are read here: pass its path.
        """
        transform = self._transform()
        pixels = transform.resized(image) if isinstance(image, Image.Image) else transform.read(image)
        x = to_input(transform.augmented(pixels)[None], self.device)  # [1, 3, H, W]
        dtype = autocast_dtype(self.amp, self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            logits = self.model(x)
        return torch.sigmoid(logits.float())[0].cpu().numpy()

    def heat_maps(self, image: str | Path, classes: Sequence[int], roots: Sequence[str] = ()) -> np.ndarray:
        """Where in an image file the network saw each of some classes: float32 [K, h, w] (`csl.models.heat_maps`).

        Raises:
            InputError: a file that cannot be read, or a network without maps: an exported one, or on another engine than
                PyTorch (`load` it with engine="torch").
        """
        pixels = self._transform().read(image, roots)  # the whole image, its aspect ratio not kept
        x = to_input(self._transform().augmented(pixels)[None], self.device)  # [1, 3, H, W]
        return heat_maps(self.model, x, classes).cpu().numpy()


def _onnx_has_cuda():
    return torch.cuda.is_available() and "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()
