"""Work spread over processes: results in order, errors passed on; and the size of an image as a pair."""

import pytest

from csl.errors import InputError
from csl.machine.image_size import height_width
from csl.machine.processes import available_cores, parallel_map


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    assert list(parallel_map(str, range(20), workers, chunksize=3)) == [str(n) for n in range(20)]
    with pytest.raises(ValueError, match="invalid literal"):
        list(parallel_map(int, ["1", "x", "2"], workers))
    assert available_cores() >= 1


@pytest.mark.parametrize("threads", [False, True])
def test_few_items_are_read_ahead_of_the_results(threads):
    read = []
    items = (read.append(n) or n for n in range(2000))
    for done, result in enumerate(parallel_map(str, items, 2, chunksize=5, threads=threads)):
        assert result == str(done)
        assert len(read) <= done + 100
    assert done == 1999


def test_height_and_width_of_a_size():
    assert height_width(3) == (3, 3)
    assert height_width([2, 5]) == (2, 5)
    for wrong in (0, (4, -1), (1, 2, 3), ()):
        with pytest.raises(InputError, match="expected a positive number of pixels"):
            height_width(wrong)
