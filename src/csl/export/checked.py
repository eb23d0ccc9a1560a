"""A network written as `.onnx` or `.pt2`, and its numbers compared with PyTorch's."""

import contextlib
import io
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from csl.engines.form import ExportForm
from csl.engines.onnx_file import free_dimensions, quietly, write_onnx
from csl.engines.onnx_network import OnnxNetwork
from csl.engines.proof import TOLERANCE, difference
from csl.errors import InputError, in_words
from csl.models import CONFIGS
from csl.models.description import Description
from csl.models.tresnet import SIZE_STEP

METADATA = "csl.json"
"""Extra file inside a `.pt2` that holds the metadata, a JSON object of texts."""


def write_checked(
    form: ExportForm, description: Description, format_: str, path: Path, photos: tuple[Tensor, str]
) -> str:
    """Write a network for images of any size where it takes them, else of one, and compare the file's numbers.

    Args:
        form: the network, as it is exported.
        description: what the file says of it.
        format_: "onnx" or "pt2".
        path: the file to write.
        photos: uint8 [N, 3, H, W] that it is tried on, and what these are, in words.

    Returns:
        A line on what was found.

    Raises:
        InputError: it cannot be exported, does not run, or gives other numbers than PyTorch.
    """
    write = {"onnx": write_onnx, "pt2": _write_pt2}[format_]
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
    if description.architecture.name in CONFIGS:
        return True
    with torch.no_grad(), contextlib.suppress(Exception):  # each network has its own way to refuse
        form(torch.zeros(1, 3, *_other_size(description)))
        return True
    return False


def _other_size(description):
    height, width = description.height_width
    return height + 5 * SIZE_STEP, width + 3 * SIZE_STEP  # the maps inside become odd, which even sizes hide


def _write_pt2(form, description, path, any_size):
    example = torch.rand(2, 3, *description.height_width)
    buffer = io.BytesIO()
    try:
        with quietly():
            program = torch.export.export(form, (example,), dynamic_shapes=(free_dimensions(description, any_size),))
            torch.export.save(program, buffer, extra_files={METADATA: json.dumps(description.to_metadata())})
    except Exception as error:  # of data-dependent control flow, of constraints: no common base
        reason = in_words(error)
        raise InputError(f"{description.architecture.name}: cannot be exported by torch.export ({reason})") from error
    path.write_bytes(buffer.getvalue())


def _load_pt2(path):
    """The network and the metadata of a `.pt2` file that `_write_pt2` wrote a moment ago."""
    extra = {METADATA: ""}
    with quietly():
        program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
    return program.module(), json.loads(extra[METADATA])


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
        if format_ == "onnx":
            network = OnnxNetwork(path, size)
            run, metadata = network.outputs, network.description.to_metadata()
        else:
            run, metadata = _load_pt2(path)
        if metadata != description.to_metadata():
            raise InputError(f"{path}: its metadata came back changed")
        for batch in batches:
            with torch.inference_mode():
                expected = form(batch)
                try:
                    found = run(batch)
                except Exception as error:  # of ONNX Runtime, or of a guard in a pt2: no common base
                    reason = in_words(error)
                    raise InputError(
                        f"{description.architecture.name}: the exported file does not run ({reason})"
                    ) from error
            worst = max(worst, difference(found, expected, description.sigmoid))
    if worst > TOLERANCE:
        raise InputError(
            f"{description.architecture.name}: the exported file gives other numbers than PyTorch on {what}, by {worst:.3g}; "
            f"expected at most {TOLERANCE:g}"
        )
    sizes = (
        "any batch and image size"
        if any_size
        else f"any batch of {'x'.join(map(str, description.height_width))} pixels"
    )
    return f"{sizes}; {description.output} equal PyTorch's to {worst:.1g} on {what}"
