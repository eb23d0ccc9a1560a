"""match_classes: by name wherever a name agrees, by position only where none does, never without a word."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.labels.matching import match_classes, with_classes


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
        (["a", "a", "b", "c"], ["b", "a", "a", "d"], r"'b' is class 3 here and class 1 of the network; names repeat"),
        (
            ["Cat", "cat", "x", "x"],
            ["cat", "Cat", "y", "y"],
            r"'cat' is class 2 here and class 1 of the network; names repeat",
        ),
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


@pytest.mark.parametrize(
    ("wanted", "found", "columns"),
    [
        (["a", "a", "b"], ["b", "a", "a"], [1, 2, 0]),
        (["a", "a", "b", "b"], ["b", "b", "a", "a"], [2, 3, 0, 1]),
        (["Cat", "cat"], ["cat", "Cat"], [1, 0]),
        (["class 1", "class 0"], ["class 0", "class 1"], [1, 0]),
    ],
)
def test_a_name_that_repeats_is_matched_among_its_own(wanted, found, columns):
    assert match(wanted, found) == (columns, [])


def test_names_that_a_file_without_names_is_given_are_none():
    assert match(["class 1", "class 2", "class 3"], ["class 0", "class 1", "class 2"]) == ([0, 1, 2], [])


def test_a_network_without_names_is_matched_by_position_as_before():
    assert match(["cat", "dog"], ["class 0", "class 1"]) == ([0, 1], [])


def annotations(classes, **more):
    labels = np.arange(2 * len(classes)).reshape(2, -1) % 3 % 2
    return Annotations(["a", "b"], LabelMatrix.from_dense(labels, 0), classes, source="val.json", **more)


def test_another_order_and_case_is_the_same_labels_in_the_order_of_the_run():
    found = annotations(["Dog", "cat", "bird"])
    matched = with_classes(found, ["cat", "dog", "bird"])
    assert matched.classes == ["cat", "dog", "bird"]
    assert matched.keys == matched.classes
    np.testing.assert_array_equal(matched.labels.to_dense(), found.labels.to_dense()[:, [1, 0, 2]])
    assert matched.notes == ()


def test_classes_that_one_side_lacks_are_unknown_or_left_out_and_named():
    found = annotations(["dog", "cat", "fish"])
    matched = with_classes(found, ["cat", "bird", "dog"])
    dense = found.labels.to_dense()
    np.testing.assert_array_equal(matched.labels.to_dense(), np.stack((dense[:, 1], [-1, -1], dense[:, 0]), axis=1))
    assert matched.notes == (
        "val.json lacks 1 of 3 classes, unknown in its images: 'bird'",
        "val.json has 1 other classes, left out: 'fish'",
    )


@pytest.mark.parametrize(
    ("classes", "run", "more"),
    [
        (["a", "b", "c"], ["a", "x", "y"], {}),
        (["a", "a", "b"], ["b", "a"], {}),
        (["a", "b"], ["b", "a", "a"], {}),
        (["a", "b"], ["b", "a"], {"keys": ["/m/1", "/m/2"]}),
        (["a", "b"], ["b", "a"], {"groups": {"n": slice(0, 2)}}),
    ],
)
def test_other_classes_are_left_to_whoever_compares_them(classes, run, more):
    found = annotations(classes, **more)
    assert with_classes(found, run) is found
