"""Random labels written as a table, in any dialect, encoding and spelling, are read back the same."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from csl.labels import read_attributes
from csl.labels.matrix import UNANNOTATED

CLASSES = ["hat", "red tie", "Größe", "señal", 'the "best"', "semi;colon", "a, b", "bar|red", "3d", "=sum(1)"]
WORDS = ["hat", "Größe", "señal", "tie", "3d", "x-ray", "cat_2", "o'clock"]  # of lists, in which no separator may be
NUMBERS = ["0", "1", "2", "7", "12"]
YES_NO = [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("yes", "no"), ("Y", "N"), ("present", "absent"), ("ja", "nein"),
          ("oui", "non"), ("x", ""), ("✓", "")]  # fmt: skip
UNKNOWN = ["", "#N/A", "N/A", "NA", "None", "NaN", "null", "<NA>", "?", "unknown", "Unknown", "-", "--", "#VALUE!"]
SEPARATORS = [",", ";", "\t", "|"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "cp1252"]
LISTS = {
    "json": lambda words: json.dumps(words, ensure_ascii=False),
    "python": str,
    "numpy": lambda words: "[" + " ".join(f'"{word}"' for word in words) + "]",
    **{separator: separator.join for separator in ("|", ";", ",", ", ", "; ")},
}


@st.composite
def matrices(draw, names, unknown_rows=False):
    """Names of classes, and labels [N, C] in which each class is there at least once; unknown by cell or by row."""
    classes = draw(st.lists(st.sampled_from(names), min_size=2, max_size=4, unique=True))
    cells = st.sampled_from([1, 0] if unknown_rows else [1, 0, UNANNOTATED])
    number = draw(st.integers(2, 6))
    labels = np.array(draw(st.lists(cells, min_size=number * len(classes), max_size=number * len(classes))))
    labels = labels.reshape(number, len(classes))
    labels[draw(st.integers(0, number - 1))] = 1
    if unknown_rows and number > 2 and draw(st.booleans()):
        labels[np.flatnonzero(~labels.all(axis=1))[:1]] = UNANNOTATED
    return classes, labels


def written(frame, folder, separator, encoding, newline):
    file = folder / "labels.csv"
    try:
        file.write_bytes(frame.to_csv(index=False, sep=separator, lineterminator=newline).encode(encoding))
    except UnicodeEncodeError:  # cp1252 has no tick
        file.write_bytes(frame.to_csv(index=False, sep=separator, lineterminator=newline).encode("utf-8"))
    return file


def check(annotations, classes, labels):
    assert [Path(image).name for image in annotations.images] == [f"é{k}.jpg" for k in range(len(labels))]
    assert sorted(annotations.classes) == sorted(classes)
    places = [annotations.classes.index(name) for name in classes]
    assert annotations.labels.to_dense()[:, places].tolist() == labels.tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@settings(max_examples=25, deadline=None)
@given(matrices(CLASSES), st.sampled_from(YES_NO), st.sampled_from(UNKNOWN), st.sampled_from(SEPARATORS),
       st.sampled_from(ENCODINGS), st.sampled_from(["\n", "\r\n"]))  # fmt: skip
@example((["hat", "tie"], np.array([[1, 1], [-1, -1], [1, 1]])), ("x", ""), "?", ";", "utf-16", "\r\n")
def test_yes_and_no(folder, matrix, words, unknown, separator, encoding, newline):
    classes, labels = matrix
    if words[1] == "" and unknown == "":
        unknown = "?"
    cells = {1: words[0], 0: words[1], UNANNOTATED: unknown}
    columns = {name: [cells[value] for value in labels[:, k]] for k, name in enumerate(classes)}
    frame = pd.DataFrame({"filename": [f"é{k}.jpg" for k in range(len(labels))], **columns})
    check(read_attributes(written(frame, folder, separator, encoding, newline)), classes, labels)


@settings(max_examples=25, deadline=None)
@given(st.one_of(matrices(WORDS, True), matrices(NUMBERS, True)), st.sampled_from(sorted(LISTS)), st.sampled_from(UNKNOWN),
       st.sampled_from(SEPARATORS), st.sampled_from(ENCODINGS), st.booleans())  # fmt: skip
@example((["1", "7"], np.array([[1, 1], [1, 0]])), ",", "", ";", "utf-8", False)
@example((["cat", "dog"], np.array([[1, 1], [1, 1]])), "|", "", ",", "utf-8", False)
def test_lists(folder, matrix, how, unknown, separator, encoding, unlisted_unknown):
    classes, labels = matrix
    assume(not set(classes) <= {"0", "1"})  # "1,0" may be a vector of 0 and 1 as well
    cells = [
        unknown if (row == UNANNOTATED).all() else LISTS[how]([c for c, v in zip(classes, row, strict=True) if v == 1])
        if row.any() else "No Finding" for row in labels
    ]  # fmt: skip
    frame = pd.DataFrame({"filename": [f"é{k}.jpg" for k in range(len(labels))], "labels": cells})
    options = {"unlisted": "unknown"} if unlisted_unknown else {}
    found = read_attributes(written(frame, folder, separator, encoding, "\n"), roles={"labels": "list"}, **options)
    expected = np.where(labels == 0, UNANNOTATED, labels) if unlisted_unknown else labels
    check(found, classes, expected)


@settings(max_examples=25, deadline=None)
@given(matrices(CLASSES), st.sampled_from([(1, 0), (True, False), ("yes", "no")]), st.booleans())
def test_json_lines(folder, matrix, words, left_out):
    classes, labels = matrix
    lines = []
    for k, row in enumerate(labels):
        cells = {1: words[0], 0: words[1], UNANNOTATED: None}
        content = {name: cells[value] for name, value in zip(classes, row, strict=True)}
        content = {name: value for name, value in content.items() if value is not None or not left_out}
        lines.append(json.dumps({"file_name": f"é{k}.jpg", **content}))
    (folder / "labels.jsonl").write_text("\n".join(lines) + "\n")
    check(read_attributes(folder / "labels.jsonl"), classes, labels)
