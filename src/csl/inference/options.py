"""The settings that every script with a trained network shares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from csl.errors import printable
from csl.predict import DEFAULT_BATCH_SIZE, DEFAULT_IMAGE_SIZE, Predictor


@dataclass(kw_only=True)
class NetworkOptions:
    """Which network runs, and how.

    Attributes:
        model_path: a checkpoint, an exported file, the folder of a run or the name of published weights; None for the
            best checkpoint of the run in `path_dest`, else of the last run (`csl.inference.sources.checkpoint_path`).
        weights_key: which of the state dicts in the file (`csl.checkpoint.read`); None to look for it.
        model_name: the network's name, needed for a foreign file of a timm network.
        num_classes: the number of classes that the file is expected to have.
        image_size: side or (H, W) in pixels; None for the size that the network was trained with.
        background: the colour that transparent images are laid over, or "none" (`csl.data.images.load_pixels`); None for that
            of the training.
        device: "cuda", "cuda:1", "cpu"; None for a GPU if there is one.
        amp: "auto", "bf16", "fp16" or "off" (`csl.predict.scoring.autocast_dtype`).
        abn: None to fold InPlace-ABN into the convolutions, or the backend that runs its layers.
        compile: compile the network when it first runs.
        batch_size: images at a time, in each process.
        workers: processes that decode images; None for one a core.
        cache: folder where resized photos are kept for the next time.
    """

    model_path: str | None = None
    weights_key: str | None = None
    model_name: str | None = None
    num_classes: int | None = None
    image_size: int | tuple[int, int] | None = None
    background: str | None = None
    device: str | None = None
    amp: str = "auto"
    abn: str | None = None
    compile: bool = False
    batch_size: int = DEFAULT_BATCH_SIZE
    workers: int | None = None
    cache: str | None = None


def load_predictor(
    options: NetworkOptions, path: Path, say: Callable[[str], None], default_image_size: int = DEFAULT_IMAGE_SIZE
) -> Predictor:
    """Load the network of the file `path`, which a line names, as the options say; another tells which of its weights were
    taken, and one what runs InPlace-ABN's layers.

    Raises:
        InputError: as `Predictor.load`.
    """
    say(f"network: {printable(str(path))}")
    predictor = Predictor.load(
        path, options.model_name, options.num_classes, options.image_size, default_image_size,
        device=options.device, amp=options.amp, abn=options.abn, compile=options.compile, weights_key=options.weights_key,
        background=options.background,
    )  # fmt: skip
    predictor.cache = options.cache
    for line in filter(None, (predictor.origin, predictor.abn)):
        say(line)
    return predictor
