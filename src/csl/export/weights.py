"""The weights of a checkpoint as `.safetensors`, which `csl.checkpoint` reads again, bit for bit."""

import json
import shutil
import tempfile
from pathlib import Path

import torch

from csl import checkpoint
from csl.checkpoint import Checkpoint
from csl.errors import InputError
from csl.models.exported import Description


def write_weights(path: Path, loaded: Checkpoint, description: Description) -> None:
    """Write the tensors of a checkpoint, and what there is to know of them as metadata."""
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


def check_weights(temporary: Path, path: Path, loaded: Checkpoint) -> str:
    """Read the file as a checkpoint, in which every tensor has to be the same to the last bit.

    Args:
        temporary: what `write_weights` wrote.
        path: the checkpoint that was exported.
        loaded: its content.

    Returns:
        A line on what was found.

    Raises:
        InputError: something came back changed.
    """
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
