"""The best of very many entries: a bounded list, whatever their number."""

import numpy as np

ROOM = 1 << 16
"""Entries beyond the best that wait to be sorted, at least."""


class Best:
    """The entries (image, class) of the highest values, as these come in batches.

    Memory is that of `top` entries, or of `per_class` of each class where that is less, and as many that wait to be sorted.
    Of equal values the first image is taken, then the first class.

    Args:
        top: how many entries.
        num_classes: C.
        per_class: how many of one class at most, None for any number.
    """

    def __init__(self, top: int, num_classes: int, per_class: int | None = None):
        self._top, self._per_class = top, per_class
        self._floor = np.full(num_classes, -np.inf, np.float32)  # [C] what a value must be over to be among the best
        self._parts: list[dict[str, np.ndarray]] = []
        self._waiting = 0

    def add(self, value: np.ndarray, rows: np.ndarray, **columns: np.ndarray) -> None:
        """Take in a batch of images.

        Args:
            value: float [B, C]; -inf is no entry.
            rows: int64 [B] of the images, higher than all before.
            columns: what else is kept of an entry: [B, C].
        """
        value = value.astype(np.float32)
        places, classes = np.nonzero(value > self._floor)
        part = {"value": value[places, classes], "row": rows[places], "class": classes.astype(np.int32)}
        for name, column in columns.items():
            part[name] = column[places, classes]
        self._parts.append(part)
        self._waiting += len(places)
        if self._waiting > max(ROOM, self._top):
            self._shrink()

    def entries(self) -> dict[str, np.ndarray]:
        """`value`, `row`, `class` and the columns of the best entries, [n] each, the best first."""
        self._shrink()
        return self._parts[0] if self._parts else {name: np.empty(0) for name in ("value", "row", "class")}

    def _shrink(self):
        """Keep the best, and raise the floor to the least of them."""
        if not self._parts:
            return
        every = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        order = np.lexsort((every["class"], every["row"], -every["value"]))
        if self._per_class is not None:
            classes = every["class"][order]
            rank = ranks(classes)
            full = order[rank == self._per_class - 1]
            self._floor[every["class"][full]] = every["value"][full]
            order = order[rank < self._per_class]
        if len(order) >= self._top:
            order = order[: self._top]
            np.maximum(self._floor, every["value"][order[-1]], out=self._floor)
        self._parts, self._waiting = [{name: column[order] for name, column in every.items()}], 0


def ranks(groups: np.ndarray) -> np.ndarray:
    """int64 [n] how many of the same group come before each of `groups` [n]."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(groups[order]) != 0)) if len(groups) else np.empty(0, np.int64)
    result = np.empty(len(groups), np.int64)
    result[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    return result
