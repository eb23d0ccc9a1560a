"""The numbers that each setting may be, by the name of its flag: of every command, and of the functions behind it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from csl.errors import InputError

DEFAULT_IMAGE_SIZE, DEFAULT_BATCH_SIZE = 448, 32
"""Of a trained network that runs, where neither a flag nor its file says another."""

Range = tuple[Callable[[float], bool], str]
"""Whether a number is in it, and the numbers in words."""


def _whole(low: int, high: int) -> Range:
    return lambda n: low <= n <= high and n == int(n), f"a whole number from {low} to {high:,}"


_COUNT, _LIMIT = _whole(1, 2**31 - 1), _whole(0, 2**31 - 1)
_SHARE: Range = (lambda x: 0 <= x <= 1, "a number from 0 to 1")
_PART: Range = (lambda x: 0 <= x < 1, "a number from 0 to less than 1")
_AMOUNT: Range = (lambda x: 0 <= x < math.inf, "a finite number, 0 or more")
_FACTOR: Range = (lambda x: 0 <= x <= 1e9, "a number from 0 to 1e9")  # larger ones overflow, or drown all else
_SIZE: Range = (lambda x: 0 < x < math.inf, "a finite number, more than 0")
_INSIDE: Range = (lambda x: 0 < x < 1, "a share of more than 0 and less than 1")
_VOTES: Range = (lambda x: 0 < x <= 1, "a share of more than 0, up to 1")

_NAMES = {
    _COUNT: "epochs stop_epoch max_steps prior_epochs batch_size grad_accum save_every eval_every print_freq num_classes top_k "
    "num_labels num_images count top per_class",
    _LIMIT: "skip_nonfinite likelihood_topk frozen_epochs shallow_epochs",
    _SHARE: "thre th prior_threshold",
    _PART: "clip dropout ema_decay",
    _AMOUNT: "simulate_partial_param",
    _FACTOR: "weight_decay gamma_pos gamma_neg gamma_unann alpha_pos alpha_neg alpha_unann",
    _SIZE: "lr size_mb labels_per_image",  # a rate of 0 learns nothing
    _VOTES: "vote_threshold",
    _INSIDE: "val_split",
    _whole(2, 100): "folds",
    _whole(0, 1024): "workers",
    _whole(0, 2**63 - 1): "seed",
    _whole(0, 65_535): "port",
    _whole(1, 65_535): "image_size progressive_size",  # of a side
}
RANGES: dict[str, Range] = {name: range_ for range_, names in _NAMES.items() for name in names.split()}


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Raise InputError, one line that names the flag, where a setting is no number of its range; None is none of any."""
    for name, value in settings.items():
        if name not in RANGES or value is None:
            continue
        holds, words = RANGES[name]
        for number in value if isinstance(value, tuple | list) else (value,):
            if not holds(number):
                shown = f"{number:g}" if isinstance(number, float) else number
                raise InputError(f"--{name} {shown}: expected {words}")
