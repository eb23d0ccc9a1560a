"""A share of the images for validation: seeded, groups kept whole, stratified over what is known."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csl.errors import InputError
from csl.labels import LabelMatrix, read_attributes
from csl.labels.division import joined, owners, validation_rows


def draw(seed, count, classes, shares=(0.1, 0.3, 0.6)):
    labels = np.random.default_rng(seed).choice(np.array([1, 0, -1], np.int8), (count, classes), p=shares)
    return LabelMatrix.from_dense(labels, -1)


@given(st.integers(0, 50), st.integers(2, 60), st.integers(1, 6), st.floats(0.05, 0.9))
@settings(max_examples=40, deadline=None)
def test_groups_are_whole_and_no_side_is_empty(seed, count, classes, share):
    groups = np.random.default_rng(seed).integers(0, max(2, count // 2), count)
    groups[:2] = (0, 1)
    labels = draw(seed, count, classes)
    val = validation_rows(labels, groups, share, seed)
    assert 0 < len(val) < count
    train = np.setdiff1d(np.arange(count), val)
    assert not set(groups[val]) & set(groups[train])
    np.testing.assert_array_equal(val, validation_rows(labels, groups, share, seed))
    number = len(np.unique(groups))
    wanted = min(max(round(share * number), 1), number - 1)
    assert len(np.unique(groups[val])) >= wanted / 2


def test_known_labels_are_stratified_and_unknown_ones_count_as_neither():
    labels = draw(0, 2000, 30, (0.01, 0.02, 0.97))
    val = validation_rows(labels, np.arange(2000), 0.2, 0)
    assert abs(len(val) - 400) < 60
    counts, ours = labels.counts(), labels.select(val).counts()
    for whole, part in ((counts.positives, ours.positives), (counts.negatives, ours.negatives)):
        assert np.abs(part - 0.2 * whole).max() < 3  # by chance alone it would be three times as much
    assert not np.array_equal(val, validation_rows(labels, np.arange(2000), 0.2, 1))


def test_what_one_image_alone_has_is_for_training():
    dense = np.zeros((100, 3), np.int8)
    dense[::2, 0] = 1
    dense[7, 1] = 1
    dense[[1, 2, 3], 2] = 1
    val = validation_rows(LabelMatrix.from_dense(dense, 0), np.arange(100), 0.3, 0)
    assert 7 not in val
    assert 0 < len({1, 2, 3} & set(val.tolist())) < 3
    every_one_another = LabelMatrix.from_dense(np.eye(20, dtype=np.int8), 0)
    assert len(validation_rows(every_one_another, np.arange(20), 0.2, 0)) == 4
    nothing_known = LabelMatrix.from_dense(np.full((20, 1), -1, np.int8), -1)
    assert len(validation_rows(nothing_known, np.arange(20), 0.2, 0)) == 4


def test_what_either_grouping_joins_is_one_group():
    groups = joined(np.array([0, 0, 1, 2, 3]), np.array(["a", "b", "b", "c", "d"]))
    assert len(set(groups[:3])) == 1
    assert len(set(groups[2:])) == 3


def test_one_image_cannot_be_split():
    with pytest.raises(InputError, match="--val_split: found 1 different images, expected 2 or more"):
        validation_rows(draw(0, 3, 2), np.zeros(3, np.int64), 0.5, 0)


def test_many_classes_take_seconds():
    started = time.perf_counter()
    validation_rows(draw(0, 2000, 1500, (0.01, 0.19, 0.8)), np.arange(2000), 0.2, 0)
    assert time.perf_counter() - started < 60


@pytest.mark.parametrize(
    ("columns", "owner", "groups"),
    [
        ({"patient_id": ["P1", "P1", "P2", "", ""]}, "patient_id", 4),
        ({"StudyID": ["1", "2", "3", "3", "3"], "PatientID": ["7", "7", "8", "8", "8"]}, "PatientID", 2),
        ({"case": ["c1", "c1", "c2", "c2", "c3"]}, "case", 3), ({"subject": ["3", "3", "5", "5", "8"]}, "subject", 3),
        ({"patient_id": ["P1", "P2", "P3", "P4", "P5"]}, None, 0), ({"patient_id": ["P1"] * 5}, None, 0),
        ({"subject": ["night", "night", "day", "day", "day"]}, None, 0),
    ],
)  # fmt: skip
def test_images_of_one_patient_belong_together(tmp_path, columns, owner, groups):
    rows = [f"{k}.jpg,{k % 2},{','.join(cells[k] for cells in columns.values())}\n" for k in range(5)]
    (tmp_path / "labels.csv").write_text(f"filename,hat,{','.join(columns)}\n" + "".join(rows))
    found = owners(read_attributes(tmp_path / "labels.csv"))
    assert (found and found[0]) == owner
    assert (0 if found is None else len(set(found[1]))) == groups
