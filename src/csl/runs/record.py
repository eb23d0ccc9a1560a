"""The record of a run: command, versions, code, data and mask; and the settings that make it repeat bit by bit."""

import dataclasses
import hashlib
import os
import platform
import shlex
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csl.errors import InputError
from csl.labels import Annotations, ImagePaths, LabelMatrix
from csl.labels.attributes import parse_attributes, parse_roles
from csl.labels.simulation import DEFAULT_LIMIT, DEFAULT_SHARE, WITHOUT_PARAM, fix_per_class, schemes
from csl.losses.options import own_options, parse_options
from csl.losses.options import settings_of as loss_settings
from csl.machine import distributed
from csl.runs.config import TrainConfig

PACKAGES = ("torchvision", "timm", "numpy", "pandas", "Pillow", "simplejpeg")
"""Packages whose version can change the numbers of a run."""

FREE = frozenset(
    {
        "resume", "path_dest", "max_steps", "stop_epoch", "save_every", "print_freq", "workers", "device", "on_bad_image",
        "skip_nonfinite", "data", "images", "metadata", "reviews", "follow_links", "num_classes", "batch_size", "grad_accum",
        "cache", "cuda_graph", "memory",
    }
)  # fmt: skip
"""Settings that a resumed run may change. Data may have moved: its fingerprint is compared. Batch and schedule are
compared on their own, as another number of processes may make the same batch in another way."""

SIZES = ("image_size", "progressive_size")
"""Settings that are a side, or height x width."""

_LOOKED_AT = 10_000  # images whose size is looked at, spread over the data set
_BLOCK = 1 << 22  # labels at a time


# ----------------------------------------------------------------------------------------------------------- the command


def changed_settings(then: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = FREE) -> list[str]:
    """The settings, but for those that are free, that differ between two runs, as `--lr 0.1 (was 0.2)`.

    Meanings are compared and not spellings: a default that is written out, or a path in another form, is the same.
    Settings that only one of them knows of are those of another version of the program, and are not compared.
    """
    meant = [_meanings(settings) for settings in (then, now)]

    def words(name, settings, meanings):
        return _in_words(name, meanings[name] if settings[name] is None else settings[name])

    return [
        f"--{name} {words(name, now, meant[1])} (was {words(name, then, meant[0])})"
        for name in sorted(then.keys() & now.keys() - set(free))
        if meant[0][name] != meant[1][name]
    ]


def check_same_settings(
    path: Path, then: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = FREE
) -> None:
    """Raise InputError, one line, where `changed_settings` are those of a run and of the command that resumes it.

    Args:
        path: where the run's settings are held, as in the message.
        then: what it holds.
        now, free: as `changed_settings` takes them.
    """
    settings = settings_of(then)
    if not (changed := changed_settings(settings, now, free)):
        return
    older = [
        f"--{name} {value}"
        for name, value in settings.items()
        if then.get(name) != value and any(words.startswith(f"--{name} ") for words in changed)
    ]
    said = (
        f"{' '.join(older)}, as this version calls it: --resume {' '.join(older)} goes on; these are " if older else ""
    )
    raise InputError(f"{path}: the run was started with {said}other settings, expected the same: {', '.join(changed)}")


def _in_words(name, value):
    """A setting as it is given behind its flag."""
    if value is None or isinstance(value, bool) or value in ([], ()):
        return "given" if value else "not given"
    return " ".join(_flag(name, value))[len(name) + 3 :]


def _meanings(settings):
    """The settings with defaults filled in and one spelling for each value."""
    meant = {name: _flat(value) for name, value in settings.items()}
    for name, default in loss_settings(str(meant.get("loss"))).items():
        if meant.get(name) is None:
            meant[name] = default
    if "loss_options" in meant:
        loss = str(meant["loss"])
        meant["loss_options"] = own_options(loss) | parse_options(meant["loss_options"], loss)
    if meant.get("prior_path") not in (None, "auto"):
        meant["prior_path"] = "a file"  # whose values are compared
    if meant.get("prior_epochs") is None and meant.get("prior_path") == "auto":
        meant["prior_epochs"] = meant.get("epochs")
    if meant.get("select_by", "") is None:
        meant["select_by"] = "auto" if meant.get("loss") == "annotation" else "annotated"
    for name in ("model_path", "classes_file"):
        if isinstance(meant.get(name), str):
            meant[name] = os.path.abspath(meant[name])
    for name, parse in (("attributes", parse_attributes), ("roles", parse_roles)):
        if isinstance(meant.get(name), str):
            meant[name] = parse(meant[name])
    for name in ("ignore_columns", "columns", "no_label"):
        if isinstance(meant.get(name), list):
            meant[name] = sorted(map(str, meant[name]))
    for name in SIZES:
        if isinstance(size := meant.get(name), int):
            meant[name] = [size, size]
    scheme = meant.get("simulate_partial_type")
    meant["simulate_partial_type"] = getattr(schemes.get(str(scheme)), "__name__", scheme)  # two names for one scheme
    if meant.get("simulate_partial_param") is None and scheme is not None and scheme not in WITHOUT_PARAM:
        meant["simulate_partial_param"] = DEFAULT_LIMIT if schemes.get(str(scheme)) is fix_per_class else DEFAULT_SHARE
    return meant


def config_of(
    config: TrainConfig, kept: Mapping[str, Any], fingerprints: Mapping[str, Any], left_out: Any
) -> dict[str, Any]:
    """The content of `config.json`: the settings, and the record of what made the run.

    `kept` is what it held where the run is resumed, else empty. Versions and revision stay those of the start; others that
    a part of the run was made with are added, once each, under `resumed`.
    """
    code = {"versions": versions(), "revision": revision()}
    first = {name: kept.get(name, code[name]) for name in code}
    resumed = kept.get("resumed") if isinstance(kept.get("resumed"), list) else []
    if code != (resumed[-1] if resumed else first):
        resumed = [*resumed, code]
    return {
        **config.to_dict(),
        **first,
        **({"resumed": resumed} if resumed else {}),
        "fingerprints": dict(fingerprints),
        "left_out": left_out,
        "job": distributed.job(),
        "launch": {
            "processes": distributed.world_size(),
            "processes_per_node": distributed.local_world_size(),
            "folder": os.getcwd(),
        },
    }


def command(settings: Mapping[str, Any], launch: Mapping[str, Any] | None = None) -> str:
    """The command of a run with these settings: quoted for a shell, without flags at their default.

    `launch` is that of `config_of`: several processes are torchrun's, one line for each machine.

    Raises:
        InputError: a setting of a type that no flag has.
    """
    defaults = TrainConfig().to_dict()
    words = [*_launcher(launch or {}), "train.py"]
    for name, default in defaults.items():
        value = settings.get(name, default)
        if name == "resume" or (_flat(value) == _flat(default) and (name != "loss" or settings.get("probe"))):
            continue  # without a loss the program would choose
        if not isinstance(value, bool | int | float | str | list | tuple | type(None)):
            raise InputError(f"--{name}: found {str(value)[:80]!r}, expected a value of a flag")
        words += _flag(name, value)
    if settings.get("data") is None and "--data" not in words:  # or the recipe of the demo would join in
        raise InputError("--data: not among the settings, expected those of a run")
    return shlex.join(words)


def _launcher(launch):
    processes, here = (launch.get(name, 1) for name in ("processes", "processes_per_node"))
    if not all(type(number) is int and number > 0 for number in (processes, here)):
        raise InputError(f"launch: found {str(launch)[:80]}, expected numbers of processes")
    if processes == 1:
        return ["python"]
    nodes = ["--nnodes", str(-(-processes // here))] if processes > here else []
    return ["torchrun", *nodes, "--nproc-per-node", str(here)]


def _flag(name, value):
    if value is True:
        return [f"--{name}"]
    if value is None:  # where the default is something else: the original's word for it
        return [f"--{name}=none"]
    if isinstance(value, list | tuple):
        joined = ("x" if name in SIZES else ",").join(map(str, value))
        return [f"--{name}={joined}"]
    text = str(value)
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def _flat(value):
    """A setting as it comes back from JSON: tuples become lists."""
    return list(value) if isinstance(value, tuple) else value


# ------------------------------------------------------------------------------------------------------------- the code


def versions() -> dict[str, str]:
    """Versions of Python, PyTorch and `PACKAGES`, `{name: version}`."""
    found = {"python": platform.python_version(), "torch": torch.__version__}  # with the CUDA version, 2.6.0+cu124
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def revision() -> str | None:
    """The git commit of the running code, with `-dirty` if its files have changed since; None outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(folder / "__init__.py"))  # else it lies in a checkout of something else
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


# ------------------------------------------------------------------------------------------------------------- the data


def fingerprint(annotations: Annotations) -> dict[str, Any]:
    """Identifies a set of images and labels: counts, and hashes of names, of file sizes, of labels and of weights.

    Names are those in the file, so that a data set that has moved is the same. Of more than 10,000 images the sizes of
    10,000 that are spread evenly count, so that 9 million take seconds and not an hour of a network disk. Pixels are not
    read.
    """
    count = len(annotations)
    rows = np.unique(np.linspace(0, count - 1, min(count, _LOOKED_AT)).astype(np.int64)) if count else []
    sizes = np.array([_size(annotations.images[int(row)]) for row in rows], dtype="<i8")
    return {
        "images": count,
        "names": _names_hash(annotations),
        "sizes": _hash([sizes.tobytes()]),
        "classes": _hash(f"{key}\0".encode() for key in annotations.keys),
        "labels": label_hash(annotations.labels),
        "answers": annotations.answers,
        "weights": None if annotations.weights is None else _hash([np.asarray(annotations.weights, "<f4").tobytes()]),
    }


def label_hash(labels: LabelMatrix) -> str:
    """A hash of all labels [N, C], independent of how they are stored."""

    def parts():
        yield np.array([*labels.shape, labels.fill], dtype="<i8").tobytes()
        for array in (labels.indptr, labels.indices, labels.values):
            for start in range(0, len(array), _BLOCK):
                yield np.asarray(array[start : start + _BLOCK], dtype="<i8").tobytes()

    return _hash(parts())


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two fingerprints of one data set, in words."""
    if then.get("images") != now["images"]:
        return [f"{now['images']:,} images (were {_number(then.get('images'))})"]
    words = {
        "names": "the names of images",
        "sizes": "the sizes of image files",
        "classes": "the classes",
        "labels": "the labels",
        "weights": "the sampling weights",
    }
    older = {"weights": now["weights"]}  # a record that does not hold them
    if (answers := then.get("answers", 0)) != now["answers"]:
        words["labels"] += f" ({now['answers']:,} answers of reviews are among them, and were {_number(answers)})"
    return [f"{what} differ" for name, what in words.items() if (older | then).get(name) != now[name]]


def _number(value):
    return f"{value:,}" if isinstance(value, int) else str(value)[:80]


def _size(path):
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # a member of a shard, or not there
        return -1


def _names_hash(annotations):
    images = annotations.images
    if isinstance(images, ImagePaths):
        return _hash([images.suffix.encode(), np.ascontiguousarray(images.data), np.asarray(images.offsets, "<i8")])
    return _hash((name + "\0").encode(errors="surrogateescape") for name in annotations.names)


def _hash(parts: Iterable) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


# --------------------------------------------------------------------------------------------------------- bit by bit


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Use deterministic implementations only: two runs on one machine are then equal bit by bit.

    An operation that has none raises a RuntimeError that names it. To be entered before a GPU is used. Not `wanted`, cuDNN
    times its convolutions at each new shape and takes the fastest.
    """
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    if wanted:
        # cuBLAS's buffers, or its sums may change their order.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic = True
    cudnn.benchmark = not wanted
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, out of the content of its `config.json` or of a state, in the words of this version.

    Before there was `prior_loss`, the first stage kept the exponents, and `asl` was what is `asl_optimized` now.
    """
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    settings = {name: value for name, value in config.items() if name in names}
    if settings.get("loss") == "annotation":
        settings.setdefault("select_by", "annotated")  # before there was a choice
    if settings and "prior_loss" not in settings:
        if settings.get("loss") == "asl":
            settings["loss"] = "asl_optimized"
        if settings.get("prior_path") == "auto" and TrainConfig(**settings).changes_prior_loss:
            settings["prior_loss"] = "focal"
    return settings
