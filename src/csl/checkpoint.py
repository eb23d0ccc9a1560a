"""Every checkpoint format in, one out. Reading a file never executes code from it.

Read: `{"model", "num_classes", "idx_to_class"}` (the published releases), `{"model"}`, `{"state_dict"}`, a bare state
dict, keys under `module.` or `_orig_mod.`, with or without `num_batches_tracked`; `.safetensors`; timm's TResNets; and
what `write` wrote. The tensors tell which TResNet and which head it is. The name of published weights (`csl.models.zoo`)
stands for their file.
"""

import contextlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csl.errors import InputError, shown
from csl.labels.trust import check_class_names
from csl.machine.archive import check_archive
from csl.machine.files import replacing
from csl.models import CONFIGS, TimmWithHead, TResNet, architecture, create_model, timm_weights, zoo
from csl.models.recognition import recognise

FORMAT = "csl-1"

# What PyTorch's unpickler says of something that it does not run, in 2.6 ("Unsupported global: GLOBAL a.b was not"), later
# ("unsupported GLOBAL a.b whose module is blocked"), and of an operation of pickle that tensors do not need.
_REFUSED = re.compile(
    r"unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]*\w)|WeightsUnpickler error: (?!.*(global|class))", re.I
)

_PREFIXES = ("module.", "_orig_mod.")

# Published files hold class numbers as NumPy scalars. Rebuilding one runs these and nothing else; the old name of the
# module is the one such files carry.
_scalar = np.float64(0).__reduce__()[0]
_SAFE_GLOBALS = [
    _scalar,
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(t)) for t in ("int32", "int64", "float32", "float64", "uint8", "bool", "str")},
]


@dataclass
class Checkpoint:
    """A network's weights and what the file says of them.

    Attributes:
        path: the file.
        state_dict: tensors by the original's parameter names, without wrapper prefixes.
        num_classes: classes of the head, None where the network is not recognised.
        model_name: recognised from the tensors or recorded, None for a timm network in a foreign file.
        head: "linear", "bottleneck" or "ml_decoder".
        num_groups: queries of an ML-Decoder head.
        classes: class names (MIDs for OpenImages), None where the file has none.
        groups: for attributes, the slice of classes of each.
        extra: all else that was in the file (`epoch`, `optimizer`, `config`, ...).
    """

    path: Path
    state_dict: dict[str, Tensor]
    num_classes: int | None = None
    model_name: str | None = None
    head: str = "linear"
    num_groups: int | None = None
    classes: list[str] | None = None
    groups: dict[str, slice] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def locate(path: str | Path) -> Path:
    """The file that `path` means: itself, or the download of published weights of that name.

    Raises:
        InputError: neither, or a download that failed.
    """
    if Path(path).is_file():
        return Path(path)
    if zoo.is_published(path):
        return zoo.fetch(str(path), check=check_whole)
    raise InputError(f"{path}: no such checkpoint, expected a file of weights or {zoo.hint(path)}")


def check_whole(path: Path) -> None:
    """Raise InputError unless a `.pth` file can be read and, where it is an archive, its checksums hold.

    PyTorch does not look at the checksums when it loads a file.
    """
    _read_torch(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise InputError(f"{path}: a damaged file, {damaged} has another checksum")


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint of any format named at the head of this file, on the CPU.

    Raises:
        InputError: a missing, damaged or foreign file, or one that holds more than tensors and plain values.
    """
    path = locate(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state, extra = _split(content, path)
    state = {_without_prefix(k): v for k, v in state.items()}
    recorded = extra.get("model_name")
    try:
        if timm_weights.is_timm(state):
            recorded = "tresnet_v2_l" if timm_weights.is_v2(state) else None
            state = timm_weights.from_timm(state)
        model_name, head, num_classes, num_groups = recognise(state)
    except (KeyError, IndexError, TypeError, RuntimeError, ValueError) as error:  # some keys of a network, not all
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: tensors of no known network ({type(error).__name__}: {reason})") from error
    _check_description(extra, state, num_classes, path)
    classes = _classes(extra, num_classes, path)
    return Checkpoint(
        path=path,
        state_dict=state,
        num_classes=num_classes or extra.get("num_classes"),
        model_name=recorded or model_name,
        head=head,
        num_groups=num_groups,
        classes=classes,
        groups={k: slice(*v) for k, v in extra["groups"].items()} if extra.get("groups") is not None else None,
        extra=extra,
    )


def write(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint through a temporary file: tensors and plain values only, so that `read` can read it.

    Raises:
        MachineError: the disk is full, or the folder cannot be written; the file that was there before is whole.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"format": FORMAT, **content}, _WhileOpen(file))
        except RuntimeError as error:
            # Of closing an archive cut short, which hides why: a full disk, a worker that died.
            raise error.__context__ or error from error


class _WhileOpen:
    """A file for `torch.save`, whose writer ends its archive when it is freed: after an error that is after the file is closed,
    and an exception then would end the process."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        return len(data) if self.file.closed else self.file.write(data)

    def flush(self):
        if not self.file.closed:
            self.file.flush()


def load_model(
    path: str | Path, model_name: str | None = None, num_classes: int | None = None
) -> tuple[nn.Module, Checkpoint]:
    """The network a checkpoint holds, with its weights, in eval mode on the CPU.

    Args:
        path: the file.
        model_name: needed for a foreign file of a timm network; a TResNet is told by its tensors.
        num_classes: what the caller expects, None for whatever the file has.

    Raises:
        InputError: another network than `model_name`, another class count, or keys that do not fit.
    """
    checkpoint = read(path)
    model_name = model_name and architecture(model_name)
    name = checkpoint.model_name or model_name
    if name is None:
        raise InputError(f"{path}: the network cannot be told from its tensors, expected --model_name to name it")
    if model_name is not None and model_name != name:
        raise InputError(f"--model_name {model_name}: {path} holds {name}")
    found = checkpoint.num_classes or _output_width(checkpoint.state_dict)
    if num_classes is not None and found is not None and num_classes != found:
        raise InputError(f"--num_classes {num_classes}: {path} has {found} classes")
    if found is None and num_classes is None:
        raise InputError(f"{path}: has no classifier, expected --num_classes, or to train from it")
    model = create_model(name, num_classes=found or num_classes, head=checkpoint.head, num_groups=checkpoint.num_groups)
    checkpoint.num_classes, checkpoint.model_name = found or num_classes, name
    load_weights(model, checkpoint)
    return model.eval(), checkpoint


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load every tensor; InputError with the sorted missing, unexpected and misshapen keys where they do not fit."""
    expected, found = model.state_dict(), checkpoint.state_dict
    optional = {k for k in expected if k.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - found.keys() - optional)
    unexpected = sorted(found.keys() - expected.keys())
    shapes = sorted(k for k in expected.keys() & found.keys() if expected[k].shape != found[k].shape)
    if missing or unexpected or shapes:
        parts = ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        raise InputError(f"{checkpoint.path}: not this network: {'; '.join(_keys(k, what) for k, what in parts if k)}")
    model.load_state_dict(found)


def load_backbone(model: nn.Module, checkpoint: Checkpoint) -> str:
    """Load all but the head, for fine-tuning on other classes; returns one line that counts the tensors.

    Raises:
        InputError: no tensor of the file fits the model's body.
    """
    expected, found = model.state_dict(), checkpoint.state_dict
    if isinstance(model, TimmWithHead):
        found = {k if k in expected else f"body.{k}": v for k, v in found.items()}
    is_head = _head_filter(model)
    fits = {k: v for k, v in found.items() if not is_head(k) and k in expected and v.shape == expected[k].shape}
    skipped = len(found) - len(fits)
    body = [k for k in expected if not is_head(k) and not k.endswith("num_batches_tracked")]
    missing = sorted(k for k in body if k not in fits)
    if len(missing) > len(body) // 2:
        name = checkpoint.model_name or "another network"
        raise InputError(
            f"{checkpoint.path}: holds {name}, not this one: {_keys(missing, 'missing or of another shape')}"
        )
    model.load_state_dict(fits, strict=False)
    return (
        f"{checkpoint.path}: {len(fits)} tensors loaded, {skipped} skipped (the head among them), "
        f"{len(missing)} missing{f': {_few(missing)}' if missing else ''}{_other_slopes(model, checkpoint)}"
    )


def _other_slopes(model, checkpoint):
    """A note where the weights fit and the leaky slopes do not: the two origins of v2."""
    config = CONFIGS.get(checkpoint.model_name)
    if not isinstance(model, TResNet) or config is None or config.slope == model.config.slope:
        return ""
    return f"; made with leaky slope {config.slope:g}, here {model.config.slope:g}: {checkpoint.model_name} keeps it"


def _head_filter(model):
    """Tells the keys of a model's classifier."""
    if hasattr(model, "get_classifier"):  # timm
        classifier = model.get_classifier()
        names = {n for n, m in model.named_modules() if m is classifier}
        return lambda key: any(key.startswith(f"{n}.") for n in names)
    return lambda key: key.startswith("head.")


def _output_width(state):
    """Rows of the last matrix: the class count of a foreign network whose head is a linear layer."""
    matrices = [v for k, v in state.items() if v.dim() == 2 and k.endswith("weight")]
    return len(matrices[-1]) if matrices else None


def _read_torch(path):
    check_archive(path)
    # Beside what the unpickler itself refuses, a damaged file makes it trip over its own stack, or a rebuilt tensor over
    # its storage (IndexError, TypeError, AssertionError, ...), hence the wide net.
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a protocol of pickle that PyTorch does not write
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        if refused := _REFUSED.search(reason):
            name = refused[1] or "an object"
            raise InputError(
                f"{path}: holds more than tensors and plain values ({name}), and was not loaded"
            ) from error
        raise InputError(f"{path}: not a checkpoint, or a damaged one ({reason[:120]})") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: not a checkpoint, or a damaged one ({reason})") from error


def _read_safetensors(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            content = {"state_dict": {key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a safetensors file, or a damaged one ({error})") from error
    for key, value in metadata.items():
        with contextlib.suppress(ValueError, RecursionError):  # free text, which is nothing of ours
            content.setdefault(key, json.loads(value))
    return content


def _split(content, path):
    """(state dict, all else) of a file's content."""
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a state dict")
    key = next((k for k in ("model", "state_dict") if isinstance(content.get(k), Mapping)), None)
    state = content if key is None else content[key]
    extra = {} if key is None else {k: v for k, v in content.items() if k != key}
    if extra.get("format") == FORMAT and extra.get("best_weights") == "ema":
        ema = extra.get("ema")
        averaged = ema.get("state") if isinstance(ema, Mapping) else None
        if not isinstance(averaged, Mapping):
            raise InputError(f"{path}: says that the EMA weights are the best and has none")
        extra["model"], state = state, averaged
    if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        keys = sorted(key if isinstance(key, str) else shown(key) for key in content)
        raise InputError(f"{path}: keys {_few(keys)}, expected a state dict of tensors")
    for key, tensor in state.items():
        if not _is_plain(tensor):
            raise InputError(f"{path}: {key} is no plain tensor with all its values in the file")
    return state, extra


def _is_plain(tensor):
    """Dense, on the CPU and with a stored value for each element: a tensor takes no more memory than it does in the file."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_complex()
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _check_description(extra, state, num_classes, path):
    """What a file says of its network, beside the tensors: of the types that the code behind relies on.

    Raises:
        InputError: it is not, or the class count is that of no tensor.
    """

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
    size = (config or {}).get("image_size")
    if size is not None and not _is_size(size):
        raise InputError(f"{path}: image_size is {shown(size)}, expected one or two numbers of pixels")
    groups = extra.get("groups")
    if groups is not None:
        pairs = groups.values() if isinstance(groups, Mapping) else ()
        if not pairs or not all(isinstance(name, str) for name in groups) or not all(map(_is_range, pairs)):
            refuse("groups", "attributes and the first and last class of each")


def _is_size(value):
    values = value if isinstance(value, list | tuple) else [value]
    return len(values) in (1, 2) and all(type(v) is int and 1 <= v <= 1 << 16 for v in values)


def _is_range(value):
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(type(v) is int for v in value)
        and (0 <= value[0] < value[1])
    )


def _without_prefix(key):
    while True:
        prefix = next((p for p in _PREFIXES if key.startswith(p)), None)
        if prefix is None:
            return key
        key = key.removeprefix(prefix)


def _classes(extra, num_classes, path) -> list[str] | None:
    found = [mapping for mapping in (extra.get("classes"), extra.get("idx_to_class")) if not _is_nothing(mapping)]
    if not found:
        return None
    mapping = found[0]
    if isinstance(mapping, Mapping):
        try:
            by_index = {int(k): v for k, v in mapping.items()}
        except (TypeError, ValueError):
            raise InputError(f"{path}: idx_to_class has keys that are no numbers of classes") from None
        by_index = {k: _name(v, path) for k, v in by_index.items()}
        names: Sequence[str] = [by_index.get(i, f"class {i}") for i in range(num_classes or len(by_index))]
    elif isinstance(mapping, list | tuple):
        names = [_name(v, path) for v in mapping]
    else:
        raise InputError(f"{path}: class names in a {type(mapping).__name__}, expected a list of them")
    if num_classes and len(names) != num_classes:
        raise InputError(f"{path}: {len(names)} class names for {num_classes} classes")
    check_class_names(names, path)
    return list(names)


def _name(value, path):
    """The name of a class: a text, or a number that becomes one."""
    if isinstance(value, str):
        return value
    if not isinstance(value, int | float | np.number):
        raise InputError(f"{path}: a class is called {shown(value)}, expected a name")
    return str(value)


def _is_nothing(value):
    """None or an empty collection; the truth of a tensor is another question."""
    return value is None or (isinstance(value, Mapping | list | tuple) and not value)


def _keys(keys, what):
    return f"{len(keys)} {what} ({_few(keys)})"


def _few(keys, most=4):
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
