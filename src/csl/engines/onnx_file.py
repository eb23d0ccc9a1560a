"""A network written as an `.onnx` file."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from csl.checkpoint import Checkpoint
from csl.engines.exported import NotInstalled
from csl.engines.form import ExportForm
from csl.engines.onnx_network import INSTALL, SIZE_NAMES
from csl.errors import InputError, in_words
from csl.labels.class_set import ClassSet
from csl.models import CONFIGS
from csl.models.description import INPUT, Description
from csl.models.tresnet import SIZE_MIN, SIZE_STEP

OPSET = 17


def describe(loaded: Checkpoint, sigmoid: bool = False) -> Description:
    """What an exported file of a checkpoint that was loaded says of its network; `sigmoid` for one of probabilities."""
    numbered = [f"class {i}" for i in range(loaded.num_classes)]
    config = loaded.extra.get("config") or {}
    return Description(
        architecture=loaded.architecture,
        class_set=loaded.class_set or ClassSet(numbered, numbered),
        image_size=loaded.image_size,
        sigmoid=sigmoid,
        background=str(config.get("background") or "none"),
        own_split=config.get("val_split") is not None,
        version=version("csl"),
    )


def write_onnx(form: ExportForm, description: Description, path: Path, any_size: bool) -> None:
    """Write a network for any batch, by TorchScript's exporter, quick and the same in every PyTorch from 2.6, or by the new
    one where that is missing.

    Args:
        form: the network, as it is exported.
        description: what the file says of it, the image size among it.
        path: the file to write.
        any_size: of images of any size; else of that size alone.

    Raises:
        InputError: onnx is missing, or the network cannot be exported.
    """
    onnx = import_onnx()
    example = torch.rand(2, 3, *description.height_width)
    names = {0: "batch"} | (dict(zip((2, 3), SIZE_NAMES, strict=True)) if any_size else {})
    settings: dict[str, Any] = {"input_names": [INPUT], "output_names": [description.output], "opset_version": OPSET}
    errors = []
    for options in (
        {"dynamo": False, "dynamic_axes": {INPUT: names, description.output: {0: "batch"}}},
        {"dynamo": True, "dynamic_shapes": (free_dimensions(description, any_size),), "external_data": False},
    ):
        with quietly():
            try:
                torch.onnx.export(form, (example,), str(path), **settings, **options)
                break
            except OSError:
                raise
            except Exception as error:  # of a missing exporter, of an operator without translation: no common base
                errors.append(in_words(error))
    else:
        raise InputError(f"{description.architecture.name}: cannot be exported to ONNX ({'; '.join(errors)})")
    content = onnx.load(str(path))
    onnx.helper.set_model_props(content, description.to_metadata())
    onnx.save(content, str(path))


def free_dimensions(description: Description, any_size: bool) -> dict[int, Any]:
    """What torch.export is told of the input: any batch, and sides that divide by 4 where the network asks for that."""
    dims = {0: torch.export.Dim("batch", min=1, max=1 << 16)}
    if any_size:
        step = SIZE_STEP if description.architecture.name in CONFIGS else 1
        for axis, name in zip((2, 3), SIZE_NAMES, strict=True):
            dims[axis] = (
                step * torch.export.Dim(name, min=SIZE_MIN // step, max=1 << 14) if step > 1 else torch.export.Dim.AUTO
            )
    return dims


def import_onnx() -> Any:
    """The onnx package; `NotInstalled` with how to install it where it is missing."""
    try:
        import onnx
    except ImportError as error:
        raise NotInstalled(f"onnx is not installed ({error}): {INSTALL}") from error
    return onnx


@contextlib.contextmanager
def quietly() -> Iterator[None]:
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
