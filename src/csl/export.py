"""`python -m csl export`: a trained network as a file that other programs run, and the proof that it gives the same numbers."""

import contextlib
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csl import checkpoint
from csl.data.garments import make_garments
from csl.data.images import load_rgb
from csl.data.transforms import EvalTransform
from csl.errors import InputError
from csl.evaluation import evaluate
from csl.export_form import ExportForm
from csl.export_int8 import quantise
from csl.exported import INPUT, SUFFIXES, Description
from csl.files import replacing
from csl.models import CONFIGS, check_image_size
from csl.models.tresnet import SIZE_MIN, SIZE_STEP
from csl.onnx_network import INSTALL, SIZE_NAMES, OnnxNetwork, import_onnxruntime
from csl.predict import DEFAULT_IMAGE_SIZE, Predictor, find_images
from csl.pt2_network import METADATA, Pt2Network
from csl.sources import annotations_for, checkpoint_path

FORMATS = ("onnx", "pt2", "safetensors")

TOLERANCE = 1e-4
"""The largest difference from PyTorch that is accepted: of a probability, and of a logit (of the largest one, over 1)."""

OPSET = 17

PHOTOS = 16
"""Photos that a file is tried on."""

CALIBRATION = 256
"""Photos at most that int8 is calibrated on, spread evenly over those that were given."""


@dataclass
class ExportOptions:
    """The flags of `python -m csl export`, which explain each (`csl.cli.export`)."""

    format: str = "onnx"
    model_path: str | None = None
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
    batch_size: int = 32
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
    if path.suffix in SUFFIXES:
        raise InputError(f"--model_path {path}: is exported already, expected a checkpoint")
    model, loaded = checkpoint.load_model(path, options.model_name, options.num_classes)
    description = _describe(loaded, options)
    out = Path(options.out) if options.out else path.with_suffix(f"{'.int8' if options.int8 else ''}.{options.format}")
    if out.suffix != f".{options.format}":
        raise InputError(f"--out {out}: expected a name that ends in .{options.format}")
    with tempfile.TemporaryDirectory() as scratch, replacing(out) as temporary:
        if options.format == "safetensors":
            _write_safetensors(temporary, loaded, description)
            line = _check_safetensors(temporary, path, loaded)
        else:
            photos = _photos(options, loaded, description, scratch)
            target = Path(scratch, "float32.onnx") if options.int8 else temporary
            form = ExportForm(model, options.sigmoid)
            line = _export_checked(form, description, options.format, target, photos)
            if options.int8:
                say(f"float32: {line}")
                line = _quantise(options, target, temporary, description, photos, path, say)
    say(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {line}")
    return out


# ------------------------------------------------------------------------------------------------- what is asked for


def _check_flags(options):
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
        _import_onnx()


def _import_onnx():
    try:
        import onnx
    except ImportError as error:
        raise InputError(f"onnx is not installed ({error}): {INSTALL}") from error
    return onnx


def _describe(loaded, options):
    config = loaded.extra.get("config") or {}
    size = options.image_size or config.get("image_size") or DEFAULT_IMAGE_SIZE
    size = size if isinstance(size, int) else tuple(size)
    check_image_size(loaded.model_name, size)
    classes = loaded.classes or [f"class {i}" for i in range(loaded.num_classes)]
    keys = loaded.extra.get("idx_to_class") or {}
    by_index = {int(k): str(v) for k, v in (keys.items() if isinstance(keys, Mapping) else enumerate(keys))}
    return Description(
        model_name=loaded.model_name,
        head=loaded.head,
        classes=list(classes),
        keys=[by_index.get(i, name) for i, name in enumerate(classes)],
        groups=loaded.groups,
        image_size=size,
        sigmoid=options.sigmoid,
        version=version("csl"),
    )


def _photos(options, loaded, description, scratch):
    """What the file is tried on, uint8 [N, 3, H, W]: the photos given, else the run's, else drawn garments."""
    if options.check is not None:
        paths, what = find_images(options.check, say=lambda line: None), options.check
    else:
        paths, what = _own_photos(options, loaded, description), "validation images of the run"
        if not paths:
            folder = make_garments(Path(scratch, "garments"), num_train=1, num_val=PHOTOS, size=256, progress=False)
            paths, what = find_images(folder), "drawn garments"
    transform, pixels = EvalTransform(description.image_size), []
    for path in paths:
        with contextlib.suppress(InputError):  # one of many; if none can be read, that is said below
            pixels.append(transform(load_rgb(path)))
        if len(pixels) == PHOTOS:
            break
    if not pixels:
        raise InputError(f"--check {what}: none of its {len(paths):,} images can be read")
    return torch.stack(pixels), f"{len(pixels)} of {what}" if len(paths) > 1 else what


def _own_photos(options, loaded, description):
    """Paths of validation images, [] where the checkpoint is of no run or its data is not here."""
    config = loaded.extra.get("config") or {}
    if options.data is None and not config.get("data"):
        return []
    flags = {"images": options.images} if options.images else {}
    try:
        annotations, _ = annotations_for(_reader(description, config), options.data, options.split, flags)
    except InputError:
        if options.data is not None:
            raise
        return []
    return [str(image) for image in islice(annotations.images, 2 * PHOTOS)]


def _reader(description, config):
    """A Predictor as far as reading its annotations goes."""
    return Predictor(nn.Identity(), description.classes, description.groups, description.image_size,
                     torch.device("cpu"), config=config)  # fmt: skip


# -------------------------------------------------------------------------------------------------- writing and proof


def _export_checked(form, description, format_, path, photos):
    """Write `form` and compare it; images of any size where the network takes them. Returns a line on what was found."""
    write = {"onnx": _write_onnx, "pt2": _write_pt2}[format_]
    reason = None
    for any_size in (True, False) if _takes_other_sizes(form, description) else (False,):
        try:
            write(form, description, path, any_size)
            return _compare(form, description, path, format_, photos, any_size)
        except InputError as error:
            reason = reason or error
    raise reason


def _takes_other_sizes(form, description):
    """Whether the PyTorch network runs on images of another size: convolutional ones do, most transformers do not."""
    if description.model_name in CONFIGS:
        return True
    with torch.no_grad(), contextlib.suppress(Exception):  # each network has its own way to refuse
        form(torch.zeros(1, 3, *_other_size(description)))
        return True
    return False


def _other_size(description):
    height, width = description.height_width
    return height + 5 * SIZE_STEP, width + 3 * SIZE_STEP  # the maps inside become odd, which even sizes hide


def _write_onnx(form, description, path, any_size):
    """By TorchScript's exporter, quick and the same in every PyTorch from 2.6, or by the new one where that is missing."""
    example = torch.rand(2, 3, *description.height_width)
    names = {0: "batch"} | (dict(zip((2, 3), SIZE_NAMES, strict=True)) if any_size else {})
    settings: dict[str, Any] = {"input_names": [INPUT], "output_names": [description.output], "opset_version": OPSET}
    errors = []
    for options in (
        {"dynamo": False, "dynamic_axes": {INPUT: names, description.output: {0: "batch"}}},
        {"dynamo": True, "dynamic_shapes": (_dims(description, any_size),), "external_data": False},
    ):
        with _quietly():
            try:
                torch.onnx.export(form, (example,), str(path), **settings, **options)
                break
            except Exception as error:  # of a missing exporter, of an operator without translation: no common base
                errors.append(" ".join(str(error).split())[:160])
    else:
        raise InputError(f"{description.model_name}: cannot be exported to ONNX ({'; '.join(errors)})")
    onnx = _import_onnx()
    content = onnx.load(str(path))
    onnx.helper.set_model_props(content, description.to_metadata())
    onnx.save(content, str(path))


def _write_pt2(form, description, path, any_size):
    example = torch.rand(2, 3, *description.height_width)
    buffer = io.BytesIO()
    try:
        with _quietly():
            program = torch.export.export(form, (example,), dynamic_shapes=(_dims(description, any_size),))
            torch.export.save(program, buffer, extra_files={METADATA: json.dumps(description.to_metadata())})
    except Exception as error:  # of data-dependent control flow, of constraints: no common base
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{description.model_name}: cannot be exported by torch.export ({reason})") from error
    path.write_bytes(buffer.getvalue())


def _dims(description, any_size):
    """What torch.export is told of the input: any batch, and sides that divide by 4 where the network asks for that."""
    dims = {0: torch.export.Dim("batch", min=1, max=1 << 16)}
    if any_size:
        step = SIZE_STEP if description.model_name in CONFIGS else 1
        for axis, name in zip((2, 3), SIZE_NAMES, strict=True):
            dims[axis] = (
                step * torch.export.Dim(name, min=SIZE_MIN // step, max=1 << 14) if step > 1 else torch.export.Dim.AUTO
            )
    return dims


def _compare(form, description, path, format_, photos, any_size):
    """Run the file on the photos, together and one by one, and in another size; InputError where it differs."""
    pixels, what = photos
    x = pixels.float() / 255  # [N, 3, H, W]
    cases = [(description.height_width, (x, x[:1]))]
    if any_size:
        size = _other_size(description)
        cases.append((size, (F.interpolate(x[:3], size),)))
    worst = 0.0
    for size, batches in cases:
        network = OnnxNetwork(path, size) if format_ == "onnx" else Pt2Network(path)
        if network.description != description:
            raise InputError(f"{path}: its metadata came back changed")
        for batch in batches:
            with torch.inference_mode():
                expected = form(batch)
                try:
                    found = network.outputs(batch)
                except Exception as error:  # of ONNX Runtime, or of a guard in a pt2: no common base
                    reason = " ".join(str(error).split())[:160]
                    raise InputError(f"{description.model_name}: the exported file does not run ({reason})") from error
            worst = max(worst, _difference(found, expected, description.sigmoid))
    if not worst <= TOLERANCE:  # NaN is no agreement
        raise InputError(
            f"{description.model_name}: the exported file gives other numbers than PyTorch on {what}, by {worst:.3g}; "
            f"expected at most {TOLERANCE:g}"
        )
    sizes = (
        "any batch and image size"
        if any_size
        else f"any batch of {'x'.join(map(str, description.height_width))} pixels"
    )
    return f"{sizes}; {description.output} equal PyTorch's to {worst:.1g} on {what}"


def _difference(found: Tensor, expected: Tensor, sigmoid: bool) -> float:
    """The largest difference of a probability and, relative to the largest one where that is over 1, of a logit."""
    if found.shape != expected.shape:
        return float("inf")
    if sigmoid:
        return (found - expected).abs().max().item()
    probabilities = (found.sigmoid() - expected.sigmoid()).abs().max()
    logits = (found - expected).abs().max() / expected.abs().max().clamp(min=1)
    return torch.maximum(probabilities, logits).item()


def _write_safetensors(path, loaded, description):
    from safetensors.torch import save_file

    state = {key: value.contiguous().clone() for key, value in loaded.state_dict.items()}  # no shared storage
    save_file(state, path, description.to_metadata() | _checkpoint_metadata(loaded, description))


def _checkpoint_metadata(loaded, description):
    """What `csl.checkpoint.read` looks for in a checkpoint, beside what every export has."""
    config = {"image_size": description.image_size}
    return {
        "idx_to_class": json.dumps(dict(enumerate(description.keys)), ensure_ascii=False),
        "config": json.dumps(config),
    }


def _check_safetensors(temporary, path, loaded):
    """Read the file as a checkpoint, in which every tensor has to be the same to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder, "weights.safetensors")  # the suffix tells the reader
        shutil.copyfile(temporary, named)
        found = checkpoint.read(named)
    same = found.state_dict.keys() == loaded.state_dict.keys() and all(
        value.dtype == loaded.state_dict[key].dtype and torch.equal(value, loaded.state_dict[key])
        for key, value in found.state_dict.items()
    )
    if not same or (found.model_name, found.head, found.num_groups, found.groups) != (
        loaded.model_name, loaded.head, loaded.num_groups, loaded.groups
    ):  # fmt: skip
        raise InputError(f"{path}: the exported weights did not come back as they were")
    return f"{len(found.state_dict)} tensors, bit for bit those of {path}"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Exporters report on their own work at length; what matters is said when the file is compared."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


# --------------------------------------------------------------------------------------------------------------- int8


def _quantise(options, float32, int8, description, photos, path, say):
    """Quantise a checked float32 file; returns a line with what it costs."""
    paths = find_images(options.calibrate, say=lambda line: None)
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(CALIBRATION, len(paths))).astype(int))]
    transform = EvalTransform(description.image_size)

    def batches():
        for name in chosen:
            with contextlib.suppress(InputError):
                yield (transform(load_rgb(name)).unsqueeze(0).float() / 255).numpy()  # [1, 3, H, W]

    quantise(float32, int8, batches, replace(description, precision="int8"), options.calibrate)
    before, after = (OnnxNetwork(file) for file in (float32, int8))
    x = photos[0].float() / 255
    apart = (before(x).sigmoid() - after(x).sigmoid()).abs().max().item()
    line = f"calibrated on {len(chosen)} of {options.calibrate}; probabilities up to {apart:.2g} from float32's on {photos[1]}"
    annotations = _labelled(options, description, path)
    if annotations is None:
        say("no labelled data: expected --data DIR for the mAP before and after")
        return line
    config = {"batch_size": options.batch_size, "workers": options.workers, "say": say}
    maps = []
    for network, name in ((before, "float32"), (after, "int8")):
        predictor = Predictor(
            network, description.classes, description.groups, description.image_size, torch.device("cpu")
        )
        maps.append(evaluate(predictor, annotations, **config).numbers["mAP"])
        say(f"mAP {name:8}{maps[-1]:6.2f}")
    return f"{line}; mAP {maps[0]:.2f} -> {maps[1]:.2f} on {len(annotations):,} images of {annotations.source}"


def _labelled(options, description, path):
    config = checkpoint.read(path).extra.get("config") or {}
    if options.data is None and not config.get("data"):
        return None
    flags = {"images": options.images} if options.images else {}
    try:
        return annotations_for(_reader(description, config), options.data, options.split, flags)[0]
    except InputError:
        if options.data is not None:
            raise
        return None
