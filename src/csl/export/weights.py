"""The weights of a checkpoint as `.safetensors`, which `csl.checkpoint` reads again bit for bit, or as timm names them."""

import json
import shutil
import tempfile
from pathlib import Path

import torch

from csl import checkpoint
from csl.checkpoint import Checkpoint
from csl.errors import InputError
from csl.machine.files import replacing
from csl.models import CONFIGS, timm_weights
from csl.models.description import Description


def write_weights(path: Path, loaded: Checkpoint, description: Description) -> None:
    """Write the tensors of a checkpoint, with the description and the facts of a checkpoint as metadata."""
    from safetensors.torch import save_file

    state = {key: value.contiguous().clone() for key, value in loaded.state_dict.items()}  # no shared storage
    metadata = description.to_metadata() | {
        "idx_to_class": json.dumps(dict(enumerate(description.class_set.keys)), ensure_ascii=False),
        "config": json.dumps({"image_size": description.image_size, "val_split": description.own_split or None}),
    }
    save_file(state, path, metadata)


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
    if not same or (found.architecture, found.groups) != (loaded.architecture, loaded.groups):
        raise InputError(f"{path}: the exported weights did not come back as they were")
    return f"{len(found.state_dict)} tensors, bit for bit those of {path}"


def write_as_timm(path: str | Path, out: str | Path) -> str:
    """Write a TResNet's weights as timm's state dict, `.safetensors` or `.pth`; returns a line that says how to load it.

    Raises:
        InputError: no checkpoint, no TResNet, an ML-Decoder head, or a file that is already there.
    """
    loaded, out = checkpoint.read(path), Path(out)
    if out.exists():
        raise InputError(f"{out}: already exists, choose another file")
    if loaded.model_name not in CONFIGS:
        raise InputError(f"{loaded.path}: not a TResNet, expected one: a network of timm has timm's names already")
    try:
        state = {key: value.contiguous() for key, value in timm_weights.to_timm(loaded.state_dict).items()}
    except InputError as error:
        raise InputError(f"{loaded.path}: {error}") from error
    with replacing(out) as temporary:
        if out.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(state, temporary)
        else:
            torch.save(state, temporary)
    timm_name = timm_weights.timm_name(loaded.model_name)
    line = f"{loaded.origin}\n" if loaded.origin else ""
    line += (
        f"{out}: {len(state)} tensors, for timm.create_model({timm_name!r}, num_classes={loaded.num_classes or 0}, "
        f"checkpoint_path={str(out)!r})"
    )
    if loaded.model_name == "tresnet_l_v2":
        line += "\nits leaky slopes are 1e-6, and timm's tresnet_v2_l has 1e-3 and 1e-2: the logits will differ"
    return line
