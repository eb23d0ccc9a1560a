"""Tables in Parquet as Hugging Face's `datasets` writes them: names of classes, lists, several parts, photos inside."""

import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from csl.data.images import load_rgb
from csl.errors import InputError
from csl.labels import read_annotations

NAMES = ["cat", "dog", "guinea pig"]
CLASS = {"names": NAMES, "_type": "ClassLabel"}


def encoded(colour, form="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(stream, form)
    return stream.getvalue()


def write(file, columns, features=None):
    """A Parquet file; `features` as `datasets` writes them into its metadata."""
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=2)
    return file


def inside(*numbers, name="photo {}.png"):
    return pa.array([{"bytes": encoded((n, 0, 0)), "path": name.format(n)} for n in numbers])


def positives(annotations):
    return [{annotations.classes[c] for c in np.flatnonzero(row == 1)} for row in annotations.labels.to_dense()]


def test_parts_with_photos_and_numbered_classes(tmp_path):
    features = {"image": {"_type": "Image"}, "label": CLASS, "seen": {"dtype": "bool", "_type": "Value"}}
    for part, numbers in enumerate([(10, 11, 12), (13,)]):
        columns = {
            "image": inside(*numbers),
            "label": [0, 2, -1][: len(numbers)],
            "seen": [True, False, None][: len(numbers)],
        }
        write(tmp_path / "data" / f"train-{part:05}-of-00002.parquet", columns, features)
    write(tmp_path / "data" / "validation-00000-of-00001-abc1.parquet",
          {"image": inside(20), "label": [1], "seen": [False]}, features)  # fmt: skip
    train, val = (read_annotations(tmp_path, split=split) for split in ("train", "val"))
    assert train.classes == val.classes == ["label:cat", "label:dog", "label:guinea pig", "seen"]
    assert train.labels.to_dense().tolist() == [[1, 0, 0, 1], [0, 0, 1, 0], [-1, -1, -1, -1], [1, 0, 0, 1]]
    assert val.labels.to_dense().tolist() == [[0, 1, 0, 0]]
    assert [load_rgb(path, train.roots).getpixel((0, 0))[0] for path in [*train.images, *val.images]] == [
        10,
        11,
        12,
        13,
        20,
    ]
    assert [Path(path).name for path in train.images[:2]] == ["00000000_photo_10.png", "00000001_photo_11.png"]
    assert any("the photos in it are files in" in note for note in train.notes)
    assert any("one of 2 parts, which are read together" in note for note in train.notes)
    named = read_annotations(tmp_path / "data" / "validation-00000-of-00001-abc1.parquet", split="val")
    assert named.labels == val.labels
    with pytest.raises(InputError, match="no CSV of the test split"):
        read_annotations(tmp_path, split="test")
    with pytest.raises(InputError, match=r"--images: found x, expected none for .*, which holds the images"):
        read_annotations(tmp_path, images="x", split="train")


def test_photos_are_written_once_and_again_where_the_file_changed(tmp_path):
    file = write(tmp_path / "train.parquet", {"image": inside(1, 2), "hat": [1, 0]})
    (first, _) = read_annotations(tmp_path).images
    os.utime(first, ns=(1, 1))
    assert read_annotations(tmp_path).images[0] == first
    assert os.stat(first).st_mtime_ns == 1
    write(file, {"image": inside(3, 4, 5), "hat": [1, 0, 1]})
    changed = read_annotations(tmp_path).images
    assert load_rgb(changed[0]).getpixel((0, 0))[0] == 3
    assert not os.path.exists(first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.parquet", Path(changed[0]).parent.name]


def test_a_read_only_folder(tmp_path, monkeypatch):
    file = write(tmp_path / "data" / "train.parquet", {"image": inside(1, 2), "hat": [1, 0]})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make = tempfile.mkdtemp  # refuses there, as permissions do not stop root

    def refuse(*args, dir, **options):
        if Path(dir) == file.parent:
            raise PermissionError(13, "Permission denied")
        return make(*args, dir=dir, **options)

    monkeypatch.setattr("csl.labels.cache.tempfile.mkdtemp", refuse)
    found = read_annotations(file.parent)
    assert all(Path(image).is_relative_to(tmp_path / "cache") for image in found.images)
    assert load_rgb(found.images[1], found.roots).getpixel((0, 0))[0] == 2


@pytest.mark.parametrize(
    ("cells", "feature"),
    [
        ([[0, 2], [1], []], {"feature": CLASS, "_type": "Sequence"}),
        ([[0, 2], [1], []], {"feature": CLASS, "length": -1, "_type": "List"}),
        ([[0, 2], [1], []], [CLASS]),
        ([["cat", "guinea pig"], ["dog"], []], {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}),
    ],
)
def test_lists_of_classes(tmp_path, cells, feature):
    write(tmp_path / "train" / "metadata.parquet", {"file_name": ["1.jpg", "2.jpg", "3.jpg"], "labels": cells},
          {"labels": feature})  # fmt: skip
    found = read_annotations(tmp_path, split="train")
    assert found.classes == NAMES
    assert positives(found) == [{"cat", "guinea pig"}, {"dog"}, set()]
    assert found.labels.to_dense().min() == 0
    assert Path(found.images[0]) == tmp_path / "train" / "1.jpg"


def test_photos_that_are_paths_and_other_bytes(tmp_path):
    (tmp_path / "1.png").write_bytes(encoded("red"))
    columns = {"image": [{"bytes": None, "path": "1.png"}], "hat": [1], "thumb": [b"\0\1"]}
    write(tmp_path / "train.parquet", columns)
    found = read_annotations(tmp_path)
    assert found.images == [str(tmp_path / "1.png")]
    assert found.classes == ["hat"]
    assert any("column thumb holds bytes, and no labels" in note for note in found.notes)


def test_what_is_missing_or_damaged_is_one_line(tmp_path):
    file = write(tmp_path / "train-00000-of-00002.parquet", {"image": inside(1), "hat": [1]})
    with pytest.raises(InputError, match="part 1 of 2 is not there, expected all parts"):
        read_annotations(tmp_path)
    other = write(tmp_path / "train-00001-of-00002.parquet", {"image": inside(1), "tie": [1]})
    with pytest.raises(InputError, match=r"found the columns \['image', 'tie'\], expected \['image', 'hat'\]"):
        read_annotations(tmp_path)
    other.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"train-00001-of-00002.parquet: cannot be read as Parquet .*expected a whole"):
        read_annotations(tmp_path)
