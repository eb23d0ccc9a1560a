"""validate.py moves the results of another checkpoint, data set or split aside, whatever their file holds."""

import json

import pytest

from csl.inference.validate import _make_room

NOW = {"checkpoint": "best.ckpt", "data": "photos.csv", "split": "val"}


@pytest.mark.parametrize(
    ("before", "named"),
    [
        (json.dumps({**NOW, "split": "test"}), "best.ckpt on photos.csv"),
        ('{"checkpoint": "be', "other networks or data"),
        ("[]", "other networks or data"),
        ('{"mAP": 1.0}', "other networks or data"),
        ('{"checkpoint": null, "data": "photos.csv"}', "other networks or data"),
    ],
)
def test_other_results_move_aside_and_are_named(tmp_path, before, named):
    (tmp_path / "validation.json").write_text(before)
    (tmp_path / "validation.csv").write_text("class,AP\n")
    said = []
    _make_room(tmp_path, {**NOW, "mAP": 2.0}, said.append)
    (aside,) = tmp_path.glob("earlier-*")
    assert said == [f"the validation of {named} is now in {aside}"]
    assert (aside / "validation.json").read_text() == before
    assert (aside / "validation.csv").exists()


def test_results_with_other_numbers_move_aside_with_their_pictures(tmp_path):
    (tmp_path / "validation.csv").write_text("mine")  # and nothing says of what it is
    _make_room(tmp_path, NOW, [].append)
    (tmp_path / "validation.json").write_text(json.dumps({**NOW, "mAP": 1.0, "P_C": None}))
    (tmp_path / "plots").mkdir()
    for name in ("val_prior.png", "training.png"):
        (tmp_path / "plots" / name).touch()
    said = []
    _make_room(tmp_path, {**NOW, "mAP": 1.0, "P_C": float("nan")}, said.append)
    assert said == []
    _make_room(tmp_path, {**NOW, "mAP": 1.5, "P_C": 2.0}, said.append)
    assert len(list(tmp_path.glob("earlier-*"))) == 2
    assert [path.name for path in tmp_path.glob("plots/**/*.png")] == ["training.png", "val_prior.png"]
    (aside,) = tmp_path.glob("plots/earlier-*")
    assert str(aside) in said[0]


def test_the_same_measurement_replaces_its_own(tmp_path):
    (tmp_path / "validation.json").write_text(json.dumps({**NOW, "mAP": 1.0}))
    _make_room(tmp_path, NOW, pytest.fail)
    assert not list(tmp_path.glob("earlier-*"))
