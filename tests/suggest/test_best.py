"""A bounded list of the best entries is that of a full sort, and small however many entries come by."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csl.suggest import best as module
from csl.suggest.best import Best, ranks


def by_sorting(value, top, per_class):
    """The definition: all entries from the highest on, those of a class that has its number left out."""
    entries = sorted((-v, row, c) for row, line in enumerate(value) for c, v in enumerate(line) if v > -np.inf)
    taken, of_class = [], {}
    for _, row, c in entries:
        of_class[c] = of_class.get(c, 0) + 1
        if per_class is None or of_class[c] <= per_class:
            taken.append((row, c))
    return taken[:top]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9999), st.integers(1, 12), st.sampled_from([None, 1, 2, 5]), st.integers(1, 7), st.integers(0, 30)
)
def test_it_is_the_beginning_of_the_sorted_entries(seed, top, per_class, batch, room):
    rng = np.random.default_rng(seed)
    value = rng.integers(0, 6, (20, 5)).astype(float)  # with ties
    value[rng.random(value.shape) < 0.3] = -np.inf
    before, module.ROOM = module.ROOM, room
    try:
        found = Best(top, 5, per_class)
        for start in range(0, 20, batch):
            rows = np.arange(start, min(start + batch, 20))
            found.add(value[rows], rows, twice=2 * value[rows])
        entries = found.entries()
    finally:
        module.ROOM = before
    places = list(zip(entries["row"].tolist(), entries["class"].tolist(), strict=True))
    assert places == by_sorting(value, top, per_class)
    if places:
        assert entries["twice"].tolist() == [2 * value[place] for place in places]


@pytest.mark.parametrize("per_class", [None, 3])
def test_memory_does_not_grow_with_the_images(per_class):
    images, classes, batch = 3200, 9605, 8
    value = np.random.default_rng(0).random((batch, classes), dtype=np.float32)  # 0.3 MB; all of them would be 123 MB
    found = Best(1000, classes, per_class)
    tracemalloc.start()
    for start in range(0, images, batch):
        found.add(np.roll(value, start, axis=1), np.arange(start, start + batch))
    entries = found.entries()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(entries["row"]) == 1000
    assert peak < 12e6


def test_ranks_count_those_of_the_same_group_before():
    assert ranks(np.array([4, 2, 4, 4, 2])).tolist() == [0, 0, 1, 2, 1]
    assert ranks(np.array([], int)).tolist() == []
