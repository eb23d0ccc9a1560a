"""From the flags of `python -m csl export` to a checked file."""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from csl import checkpoint
from csl.data.transforms import EvalTransform
from csl.engines.form import ExportForm
from csl.engines.onnx_file import describe, import_onnx
from csl.engines.onnx_network import OnnxNetwork, import_onnxruntime
from csl.errors import InputError, printable
from csl.export.checked import write_checked
from csl.export.int8 import quantise
from csl.export.weights import check_weights, write_weights
from csl.garments import make_garments
from csl.inference.options import NetworkOptions
from csl.inference.sources import annotations_for, checkpoint_path
from csl.inference.validate import evaluate
from csl.labels.options import DataOptions
from csl.machine.files import replacing, set_aside
from csl.predict import Predictor, find_images
from csl.predict.kept_decisions import read_decisions
from csl.ranges import DEFAULT_IMAGE_SIZE, check_ranges

FORMATS = ("onnx", "pt2", "safetensors")

PHOTOS = 16
"""Photos that a file is tried on."""

CALIBRATION = 256
"""Photos at most that int8 is calibrated on, spread evenly over those that were given."""


@dataclass
class ExportOptions:
    """The flags of `python -m csl export`, which explain each (`csl.cli.export`)."""

    format: str = "onnx"
    model_path: str | None = None
    weights_key: str | None = None
    out: str | None = None
    sigmoid: bool = False
    image_size: int | tuple[int, int] | None = None
    model_name: str | None = None
    num_classes: int | None = None
    check: str | None = None
    int8: bool = False
    calibrate: str | None = None
    data: str | None = None
    images: str | None = None
    split: str = "val"
    batch_size: int = NetworkOptions.batch_size
    workers: int | None = None


def export(options: ExportOptions, say: Callable[[str], None] = print) -> Path:
    """Write the network of a checkpoint in another format, compare the file's numbers with PyTorch's; returns the file.

    A file that differs, or that cannot be run, is not left behind.

    Raises:
        InputError: as `csl.checkpoint.load_model`, flags that do not go together, a missing package, or a network whose
            exported numbers differ.
    """
    _check_flags(options)
    path = checkpoint_path(options.model_path)
    if path.suffix in (".onnx", ".pt2"):
        raise InputError(f"--model_path {path}: is exported already, expected a checkpoint")
    say(f"network: {printable(str(path))}")
    model, loaded = checkpoint.load_model(
        path, options.model_name, options.num_classes, options.image_size, DEFAULT_IMAGE_SIZE, options.weights_key
    )
    if loaded.origin:
        say(loaded.origin)
    decisions = read_decisions(loaded.path, loaded.extra.get("decisions"), loaded.num_classes, loaded.groups)
    description = replace(describe(loaded, options.sigmoid), decisions=decisions.to_plain() if decisions else None)
    out = Path(options.out) if options.out else path.with_suffix(f"{'.int8' if options.int8 else ''}.{options.format}")
    if out.suffix != f".{options.format}":
        raise InputError(f"--out {out}: expected a name that ends in .{options.format}")
    with tempfile.TemporaryDirectory() as scratch, replacing(out) as temporary:
        if options.format == "safetensors":
            write_weights(temporary, loaded, description)
            line = check_weights(temporary, path, loaded)
        else:
            photos = _photos(options, loaded, description, scratch)
            target = Path(scratch, "float32.onnx") if options.int8 else temporary
            form = ExportForm(model, options.sigmoid)
            line = write_checked(form, description, options.format, target, photos)
            if options.int8:
                say(f"float32: {line}")
                line = _quantise(options, target, temporary, description, photos, loaded, say)
        if (aside := set_aside([out])) is not None:
            say(f"the file that was {out} is now in {aside}")
    say(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {line}")
    return out


# ------------------------------------------------------------------------------------------------- what is asked for


def _check_flags(options):
    check_ranges(vars(options))
    if options.format not in FORMATS:
        raise InputError(f"--format {options.format}: unknown, expected one of {', '.join(FORMATS)}")
    if options.format == "safetensors":
        for flag in ("sigmoid", "check"):
            if getattr(options, flag):
                raise InputError(
                    f"--{flag}: safetensors holds weights and no computation, expected --format onnx or pt2"
                )
    if options.int8 and options.format != "onnx":
        raise InputError(f"--int8: expected --format onnx, not {options.format}")
    if options.int8 and options.calibrate is None:
        raise InputError("--int8: expected --calibrate FOLDER of photos such as the network will see")
    if options.calibrate is not None and not options.int8:
        raise InputError("--calibrate: expected only with --int8")
    if options.format == "onnx":
        import_onnxruntime()
        import_onnx()


def _photos(options, loaded, description, scratch):
    """What the file is tried on, uint8 [N, 3, H, W]: the photos given, else the run's, else drawn garments."""
    if options.check is not None:
        paths, what = find_images(options.check, say=lambda line: None), options.check
    else:
        annotations = _annotations(options, loaded, description)
        images = annotations.images if annotations is not None else ()
        paths, what = [str(image) for image in islice(images, 2 * PHOTOS)], "validation images of the run"
        if not paths:
            folder = make_garments(Path(scratch, "garments"), num_train=1, num_val=PHOTOS, size=256, progress=False)
            paths, what = find_images(folder), "drawn garments"
    transform, pixels = EvalTransform(description.image_size, description.background), []
    for path in paths:
        with contextlib.suppress(InputError):  # one of many; if none can be read, that is said below
            pixels.append(transform.augmented(transform.read(path)))
        if len(pixels) == PHOTOS:
            break
    if not pixels:
        raise InputError(f"--check {what}: none of its {len(paths):,} images can be read")
    return torch.stack(pixels), f"{len(pixels)} of {what}" if len(paths) > 1 else what


def _annotations(options, loaded, description):
    """The labelled images of --data or of the checkpoint's run, None where the run's data is not on this machine."""
    config = loaded.extra.get("config") or {}
    if options.data is None and not config.get("data"):
        return None
    classes, groups = description.class_set.classes, description.class_set.groups
    try:
        return annotations_for(DataOptions.of(options), options.split, config, classes, groups, loaded.path)[0]
    except InputError:
        if options.data is not None:
            raise
        return None


# --------------------------------------------------------------------------------------------------------------- int8


def _quantise(options, float32, int8, description, photos, loaded, say):
    """Quantise a checked float32 file; returns a line with what it costs."""
    paths = find_images(options.calibrate, say=lambda line: None)
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(CALIBRATION, len(paths))).astype(int))]
    transform = EvalTransform(description.image_size, description.background)

    def batches():
        for name in chosen:
            with contextlib.suppress(InputError):
                yield (transform.augmented(transform.read(name))[None].float() / 255).numpy()  # [1, 3, H, W]

    quantise(float32, int8, batches, replace(description, precision="int8"), options.calibrate)
    before, after = (OnnxNetwork(file) for file in (float32, int8))
    x = photos[0].float() / 255
    apart = (before(x).sigmoid() - after(x).sigmoid()).abs().max().item()
    line = f"calibrated on {len(chosen)} of {options.calibrate}; probabilities up to {apart:.2g} from float32's on {photos[1]}"
    annotations = _annotations(options, loaded, description)
    if annotations is None:
        say("no labelled data: expected --data DIR for the mAP before and after")
        return line
    config = {"batch_size": options.batch_size, "workers": options.workers, "say": say}
    classes, maps = description.class_set, []
    for network, name in ((before, "float32"), (after, "int8")):
        predictor = Predictor(network, classes.classes, classes.groups, description.image_size, torch.device("cpu"))
        predictor.background = description.background
        maps.append(evaluate(predictor, annotations, **config).numbers["mAP"])
        say(f"mAP {name:8}{maps[-1]:6.2f}")
    return f"{line}; mAP {maps[0]:.2f} -> {maps[1]:.2f} on {len(annotations):,} images of {annotations.source}"
