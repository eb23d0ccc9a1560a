"""What the cells of one column are taken for: small tables as people have them, with the right labels or the right question."""

import csv
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from csl.errors import InputError
from csl.labels import read_attributes


def read(folder, columns, **options):
    """Read a table with these columns of cells; the photos are 0.jpg, 1.jpg, ..."""
    names = columns.get("filename") or [f"{k}.jpg" for k in range(max(map(len, columns.values())))]
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns := {"filename": names} | columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return read_attributes(folder / "labels.csv", **options)


def positives(annotations):
    """The classes that each image has, None where nothing is known of it."""
    dense = annotations.labels.to_dense()
    return [
        None if (row < 0).all() else {annotations.classes[c] for c, label in enumerate(row) if label == 1}
        for row in dense
    ]


def notes(annotations):
    return [note for note in annotations.notes if "photo" not in note]


def why(annotations, name):
    return next(column.why for column in annotations.columns if column.name == name)


A, B, C = {"red"}, {"blue"}, {"green"}
LISTS = {
    "varied": (["red,blue", "red", "blue,green"], {}, [A | B, A, B | C]),
    "bars": (["a|b", "a", "b|c", "c"], {}, [{"a", "b"}, {"a"}, {"b", "c"}, {"c"}]),
    "said": (["red,blue", "red", "green"], {"roles": {"kind": "list"}}, [A | B, A, C]),
    "said, as many parts": (["red blue", "blue green"], {"roles": {"kind": "list"}}, [A | B, B | C]),
    "said, names": (["sea lion", "polar bear"], {"roles": {"kind": "list:comma"}}, [{"sea lion"}, {"polar bear"}]),
    "said, blanks": (["red blue", "red, dark"], {"roles": {"kind": "list:blank"}}, [A | B, {"red,", "dark"}]),
    "twice": (["cat,cat", "dog", "cat"], {"roles": {"kind": "list"}}, [{"cat"}, {"dog"}, {"cat"}]),
    **{
        f"separated by {sign}": (
            [row.replace("+", sign) for row in ("red", "red+blue", "blue+green", "green", "red+green", "blue")], {},
            [A, A | B, B | C, C, A | C, B],
        )
        for sign in "#+&/"
    },
    **{
        f"said {sign}": ([f"red{sign}blue", f"red {sign} green"], {"roles": {"kind": f"list:{sign}"}}, [A | B, A | C])
        for sign in "#+&/:"
    },
    "lines": (["red\nblue", "red", "blue"], {}, [A | B, A, B]),
    "commas of China": (["red，blue", "red", "blue、green", "blue，green"], {"roles": {"kind": "list:，"}},
                        [A | B, A, {"blue、green"}, B | C]),
    "signs at the end": (["red,", "blue,", "red,blue,"], {}, [A, B, A | B]),
    "case": (["Red|blue", "red", "Blue", "RED|blue|green"], {}, [{"Red", "blue"}, {"Red"}, {"blue"}, {"Red", "blue", "green"}]),
    "hashtags": (["#red #blue", "#red", "#blue #green", "#green"], {}, [A | B, A, B | C, C]),
    "objects": (['[{"label": "red", "x": 1}, {"label": "blue"}]', '[{"label": "red"}]', "[]"], {}, [A | B, A, set()]),
    "objects, other keys": (['[{"id": 4, "Class_Name": "red"}]', '[{"id": 5, "Class_Name": "blue"}]'], {}, [A, B]),
    "objects of Python": (["[{'category': 'red', 'box': [1, 2]}]", "[{'category': 'blue', 'box': []}]"], {}, [A, B]),
    "objects with lists": (['[{"rectanglelabels": ["red"]}, {"rectanglelabels": ["blue"]}]', "[]"], {}, [A | B, set()]),
    "choices": (["red", '{"choices": ["red", "blue"]}', "green, dark"], {}, [A, A | B, {"green, dark"}]),
    "one choice": (['{"choices": ["red"]}', '{"choices": "blue"}'], {}, [A, B]),
    "sets": (["{'red', 'blue'}", "set()", "{'red'}"], {}, [A | B, set(), A]),
    "numbers in a column of labels": (["[1, 2]", "[2, 3]"], {"filename_column": "filename"}, [{"1", "2"}, {"2", "3"}]),
    "numbers as NumPy writes them": (["[1 2]", "[2]", "[3]"], {}, [{"1", "2"}, {"2"}, {"3"}]),
    "words for none": (['["none"]', '["red"]', '["No label"]', "[]"], {}, [set(), A, set(), set()]),
    "words for unknown": (['["?"]', '["red"]', "[null]", '["red", null]', '["n/a"]'], {}, [None, A, None, A, None]),
    "bare words for none": (["No labels", "red|blue", "nothing", "red", "blue", "none"], {},
                            [set(), A | B, set(), A, B, None]),
    "none by name": (["red|blue", "red", "blue", "none"], {"no_label": ["none"]}, [A | B, A, B, set()]),
    "vector": (["[1, 0, 0]", "[0, 1, 0]"], {"roles": {"kind": "list"}}, [{"Kind 0"}, {"Kind 1"}]),
    "vector of NumPy": (["[1. 0.]", "[0. 1.]"], {"roles": {"kind": "list"}}, [{"Kind 0"}, {"Kind 1"}]),
    "vector of words": (["True,False", "False,False"], {"roles": {"kind": "list"}}, [{"Kind 0"}, set()]),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_cells_that_are_lists(tmp_path, case):
    cells, options, expected = LISTS[case]
    name = "labels" if case == "numbers in a column of labels" else "kind"
    found = read(tmp_path, {name: cells}, **options)
    assert found.columns[1].role == "list"
    assert positives(found) == expected


ASKED = {
    "commas": ["red,blue", "red", "green"],
    "commas and blanks": ["red, blue", "red", "green"],
    "as many parts": ["red,blue", "blue,green", "red,green"],
    "as many parts of many": [f"{a}, {b}" for a in "abcdefgh" for b in "abcdefgh" if a < b] * 3,
    "one combination": ["red,blue", "red,blue", "red,blue"],
    "a word twice": ["red,red", "blue", "red"],
    "bars": ["red|blue", "green|black"],
    "bars at the end": ["red|", "blue|"],
    "a comma at the end": ["red,", "blue,"],
    "semicolons": ["red; blue", "green"],
    "blanks": ["red blue", "red", "blue green"],
    "blanks, as many parts": ["cat dog", "dog bird", "bird cat"],
    "blanks and numbers": ["1 2", "3 4"],
    "as many names as kinds of them": [f"{of}{c}" for of in ("", "light ", "dark ") for c in ("blue", "red", "grey", "tan")],
    "different, ten": [f"{k},{k + 1},{k + 2}" for k in range(0, 20, 2)],
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_cells_that_may_be_lists_are_asked_about(tmp_path, case):
    with pytest.raises(
        InputError, match=r"'kind' may hold lists separated by .*: expected --roles 'kind'=list or 'kind'=attri"
    ):
        read(tmp_path, {"kind": ASKED[case]})
    assert read(tmp_path, {"kind": ASKED[case]}, roles={"kind": "attribute"}).columns[1].role == "attribute"
    assert read(tmp_path, {"kind": ASKED[case]}, roles={"kind": "list"}).columns[1].role == "list"


@pytest.mark.parametrize("sign", "#+&/")
def test_the_question_names_a_sign_that_names_may_have(tmp_path, sign):
    with pytest.raises(InputError, match=rf"--roles 'kind=list:\{sign}' or 'kind'=attribute"):
        read(tmp_path, {"kind": [f"red{sign}blue", "red", "green"]})


@pytest.mark.parametrize(("cells", "sign"), [(["sea lion", "polar bear", "cat"], "blank"), (["R&B", "rock"], "&")])
def test_lists_that_a_person_says_are_asked_about_where_a_sign_may_be_of_a_label(tmp_path, cells, sign):
    with pytest.raises(InputError, match=f"expected --roles 'kind=list:{sign}' or 'kind=list:comma'"):
        read(tmp_path, {"kind": cells}, roles={"kind": "list"})
    found = read(tmp_path, {"kind": cells}, roles={"kind": "list:comma"})
    assert positives(found) == [{cell} for cell in cells]


def test_a_comma_in_a_column_of_tags_is_asked_about(tmp_path):
    cells = ["Smith, John", "Doe, Jane"]
    with pytest.raises(InputError, match="--roles 'tags'=list"):
        read(tmp_path, {"tags": cells})
    assert read(tmp_path, {"owner": cells}).columns[1].role == "attribute"


ATTRIBUTES = {
    "names": ["Smith, John", "Doe, Jane", "Roe, Max"],
    "places": ["Paris, France", "Oslo, Norway"],
    "shades": ["light blue", "dark blue", "blue", "red", "dark red", "very dark red"],
    "other shades": ["bleu clair", "bleu foncé", "rouge clair", "rouge très clair", "vert"],
    "animals": ["polar bear", "sea lion", "cat", "bear", "dog"],
    "breeds": ["German shepherd", "shepherd dog", "mountain dog", "mountain goat", "hunting dog"],
    "names in Latin": ["tench, Tinca tinca", "goldfish, Carassius auratus", "red fox, Vulpes vulpes"],
    "kinds of kinds": ["animal/dog", "animal/cat", "plant/rose"],
    "signs": ["C++", "C#", "A+", "R&B"],
    "ranges": ["18-25", "26-40", "41+"],
    "measures": ["10 cm", "20 cm", "20.5 cm"],
    "one word": ["red", "blue"],
}


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_names_are_no_lists(tmp_path, case):
    found = read(tmp_path, {"kind": ATTRIBUTES[case]})
    assert found.columns[1].role == "attribute"
    assert positives(found) == [{f"kind:{cell}"} for cell in ATTRIBUTES[case]]


NO_LABELS = {
    "target": ["[1, 0, 0]", "[0, 1, 0]", "[1, 1, 0]"],
    "one_hot": ["1,0,0", "0,1,0", "0,0,1"],
    "by_blanks": ["1 0 0", "0 1 0", "0 0 1"],
    "unknown_places": ["[1, 0, -1]", "[0, 1, 1]", "[0, -1, 0]"],
    "truth": ["[true, false]", "[false, true]", "[false, false]"],
    "braces": ["{1,0,0}", "{0,1,0}", "{0,0,1}"],
    "position": ["52.5, 13.4", "48.1, 11.5", "52.5, 13.4"],
    "taken": ["Jan 3, 2024", "Jan 4, 2024", "May 4, 2024"],
    "Gender": ["F", "F", "F"],
    "numpy": ["[1. 0.]", "[0. 1.]", "[1. 1.]"],
    "soft": ["[0.1, 0.9]", "[0.5, 0.5]", "[1.0, 0.0]"],
    "bbox": ["[1, 2, 3, 4]", "[2, 3, 5, 6]", "[0, 0, 9, 9]"],
    "objects": ['[{"x": 1}]', '[{"x": 2}]', "[]"],
    "outline": ["[[1, 2], [3, 4]]", "[[5, 6]]", "[]"],
    "caption": ["a dog, sitting", "a cat, sitting", "a cat"],
    "Sex": ["M", "M", "M"],
    "neck": ["3", "3", "3"],
}


@pytest.mark.parametrize("name", NO_LABELS)
def test_cells_that_hold_no_labels_are_ignored_and_named(tmp_path, name):
    found = read(tmp_path, {"hat": ["1", "0", "1"], name: NO_LABELS[name]})
    assert found.classes == ["hat"]
    assert why(found, name)
    if name in ("objects", "outline"):
        with pytest.raises(InputError, match=f"'{name}' holds nested JSON .*, expected lists of words or of objects"):
            read(tmp_path, {"hat": ["1", "0", "1"], name: NO_LABELS[name]}, roles={name: "list"})


def test_a_vector_alone_and_numbers_in_brackets_are_asked_about(tmp_path):
    with pytest.raises(InputError, match="--roles 'kind'=list makes each place a class"):
        read(tmp_path, {"kind": ["[1, 0, 0]", "[0, 1, 0]"]})
    with pytest.raises(
        InputError, match="'kind' holds 2 numbers in each cell .*--roles 'kind'=list or --ignore_columns 'kind'"
    ):
        read(tmp_path, {"hat": ["1", "0"], "kind": ["[7, 20]", "[20, 30]"]})


def test_a_constant_is_kept_where_nothing_varies_or_a_person_names_it(tmp_path):
    columns = {"hat": ["1", "0"], "Sex": ["M", "M"]}
    assert read(tmp_path, {"Sex": ["M", "M"], "neck": ["3", "3"]}).groups.keys() == {"Sex", "neck"}
    assert read(tmp_path, columns, roles={"Sex": "attribute"}).groups.keys() == {"hat", "Sex"}
    assert read(tmp_path, columns | {"Sex": ["M", ""]}).groups.keys() == {"hat", "Sex"}


@pytest.mark.parametrize(
    ("yes", "no"),
    [("pos", "neg"), ("Positive", "negative"), ("on", "OFF"), ("+", "-"), ("+", "\N{MINUS SIGN}"), ("positiv", "negativ"),
     ("checked", "unchecked")],
)  # fmt: skip
def test_words_for_yes_and_no(tmp_path, yes, no):
    found = read(tmp_path, {"cat": [yes, no, ""], "dog": [no, yes, "?"]})
    assert found.classes == ["cat", "dog"]
    assert found.labels.to_dense().tolist() == [[1, 0], [0, 1], [-1, -1]]


def test_a_plus_alone_is_a_mark_and_a_dash_alone_unknown(tmp_path):
    assert read(tmp_path, {"cat": ["+", "", "?"]}).labels.to_dense().tolist() == [[1], [0], [-1]]
    assert read(tmp_path, {"cat": ["1", "0", "-"]}).labels.to_dense().tolist() == [[1], [0], [-1]]


@pytest.mark.parametrize(
    "word",
    ["n.a.", "N. A.", "tbd", "Not sure", "unsure", "k.A.", "keine Angabe", "unbekannt", "inconnu", "Desconocido",
     "sconosciuto", "onbekend", "not available", "Not applicable", "missing", "-/-", "--"],
)  # fmt: skip
def test_words_for_unknown_are_counted_as_they_are_spelt(tmp_path, word):
    found = read(tmp_path, {"colour": ["red", "blue", word], "hat": ["1", "0", word]})
    assert found.labels.to_dense().tolist() == [[0, 1, 1], [1, 0, 0], [-1, -1, -1]]
    assert {why(found, name) for name in ("colour", "hat")} == {f"unknown: {word} (1)"}


@pytest.mark.parametrize("cells", [["1", "0", "1", "maybe"], ["yes", "no", "yes", "yes", "no", "yes?"], [*"10101012"],
                                   ["True"] * 9 + ["False"] * 9 + ["2", "unclear"], [*"10" * 40, "1?", "maybe"],
                                   ["x", "", "x", "X", "x?"]])  # fmt: skip
def test_an_odd_cell_among_words_for_yes_and_no_is_refused(tmp_path, cells):
    odd = next(cell for cell in cells if cell.lower() not in ("", "x", "1", "0", "yes", "no", "true", "false"))
    with pytest.raises(InputError) as error:
        read(tmp_path, {"hat": cells})
    assert f"labels.csv, line {cells.index(odd) + 2}, column 'hat': found {odd!r} among words for" in str(error.value)
    assert "--roles 'hat'=attribute" in str(error.value)
    as_attribute = read(tmp_path, {"hat": cells}, roles={"hat": "attribute"})
    assert as_attribute.columns[1].role == "attribute"
    again = read_attributes(tmp_path / "labels.csv", classes=as_attribute.classes, groups=as_attribute.groups)
    assert again.labels == as_attribute.labels  # a run that took it for one does not ask again


@pytest.mark.parametrize("cells", [["yes", "no", "maybe", "no", "maybe"], [*"0121"], [*"ffmfm"], ["1", "0", "0.5", "1"],
                                   ["n", "n", "n", "s"], [*"0101001100133301"], ["pos", "neg", "neutral"]])  # fmt: skip
def test_attributes_with_words_for_yes_and_no_are_no_slips(tmp_path, cells):
    options = {"vote_threshold": 0.5} if "0.5" in cells else {}
    assert read(tmp_path, {"kind": cells}, **options).columns[1].role == ("class" if options else "attribute")


def test_spellings_that_are_one_value_are_said(tmp_path):
    found = read(tmp_path, {"colour": ["Red", "red ", "RED", "blue"], "hat": ["yes", "Yes", "no", "no"]})
    assert notes(found) == [
        "column 'colour': 1 values are spelt in several ways, each is one class ('Red' = 'red ' = 'RED')"
    ]
    forms = read(tmp_path, {"colour": ["Gru\u0308n", "gr\u00fcn", "light  blue", "light blue"]})
    assert forms.labels.to_dense().tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert notes(forms)[0].startswith("column 'colour': 2 values are spelt in several ways")
    listed = read(tmp_path, {"tags": ["Cat|dog", "cat", "Dog", "dog|cat|fish"]})
    assert positives(listed) == [{"Cat", "dog"}, {"Cat"}, {"dog"}, {"Cat", "dog", "fish"}]
    assert notes(listed)[0].startswith("column 'tags': 2 values are spelt in several ways, each is one class ('Cat' = ")


def test_the_key_of_objects_and_empty_lists_are_said(tmp_path):
    found = read(
        tmp_path, {"boxes": ['[{"name": "x", "label": "cat"}]', '[{"name": "y", "label": "dog"}]', '["none"]']}
    )
    assert notes(found) == ["column 'boxes' holds lists of objects: the 'label' of each is a label"]
    assert why(found, "boxes") == 'in brackets; unlisted: negative; no label: ["none"] (1)'


def test_lists_of_an_image_that_differ_are_said(tmp_path):
    columns = {
        "filename": ["a.jpg", "a.jpg", "b.jpg", "b.jpg", "c.jpg"],
        "kind": ["cat|dog", "cat", "dog", "dog", "bird|cat|dog"],
    }
    found = read(tmp_path, columns)
    assert positives(found) == [{"cat", "dog"}, {"dog"}, {"bird", "cat", "dog"}]
    assert "1 images have rows with different lists, such as 'a.jpg': united" in notes(found)
    alike = columns | {"kind": ["cat|dog", "dog|cat", "dog", "dog", "bird|cat|dog"]}
    assert not any("different lists" in note for note in notes(read(tmp_path, alike)))


@pytest.mark.parametrize("role", ["list:", "class:", "lists"])
def test_a_role_that_is_none_is_refused(tmp_path, role):
    with pytest.raises(
        InputError, match="--roles: found kind=" + re.escape(role) + r", expected .*, list:SEPARATOR as in list:\+"
    ):
        read(tmp_path, {"kind": ["a", "b"]}, roles={"kind": role})


WORDS = ["cat", "dog", "fish", "x-ray", "Größe", "3d", "o'clock"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cells")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True), min_size=1, max_size=9),
       st.sampled_from(["|", ";", ",", ", ", "; "]))  # fmt: skip
@example([["cat", "dog"]], ",")
def test_lists_are_read_right_or_asked_about(folder, rows, separator):
    columns = {"kind": [separator.join(row) for row in rows]}
    try:
        found = read(folder, columns)
    except InputError:
        with pytest.raises(InputError, match="--roles 'kind'=list"):
            read(folder, columns)
        found = read(folder, columns, roles={"kind": "list"})
    if found.columns[1].role == "list":
        assert positives(found) == list(map(set, rows))
    else:  # no word of a list is in another, and the sign is that of names
        words = [word for row in set(map(tuple, rows)) for word in row]
        assert separator == ", " or all(len(row) == 1 for row in rows)
        assert len(set(words)) == len(words)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "light ", "dark ", "very dark "]), st.sampled_from(["blue", "red", "grey"])),
                min_size=2, max_size=7))  # fmt: skip
def test_names_of_two_words_are_asked_about_where_there_are_many_alone(folder, rows):
    cells = [of + colour for of, colour in rows]
    try:
        assert read(folder, {"kind": cells}).columns[1].role == "attribute"
    except InputError:
        words = {word for cell in cells for word in cell.split()}
        assert len(words) <= len(set(cells)) / 2
