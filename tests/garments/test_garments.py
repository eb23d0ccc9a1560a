"""The drawn demo set: what is in its files, that it can be repeated, and that it is never half there."""

import csv

import numpy as np
import pytest
from PIL import Image

from csl.errors import InputError
from csl.garments import ATTRIBUTES, dataset, make_garments
from csl.garments.dataset import draw_values
from csl.garments.scene import draw_garment

SMALL = {"num_train": 20, "num_val": 8, "size": 64, "progress": False, "workers": 1}


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def garment_set(tmp_path_factory):
    return make_garments(tmp_path_factory.mktemp("sets") / "garments", **SMALL)


def test_files_and_columns(garment_set):
    partly, fully = read(garment_set / "attributes.csv"), read(garment_set / "truth.csv")
    assert list(partly[0]) == list(fully[0]) == ["filename", "neck", "sleeve_length", "pattern", "split"]
    assert [record["split"] for record in partly] == ["train"] * 20 + ["val"] * 8
    assert sorted(path.name for path in (garment_set / "images").iterdir()) == [record["filename"] for record in partly]
    for a, b in zip(partly, fully, strict=True):
        assert all(a[name] in ("#N/A", b[name]) for name in ATTRIBUTES)
        assert all(0 <= int(b[name]) < len(values) for name, values in ATTRIBUTES.items())
        assert (a["filename"], a["split"]) == (b["filename"], b["split"])


def test_images_open_and_have_the_size(garment_set):
    for path in (garment_set / "images").iterdir():
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))


def test_nothing_but_the_set_is_left(garment_set):
    assert sorted(p.name for p in garment_set.iterdir()) == ["attributes.csv", "garments.json", "images", "truth.csv"]
    assert [p.name for p in garment_set.parent.iterdir()] == ["garments"]


def test_same_seed_same_set_in_any_number_of_processes(garment_set, tmp_path):
    again = make_garments(tmp_path / "again", **SMALL)
    longer = make_garments(tmp_path / "longer", **SMALL | {"num_train": 100, "num_val": 0, "workers": 2})
    for path in sorted((garment_set / "images").iterdir()):
        assert path.read_bytes() == (again / "images" / path.name).read_bytes()
        assert path.read_bytes() == (longer / "images" / path.name).read_bytes()
    for name in ("attributes.csv", "truth.csv"):
        assert (garment_set / name).read_bytes() == (again / name).read_bytes()


def test_another_seed_another_set(garment_set, tmp_path):
    other = make_garments(tmp_path / "other", **SMALL | {"seed": 1})
    assert (garment_set / "truth.csv").read_text() != (other / "truth.csv").read_text()
    assert (garment_set / "images/00001.jpg").read_bytes() != (other / "images/00001.jpg").read_bytes()


def test_every_value_occurs_and_two_fifths_are_unknown():
    drawn = [draw_values(seed=0, index=index)[:2] for index in range(1, 2001)]
    for name, names in ATTRIBUTES.items():
        values = np.array([values[name] for values, _ in drawn])
        known = np.array([known[name] for _, known in drawn])
        share = np.bincount(values, minlength=len(names)) / len(values)
        assert len(share) == len(names)
        assert share.min() > 0.04
        assert share.max() > 1.5 * share.min()
        assert 0.35 < 1 - known.mean() < 0.45
        assert all(0.25 < 1 - known[values == value].mean() < 0.55 for value in range(len(names)))


@pytest.mark.parametrize("pattern", range(len(ATTRIBUTES["pattern"])))
def test_each_value_can_be_drawn_in_any_size(pattern):
    for neck in range(len(ATTRIBUTES["neck"])):
        sleeve, size = (neck + pattern) % 4, (33, 64)[neck % 2]
        image = draw_garment(np.random.default_rng([neck, pattern]), neck, sleeve, pattern, size)
        assert image.size == (size, size)
        assert np.asarray(image).std() > 5


def test_values_show_in_the_picture():
    pictures = {
        values: np.asarray(draw_garment(np.random.default_rng(3), *values, 64), float)
        for values in [(0, 1, 0), (5, 1, 0), (0, 3, 0), (0, 1, 1)]
    }
    for values, picture in pictures.items():
        assert values == (0, 1, 0) or np.abs(picture - pictures[0, 1, 0]).mean() > 1


def test_second_call_does_not_draw(garment_set, monkeypatch):
    monkeypatch.setattr(dataset, "save_garment", lambda *args, **kwargs: pytest.fail("drew again"))
    assert make_garments(garment_set, **SMALL) == garment_set


def test_other_parameters_replace_the_set(tmp_path):
    root = make_garments(tmp_path / "set", **SMALL | {"num_train": 3, "num_val": 1})
    make_garments(root, **SMALL | {"num_train": 2, "num_val": 1})
    assert len(read(root / "attributes.csv")) == 3
    assert len(list((root / "images").iterdir())) == 3


def test_an_interrupted_draw_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(index, *args, **kwargs):
        if index == 5:
            raise KeyboardInterrupt
        return save(index, *args, **kwargs)

    save = dataset.save_garment
    monkeypatch.setattr(dataset, "save_garment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_garments(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []

    monkeypatch.undo()
    root = make_garments(tmp_path / "set", **SMALL | {"num_train": 2, "num_val": 1})
    monkeypatch.setattr(dataset, "save_garment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_garments(root, **SMALL)
    assert len(read(root / "attributes.csv")) == len(list((root / "images").iterdir())) == 3


def test_what_is_not_a_drawn_set_is_not_overwritten(tmp_path):
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(InputError, match="no drawn garment set"):
        make_garments(tmp_path, **SMALL)
    assert (tmp_path / "precious.txt").read_text() == "keep"


@pytest.mark.parametrize(("name", "value"), [("num_train", 0), ("num_val", -1), ("size", 8), ("seed", -1)])
def test_bad_numbers(tmp_path, name, value):
    with pytest.raises(InputError, match=f"{name}: found {value}, expected at least"):
        make_garments(tmp_path / "set", **SMALL | {name: value})
