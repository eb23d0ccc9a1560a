"""LabelMatrix against dense arrays, and Annotations."""

import os

import hypothesis.extra.numpy as arrays
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csl.errors import InputError
from csl.labels import NEGATIVE, POSITIVE, UNANNOTATED, Annotations, LabelMatrix

FILLS = st.sampled_from([POSITIVE, NEGATIVE, UNANNOTATED])


def dense_labels(min_rows=0):
    shape = st.tuples(st.integers(min_rows, 9), st.integers(1, 7))
    return arrays.arrays(np.int8, shape, elements=st.integers(-1, 1))


@given(dense_labels(), FILLS)
def test_dense_goes_through_unchanged(dense, fill):
    labels = LabelMatrix.from_dense(dense, fill)
    assert labels.shape == dense.shape
    assert len(labels) == len(dense)
    assert labels.to_dense().dtype == np.int8
    np.testing.assert_array_equal(labels.to_dense(), dense)
    assert len(labels.values) == (dense != fill).sum()


@given(dense_labels(), FILLS, FILLS)
def test_equality_is_of_labels_not_of_storage(dense, fill, other_fill):
    labels = LabelMatrix.from_dense(dense, fill)
    assert labels == LabelMatrix.from_dense(dense, other_fill)
    if dense.size:
        changed = dense.copy()
        changed.flat[0] = 1 if dense.flat[0] < 1 else 0
        assert labels != LabelMatrix.from_dense(changed, other_fill)
    assert labels != LabelMatrix.from_dense(np.vstack([dense, dense[:1], np.zeros((1, dense.shape[1]))]), other_fill)
    assert labels != "labels"


@given(dense_labels(min_rows=1), FILLS, st.data())
def test_indexing_and_select_equal_dense_indexing(dense, fill, data):
    labels = LabelMatrix.from_dense(dense, fill)
    rows = data.draw(st.lists(st.integers(0, len(dense) - 1), max_size=12))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(dense), max_size=len(dense))))
    part = data.draw(st.slices(len(dense)))
    np.testing.assert_array_equal(labels[len(dense) - 1], dense[-1])
    np.testing.assert_array_equal(labels[np.int32(0)], dense[0])
    for index in (rows, np.array(rows, dtype=np.uint8), part, mask):
        wanted = dense[np.array(index, dtype=int)] if isinstance(index, list) else dense[index]
        np.testing.assert_array_equal(labels[index], wanted)
        assert labels.select(index) == LabelMatrix.from_dense(wanted, fill)
    np.testing.assert_array_equal(list(labels), dense)


@given(dense_labels(), FILLS)
def test_labels_by_class(dense, fill):
    by_class = LabelMatrix.from_dense(dense, fill).T
    assert by_class == LabelMatrix.from_dense(dense.T, fill)
    np.testing.assert_array_equal(by_class[1:3], dense.T[1:3])


@given(dense_labels(), FILLS, st.data())
def test_classes_in_another_order_fewer_and_new_ones(dense, fill, data):
    size = data.draw(st.integers(1, 9))
    places = data.draw(st.permutations([*range(size), *[-1] * 9]))[: dense.shape[1]]
    wanted = np.full((len(dense), size), UNANNOTATED)
    for column, place in enumerate(places):
        if place >= 0:
            wanted[:, place] = dense[:, column]
    labels = LabelMatrix.from_dense(dense, fill).rearranged(places, size)
    assert labels == LabelMatrix.from_dense(wanted, fill)


@given(dense_labels(), FILLS)
def test_counts_are_those_of_numpy(dense, fill):
    counts = LabelMatrix.from_dense(dense, fill).counts()
    for count, value in zip(counts, (POSITIVE, NEGATIVE, UNANNOTATED), strict=True):
        assert count.dtype == np.int64
        np.testing.assert_array_equal(count, (dense == value).sum(axis=0))


@settings(max_examples=25)
@given(dense=dense_labels(), fill=FILLS)
def test_save_and_load(tmp_path_factory, dense, fill):
    folder = tmp_path_factory.mktemp("labels")
    labels = LabelMatrix.from_dense(dense, fill)
    labels.save(folder / "partial_labels.npz")
    loaded = LabelMatrix.load(folder / "partial_labels.npz")
    assert loaded == labels
    assert loaded.fill == fill
    assert loaded.indices.dtype == labels.indices.dtype
    assert os.listdir(folder) == ["partial_labels.npz"]


@given(dense_labels(min_rows=1), FILLS, st.randoms(use_true_random=False))
def test_entries_in_any_order_and_repeated(dense, fill, random):
    rows, classes = np.nonzero(dense != fill)
    entries = list(zip(rows, classes, dense[rows, classes], strict=True)) * 2
    random.shuffle(entries)
    columns = np.array(entries, dtype=int).reshape(-1, 3).T
    assert LabelMatrix.from_entries(*columns, dense.shape, fill) == LabelMatrix.from_dense(dense, fill)


def test_of_repeated_entries_positive_beats_negative_beats_unannotated():
    rows, classes = [0, 0, 0, 1, 1, 1], [2, 2, 2, 0, 0, 1]
    for values in ([1, 0, -1, 0, -1, -1], [-1, 0, 1, -1, 0, -1]):
        dense = LabelMatrix.from_entries(rows, classes, values, (2, 3), fill=0).to_dense()
        np.testing.assert_array_equal(dense, [[0, 0, 1], [0, -1, 0]])


@pytest.mark.parametrize(
    ("num_classes", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)]
)
def test_class_ids_take_the_smallest_type(num_classes, dtype):
    labels = LabelMatrix.from_entries([0, 1], [num_classes - 1] * 2, 1, (2, num_classes))
    assert labels.indices.dtype == dtype
    assert labels[1][-1] == POSITIVE
    assert labels.counts().positives[-1] == 2


def test_millions_of_images_are_stored_by_their_known_labels():
    rows = np.arange(100_000)
    labels = LabelMatrix.from_entries(rows, rows % 9605, 1, (100_000, 9605))
    assert labels.indptr.nbytes + labels.indices.nbytes + labels.values.nbytes < 12 * 100_000
    assert labels.counts().unannotated.sum() == 100_000 * 9604
    assert labels[[99_999, 3]].shape == (2, 9605)


def test_stored_entries_equal_to_fill_are_dropped():
    labels = LabelMatrix([0, 2, 3], [0, 1, 1], [0, 1, 0], 2, fill=0)
    assert labels == LabelMatrix.from_dense(np.array([[0, 1], [0, 0]]), fill=0)
    assert len(labels.values) == 1


@pytest.mark.parametrize("index", [-1, 3, [0, -1], [3], np.array([[0]]), 1.0, [0.5], "a", None, [True]])
def test_rows_outside_are_index_errors(index):
    labels = LabelMatrix.from_dense(np.zeros((3, 2)))
    with pytest.raises(IndexError):
        labels[index]
    with pytest.raises(IndexError):
        labels.select(index)


@pytest.mark.parametrize("wrong", [2, -2, 0.5, np.nan, 257])
def test_other_labels_are_errors_that_name_the_value(wrong):
    with pytest.raises(InputError, match=f"found {wrong}.*expected 1, 0 or -1"):
        LabelMatrix.from_dense(np.array([[1, wrong]]))
    with pytest.raises(InputError, match="expected 1, 0 or -1"):
        LabelMatrix.from_dense(np.array([[1, 0]]), fill=wrong)


@pytest.mark.parametrize("wrong", ["a", None])
def test_labels_that_are_no_numbers(wrong):
    with pytest.raises(InputError, match=r"found the labels of type .*, expected 1, 0 or -1"):
        LabelMatrix.from_dense(np.array([[wrong, wrong]]))
    with pytest.raises(InputError, match="found the fill of type"):
        LabelMatrix.from_dense(np.array([[1, 0]]), fill=wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [2], [1], 2, 0), "class 2, expected 0 to 1"),
        (([0, 1], [-1], [1], 2, 0), "class -1, expected 0 to 1"),
        (([0, 1], [0.0], [1], 2, 0), "expected integers"),
        (([0, 2], [0], [1], 2, 0), "expected 2 of each"),
        (([0, 2, 1], [0], [1], 2, 0), "row index"),
        (([], [], [], 2, 0), "row index"),
        (([0, 0, 2], [1, 0], [1, 1], 2, 0), "row 1 .* expected rising ids"),
        (([0, 2], [1, 1], [1, 1], 2, 0), "row 0 .* expected rising ids"),
    ],
)
def test_arrays_that_do_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        LabelMatrix(*arguments)


def test_entries_that_do_not_fit():
    with pytest.raises(InputError, match="row 2, expected 0 to 1"):
        LabelMatrix.from_entries([2], [0], [1], (2, 3))
    with pytest.raises(InputError, match="one length"):
        LabelMatrix.from_entries([0, 1], [0], [1], (2, 3))
    with pytest.raises(InputError, match="expected \\[images, classes\\]"):
        LabelMatrix.from_dense(np.zeros(3))


def test_load_of_something_else(tmp_path):
    with pytest.raises(InputError, match=r"none.npz: no such file"):
        LabelMatrix.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", indptr=[0])
    np.savez(tmp_path / "pickled.npz", indptr=np.array([{}], dtype=object))
    np.savez(tmp_path / "wrong.npz", indptr=[0, 1], indices=[5], values=[1], num_classes=2, fill=0)
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "empty.npz").touch()
    for name in ("other", "pickled", "text", "empty"):
        with pytest.raises(InputError, match=f"{name}.npz: not a label matrix"):
            LabelMatrix.load(tmp_path / f"{name}.npz")
    with pytest.raises(InputError, match=r"wrong.npz: labels: found class 5"):
        LabelMatrix.load(tmp_path / "wrong.npz")


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "labels.npz"
    labels = LabelMatrix.from_dense(np.ones((2, 2)))
    labels.save(path)
    monkeypatch.setattr(np, "savez_compressed", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        LabelMatrix.from_dense(np.zeros((2, 2))).save(path)
    assert LabelMatrix.load(path) == labels
    assert os.listdir(tmp_path) == ["labels.npz"]


def annotations(**changes):
    fields = {
        "images": ["a.jpg", "b.jpg"],
        "labels": LabelMatrix.from_dense(np.array([[1, 0, -1, -1], [1, -1, -1, -1]])),
        "classes": ["cat", "Neck 0", "Neck 1", "Neck 2"],
        "groups": {"cat": slice(0, 1), "neck": slice(1, 4)},
        "source": "labels.csv",
        "table": pd.DataFrame({"filename": ["a.jpg", "b.jpg"]}),
    }
    return Annotations(**{**fields, **changes})


def test_annotations_select_and_summary():
    both = annotations()
    assert both.keys == both.classes
    assert both.summary() == "2 images, 4 classes: 25.0 % positive, 12.5 % negative, 62.5 % unknown"
    second = both.select([1])
    assert second.images == ["b.jpg"]
    assert second.labels.to_dense().tolist() == [[1, -1, -1, -1]]
    assert second.table.filename.tolist() == ["b.jpg"]
    assert second.groups == both.groups
    full = both.with_labels(LabelMatrix.from_dense(np.zeros((2, 4))))
    assert full.summary().endswith("100.0 % negative, 0.0 % unknown")
    assert both.labels.counts().negatives.sum() == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ["a.jpg"]}, "labels.csv: found 1 images, the labels have 2"),
        ({"classes": ["cat"]}, "found 1 class names, the labels have 4"),
        ({"keys": ["cat"]}, "found 1 class keys, the labels have 4"),
        ({"table": pd.DataFrame({"filename": ["a.jpg"]})}, "found 1 rows in the table"),
        ({"groups": {"neck": slice(1, 5)}}, "attribute 'neck' has classes 1 to 4, expected a part of 0 to 3"),
    ],
)
def test_annotations_whose_lengths_differ(changes, message):
    with pytest.raises(InputError, match=message):
        annotations(**changes)
