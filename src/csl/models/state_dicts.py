"""Where in a file the weights are: state dicts under any key, and what wrappers put before the names of their tensors."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from csl.errors import InputError
from csl.labels.matching import few_names
from csl.machine.unpickling import StandIn

_DEPTH = 3
"""Keys above a state dict at most: content["state"]["model"]["ema"]."""

_LONGEST = 8
"""Parts at most of a list or tuple that may hold a state dict, as (network's, optimizer's)."""

_MODULES = 100_000
"""Layers of a whole pickled network at most."""

_USUAL = {"model", "state_dict", "model_state_dict", "net", "network", "module", "params", "weights"}
"""Keys that mean the network, where there are others."""

_WRAPPERS = {
    "module",
    "model",
    "net",
    "network",
    "backbone",
    "encoder",
    "base_model",
    "ema_model",
    "student",
    "teacher",
}
"""What stands before the names of all tensors where a network lies in another one. Any other is found by its keys."""

_INSIDE = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Names of wrappers anywhere in a key: of torch.compile, and of PyTorch's parallel training."""

_STEMS = ("body.conv1.0.weight", "body.conv1.conv.weight")
"""A key of every TResNet, by our names and by timm's."""


def find_states(content: Any) -> dict[str, dict[str, Tensor]]:
    """The state dicts in a file's content, {keys joined by dots, "" for the content itself: tensors by name}.

    A state dict is a mapping that holds tensors for the most part, and among them a matrix; a whole pickled network counts by
    its parameters and buffers. The state of an optimizer is none.
    """
    found: dict[str, dict[str, Tensor]] = {}

    def look(value, place):
        if isinstance(value, StandIn) and isinstance(value.get("_modules"), Mapping):
            value = _module_state(value)
        if isinstance(value, list | tuple) and len(value) <= _LONGEST:
            value = {str(number): part for number, part in enumerate(value)}
        if not isinstance(value, Mapping):
            return
        tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
        others = [v for k, v in value.items() if k not in tensors]
        nested = any(isinstance(v, Mapping) and not isinstance(v, StandIn) for v in others)
        if len(tensors) > len(others) and not nested and any(v.dim() > 1 for v in tensors.values()):
            found[".".join(place)] = tensors
        elif len(place) < _DEPTH:
            for key, part in value.items():
                if isinstance(key, str) and "optim" not in key.lower():
                    look(part, (*place, key))

    look(content, ())
    return found


def choose_state(states: Mapping[str, Mapping[str, Tensor]], wanted: str | None, path: Path) -> str:
    """The key of the state dict to take: that of the moving average, else a usual one, else that of the most values.

    Args:
        states: as `find_states`, one or more.
        wanted: a key, or the first keys of one; None for any.
        path: the file, as in messages.

    Raises:
        InputError: there is none under `wanted`.
    """
    fitting = [key for key in states if wanted is None or key == wanted or key.startswith(f"{wanted}.")]
    if not fitting:
        there = few_names([key for key in states if key]) or "no key, but as the file itself"
        raise InputError(f"--weights_key {wanted}: no weights there in {path}, which has them under {there}")

    def rank(key):
        return _is_ema(key), bool(_USUAL & set(key.split("."))), sum(v.numel() for v in states[key].values())

    return max(fitting, key=rank)


def shared_prefix(state: Mapping[str, Tensor]) -> str:
    """What stands before every name of a state dict, of `_WRAPPERS`; of a TResNet, whatever stands before its first layer."""
    stems = [key.removesuffix(stem) for key in state for stem in _STEMS if key == stem or key.endswith(f".{stem}")]
    if stems:
        return max(stems, key=lambda prefix: (_is_ema(prefix), -len(prefix)))
    prefix, names = "", list(state)
    while len(firsts := {name.partition(".")[0] for name in names}) == 1 and firsts <= _WRAPPERS:
        prefix += f"{names[0].partition('.')[0]}."
        names = [key.removeprefix(prefix) for key in state]
    return prefix


def fitting_prefix(state: Mapping[str, Tensor], expected: Collection[str]) -> str:
    """What to take off the names of a state dict so that most of them are those that a network expects; "" for nothing."""
    counts = Counter(
        key[: match.end()]
        for key in state
        for match in re.finditer(r"^|\.", key)
        if key[match.end() :] in expected
    )  # fmt: skip
    return max(counts, key=lambda prefix: (counts[prefix], not prefix, _is_ema(prefix)), default="")


def without_prefix(state: Mapping[str, Tensor], prefix: str, expected: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors under a prefix by their names without it, and those of the others that are expected as they are."""
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix) or key in expected
    }


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names without those of torch.compile's and PyTorch's own wrappers, wherever they stand."""
    return {_INSIDE.sub("", key): value for key, value in state.items()}


def _is_ema(key):
    return "ema" in re.split(r"[^a-z]+", key.lower())


def _module_state(module):
    """The parameters and buffers of a pickled network by the names that its `state_dict()` would give them."""
    state, left = {}, [("", module)]
    for _ in range(_MODULES):
        if not left:
            return state
        prefix, module = left.pop()
        if not isinstance(module, Mapping):
            continue
        parts = {name: module.get(f"_{name}") for name in ("parameters", "buffers", "modules")}
        parts = {name: part if isinstance(part, Mapping) else {} for name, part in parts.items()}
        passing = module.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set) else set()
        for name, value in {**parts["parameters"], **parts["buffers"]}.items():
            if isinstance(value, Tensor) and name not in passing:
                state[f"{prefix}{name}"] = value
        left.extend((f"{prefix}{name}.", part) for name, part in reversed(parts["modules"].items()))
    return {}
