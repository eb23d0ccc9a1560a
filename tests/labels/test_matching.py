"""match_classes: by name wherever a name agrees, by position only where none does, never without a word."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csl.errors import InputError
from csl.labels.matching import match_classes


def match(wanted, found):
    said = []
    return match_classes(wanted, found, "photos.csv", "the network", said.append), said


@given(st.lists(st.text("abcdef", min_size=1), min_size=1, unique_by=str.casefold), st.randoms())
def test_names_in_any_order_are_found(names, random):
    order = list(range(len(names)))
    random.shuffle(order)
    columns, said = match(names, [names[k] for k in order] + ["one more"] * (len(names) > 3))
    assert np.array_equal(np.array(order)[columns], range(len(names)))
    assert not said


def test_case_alone_is_no_difference_and_is_said():
    columns, said = match(["Dog", "Cat", "Bird"], ["cat", "dog", "bird"])
    assert columns == [1, 0, 2]
    assert said == ["photos.csv: classes are matched to those of the network by name, in upper or lower case alike"]


@pytest.mark.parametrize(
    ("wanted", "found", "message"),
    [
        (["dog", "cat", "birds"], ["cat", "dog", "bird"], r"2 of 3 classes .* and 'birds' not \(there: 'bird'\)"),
        (["aeroplane", "boat", "bus"], ["boat", "bus", "car"], r"2 of 3 classes .*'aeroplane' not \(there: 'car'\)"),
        (["a", "a", "b"], ["b", "a", "a"], r"'b' is class 3 here and class 1 of the network; names repeat"),
        (["a", "b"], ["x", "y", "z"], r"photos.csv: 2 classes, the network has 3"),
    ],
)
def test_a_contradiction_is_an_error(wanted, found, message):
    with pytest.raises(InputError, match=message):
        match(wanted, found)


@pytest.mark.parametrize(
    ("wanted", "found", "why"),
    [
        (["chat", "chien"], ["cat", "dog"], "no class is called as the network calls it"),
        (["a", "b", "c"], ["a", "a", "c"], "class names repeat"),
        (["dog", "cat", "bird"], ["a", "a", "b"], "no class is called as the network calls it"),
    ],
)
def test_by_position_where_no_name_agrees_or_names_repeat_in_order(wanted, found, why):
    columns, said = match(wanted, found)
    assert columns == list(range(len(wanted)))
    assert why in said[0]
    assert said[0].endswith(f"the {len(wanted)} classes are matched by position")


def test_a_network_without_names_is_matched_by_position_as_before():
    assert match(["cat", "dog"], ["class 0", "class 1"]) == ([0, 1], [])
