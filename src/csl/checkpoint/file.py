"""The file of a checkpoint: reads every format and writes one. Reading a file never executes code from it.

Read: `{"model", "num_classes", "idx_to_class"}` (the published releases), state dicts under any other key
(`csl.models.state_dicts`) or bare, names of tensors under any prefix, with or without `num_batches_tracked`; whatever else the
file holds (`csl.machine.unpickling`); safetensors; timm's TResNets; and files of `write`. The tensors tell the TResNet and
its head. The name of published weights (`csl.models.zoo`) stands for their file.
"""

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csl.errors import InputError, in_words, printable, shown
from csl.labels.class_set import ClassSet
from csl.labels.matching import few
from csl.machine.archive import check_archive, check_sums
from csl.machine.file_kinds import is_safetensors, other_kind
from csl.machine.files import replacing
from csl.machine.unpickling import StandIn, load_inert
from csl.models import timm_weights, zoo
from csl.models.description import FORMAT as DESCRIPTION_FORMAT
from csl.models.description import Architecture, checked_size
from csl.models.exclusive import exclusive_groups
from csl.models.recognition import recognise
from csl.models.state_dicts import (
    choose_state,
    find_states,
    shared_prefix,
    without_prefix,
    without_wrappers,
)

FORMAT = "csl-1"
WITH_NORM = "with_norm"
"""The key by which a checkpoint of today is told from an older one: see `Checkpoint.with_norm`."""

# What a fact may be in a file of another program, where the key may mean something else: other values are passed over.
_FACTS = {"model_name": str, "classes": list | tuple | Mapping, "head": (), "config": (), "groups": ()}


@dataclass
class Checkpoint:
    """A network's weights and the facts that the file states about them.

    Attributes:
        path: the file.
        state_dict: tensors by the original's parameter names, without wrapper prefixes.
        architecture: recognised from the tensors or recorded. Its name is None for a timm network in a foreign file, its
            `num_classes` where the network is not recognised.
        class_set: class names, keys and attributes; None where the file has no names.
        extra: everything else in the file (`epoch`, `optimizer`, `config`, ...).
        image_size: side or (H, W) of the images that `load_model` made the network for; None where nobody said.
        notes: what was chosen and left out in reading it, in words.
    """

    path: Path
    state_dict: dict[str, Tensor]
    architecture: Architecture = field(default_factory=Architecture)
    class_set: ClassSet | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    image_size: int | tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def with_norm(self) -> bool:
        """Whether a timm network with a head of ours applies its body's final norm: older files were trained without."""
        return bool(self.extra.get(WITH_NORM))

    @property
    def exclusive(self) -> list[slice]:
        """The groups of classes that exclude each other, in which the network gives softmax probabilities."""
        softmax = (self.extra.get("config") or {}).get("group_loss") == "softmax"
        return exclusive_groups(self.groups) if softmax else []

    @property
    def made_for(self) -> int | tuple[int, int] | None:
        """Side or (H, W) of the images that the weights were trained on, None where the file does not tell."""
        size = (self.extra.get("config") or {}).get("image_size")
        return None if size is None else checked_size(size, self.path)

    @property
    def origin(self) -> str | None:
        """The notes as one line that names the file; None where nothing had to be chosen."""
        return printable(f"{self.path}: {'; '.join(self.notes)}") if self.notes else None

    @property
    def model_name(self) -> str | None:
        """`architecture.name`."""
        return self.architecture.name

    @property
    def head(self) -> str:
        """`architecture.head`."""
        return self.architecture.head

    @property
    def num_classes(self) -> int | None:
        """`architecture.num_classes`."""
        return self.architecture.num_classes

    @property
    def classes(self) -> list[str] | None:
        """Class names (MIDs for OpenImages), None where the file has none."""
        return self.class_set and self.class_set.classes

    @property
    def groups(self) -> dict[str, slice] | None:
        """Attribute -> slice of its classes."""
        return self.class_set and self.class_set.groups


def locate(path: str | Path) -> Path:
    """The file itself, or the download if `path` is the name of published weights.

    Raises:
        InputError: there is no such file or name, or the download failed.
    """
    if Path(path).is_file():
        return Path(path)
    if zoo.is_published(path):
        return zoo.fetch(str(path), check=check_whole)
    raise InputError(f"{path}: no such checkpoint, expected a file of weights or {zoo.hint(path)}")


def check_whole(path: Path) -> None:
    """Raise InputError unless a `.pth` file can be read and the checksums of an archive hold."""
    _read_torch(path)
    check_sums(path)


def read(path: str | Path, weights_key: str | None = None) -> Checkpoint:
    """Read a checkpoint of any format named at the head of this file, on the CPU.

    Args:
        path: the file, or the name of published weights.
        weights_key: the key of the state dict in the file, with dots where it is nested; None to look for it.

    Raises:
        InputError: the file is missing, damaged or of another kind, or holds no weights, or none under `weights_key`.
    """
    path = locate(path)
    content, notes = _read_safetensors(path) if is_safetensors(path) else _read_torch(path)
    state, extra = _split(content, path, weights_key, notes)
    state = without_wrappers(state)
    state = take_off(state, shared_prefix(state), (), notes)
    recorded = extra.get("model_name")
    try:
        if timm_weights.is_timm(state):
            recorded = "tresnet_v2_l" if timm_weights.is_v2(state) else None
            state = timm_weights.from_timm(state)
        model_name, head, num_classes, num_groups = recognise(state)
    except (KeyError, IndexError, TypeError, RuntimeError, ValueError) as error:  # some keys of a network, not all
        reason = in_words(error)
        raise InputError(f"{path}: tensors of no known network ({type(error).__name__}: {reason})") from error
    _check_facts(extra, state, num_classes, path)
    architecture = Architecture(recorded or model_name, head, num_classes or extra.get("num_classes"), num_groups)
    return Checkpoint(path, state, architecture, _class_set(extra, num_classes, path), extra, notes=notes)


def write(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint through a temporary file: tensors and plain values only, so that `read` can read it.

    Raises:
        MachineError: the disk is full, or the folder cannot be written; the file that was there before is whole.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"format": FORMAT, **content}, _WhileOpen(file))
        except RuntimeError as error:
            # Closing the unfinished archive raises this and hides the cause: a full disk, a dead worker.
            raise error.__context__ or error from error


def with_entry(path: str | Path, name: str, value: Any) -> bool:
    """Write a network that `write` wrote again, with one entry more or another value of it; False of any other file.

    The state of a run under way is another file: it has more than one set of weights.
    """
    content, _ = ({}, []) if is_safetensors(path) else _read_torch(Path(path))
    if not isinstance(content, Mapping) or content.get("format") != FORMAT or "optimizer" in content:
        return False
    write(path, {**content, name: value})
    return True


class _WhileOpen:
    """A file for `torch.save`, which writes the footer of its archive in a destructor.

    If saving failed, the file is already closed then: ignore the write instead of aborting the process.
    """

    def __init__(self, file):
        self.file = file

    def write(self, data):
        return len(data) if self.file.closed else self.file.write(data)

    def flush(self):
        if not self.file.closed:
            self.file.flush()


def take_off(
    state: Mapping[str, Tensor], prefix: str, expected: Collection[str], notes: list[str]
) -> Mapping[str, Tensor]:
    """A state dict without a prefix of its names, as `without_prefix`; what was done is noted."""
    if not prefix:
        return state
    left = without_prefix(state, prefix, expected)
    notes.append(f"prefix {prefix!r} taken off")
    if others := [key for key in state if not key.startswith(prefix) and key not in expected]:
        notes.append(f"left out what is not under it: {counted(others, 'tensors')}")
    return left


def _read_torch(path):
    """The content of a file of PyTorch, and a note on what of it stays unread."""
    kind = other_kind(path)
    if kind is not None:
        raise InputError(f"{path}: not a checkpoint, but {kind}")
    check_archive(path)
    try:
        content, replaced = load_inert(path)
    except Exception as error:  # of many types: `load_inert`
        raise InputError(f"{path}: not a checkpoint, or a damaged one ({in_words(error, 120)})") from error
    names = few([printable(name)[:80] for name in replaced], 4)
    return content, [f"objects in it that are no tensors and plain values stay unread ({names})"] if replaced else []


def _read_safetensors(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            content = {"state_dict": {key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a safetensors file that is damaged or cut short ({error})") from error
    for key, value in metadata.items():
        with contextlib.suppress(ValueError, RecursionError):  # free text of another program
            content.setdefault(key, json.loads(value))
    return content, [] if path.suffix == ".safetensors" else ["a safetensors file by what is in it"]


def _split(content, path, weights_key, notes):
    """The state dict of a file's content, and the rest; what was chosen is noted."""
    states = find_states(content)
    if not isinstance(content, Mapping):
        if not states:
            raise InputError(f"{path}: holds a {type(content).__name__}, expected a state dict")
        content = {}
    ours = content.get("format") == FORMAT
    if not states:
        keys = sorted(printable(key) if isinstance(key, str) else shown(key) for key in content)
        raise InputError("; ".join([f"{path}: keys {few(keys, 4)}, expected a state dict of tensors", *notes]))
    if ours and weights_key is None:
        which, key = ("EMA", "ema.state") if content.get("best_weights") == "ema" else ("model's", "model")
        if key not in states:
            raise InputError(f"{path}: says that the {which} weights are the best and has none")
    else:
        key = choose_state(states, weights_key, path)
        others = [f"{other!r}" for other in states if other != key]
        if others or key not in ("", "model", "state_dict"):
            also = f" (also there: {few(others, 4)}; --weights_key KEY chooses)" if others else ""
            notes.insert(0, f"weights of {key!r} taken{also}")
    extra = {k: v for k, v in content.items() if k != key and not isinstance(v, StandIn)} if key else {}
    if not ours and extra.get("format") != DESCRIPTION_FORMAT:
        extra = {k: v for k, v in extra.items() if isinstance(v, _FACTS.get(k, object))}
    for name, tensor in states[key].items():
        if not _is_plain(tensor):
            raise InputError(f"{path}: {name} is no plain tensor with all its values in the file")
    return states[key], extra


def _is_plain(tensor):
    """Whether a tensor is dense, on the CPU and stores a value for each element: it needs no more memory than its file."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_complex()
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _check_facts(extra, state, num_classes, path):
    """Raise InputError unless a file's facts have the types that the code relies on, and a class count that fits."""

    def refuse(key, expected):
        raise InputError(f"{path}: {key} is {shown(extra[key])}, expected {expected}")

    if not isinstance(extra.get("model_name", ""), str | None):
        refuse("model_name", "a name")
    if not isinstance(extra.get("head", ""), str):
        refuse("head", "a name")
    recorded = extra.get("num_classes")
    if recorded is not None and num_classes is None:
        whole = isinstance(recorded, int | np.integer) and not isinstance(recorded, bool)
        if not whole or not any(v.dim() and len(v) == recorded for v in state.values()):
            refuse("num_classes", "the length of one of the tensors")
    config = extra.get("config")
    if config is not None and not (isinstance(config, Mapping) and all(isinstance(key, str) for key in config)):
        refuse("config", "settings by name")
    if (config or {}).get("image_size") is not None:
        checked_size(config["image_size"], path)


def _class_set(extra, num_classes, path):
    """The classes of a file by `classes` or, in the published files, `idx_to_class`: our files have their keys there."""
    # Compared by length, since the truth of a tensor is another question.
    names, keys = (
        None if isinstance(value, Mapping | list | tuple) and not len(value) else value
        for value in (extra.get("classes"), extra.get("idx_to_class"))
    )
    if names is None and keys is None:
        return None
    values = {"classes": keys if names is None else names, "keys": keys, "groups": extra.get("groups")}
    return ClassSet.from_plain(values, path, num_classes or None)


def counted(keys: Sequence[str], what: str) -> str:
    """`12 missing (a, b, c, d, ...)`: how many keys there are of a kind, and the first of them."""
    return f"{len(keys)} {what} ({few(keys, 4)})"
