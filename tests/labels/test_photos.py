"""Photos are found in the same folders and under the same spellings by every reader."""

import contextlib
import json
import os
import tempfile
import unicodedata
import warnings
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from csl.errors import InputError
from csl.inference.sources import annotations_for
from csl.labels import ImagePaths, read_annotations
from csl.labels import photos as photos_module
from csl.labels.options import DataOptions
from csl.labels.photos import Photos, clean_name, without_extension
from csl.runs.config import TrainConfig
from csl.training.data import load_data


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def coco(folder, names, key="file_name"):
    images = [{"id": n, key: name, "neg_category_ids": []} for n, name in enumerate(names)]
    labelled = [{"id": n, "image_id": n, "category_id": 1} for n in range(len(names))]
    return {"images": images, "annotations": labelled, "categories": [{"id": 1, "name": "cat"}]}


def write_coco(folder, names):
    content = coco(folder, names)
    for image in content["images"]:
        del image["neg_category_ids"]
    write(folder / "train.json", content)


def write_voc(folder, names):
    write(folder / "ImageSets" / "Main" / "train.txt", "\n".join(names))
    for name in names:
        xml = "<annotation><object><name>cat</name></object></annotation>"
        write(folder / "Annotations" / f"{without_extension(clean_name(name))}.xml", xml)


def write_official(folder, names):
    write(folder / "Concepts81.txt", "cat\n")
    write(folder / "ImageList" / "TrainImagelist.txt", "\n".join(names))
    write(folder / "Groundtruth" / "TrainTestLabels" / "Labels_cat_Train.txt", "1\n" * len(names))


WRITERS = {
    "table": lambda folder, names: write(
        folder / "labels.csv", "filename,cat\n" + "".join(f"{name},1\n" for name in names) + "none.jpg,0\n"
    ),
    "COCO": write_coco,
    "LVIS": lambda folder, names: write(folder / "lvis_v1_train.json", coco(folder, names, "coco_url")),
    "VOC": write_voc,
    "NUS-WIDE": write_official,
    "the tutorial's NUS-WIDE": lambda folder, names: write(
        folder / "train.json", {"samples": [{"image_name": n, "image_labels": []} for n in names], "labels": ["cat"]}
    ),
    "OpenImages": lambda folder, names: write(
        folder / "data.csv",
        "filepath,label,label_neg,split_name\n" + "".join(f"{name},['/m/1'],[],train\n" for name in names),
    ),
}
SPELLINGS = {
    "as named": str,
    "no extension": without_extension,
    "another extension": lambda name: without_extension(name) + ".tiff",
    "another case": str.swapcase,
    "backslashes": lambda name: name.replace("/", "\\"),
    "a leading slash": lambda name: f"/{name}",
    "a leading dot": lambda name: f"./{name}",
    "escapes": quote,
    "composed": lambda name: unicodedata.normalize("NFC", name),
    "decomposed": lambda name: unicodedata.normalize("NFD", name),
    "an address": lambda name: f"https://a.b/c/{quote(name)}?width=9#top",
    "a path elsewhere": lambda name: f"C:\\photos\\{name}",
}
FOLDERS = ["", "images", "train", "test", "valid", ".."]


def found(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without names
        annotations = read_annotations(folder, split="training", **options)
    return annotations, list(map(os.path.normpath, annotations.images))


def touch(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return [str(file) for file in files]


STEMS = st.text("abcXYZ019é_- ", min_size=1, max_size=6).filter(lambda text: text == text.strip())
DIFFERENT = st.lists(STEMS, min_size=1, max_size=4, unique_by=str.casefold)


@pytest.mark.parametrize("reader", WRITERS)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_every_reader_finds_the_same_files_under_each_spelling(reader, data):
    stems = data.draw(DIFFERENT)
    place, sub = data.draw(st.sampled_from(FOLDERS)), data.draw(st.sampled_from(["", "sub/"]))
    names = [sub + unicodedata.normalize(data.draw(st.sampled_from(["NFC", "NFD"])), stem) + ".jpg" for stem in stems]
    spelt = [SPELLINGS[data.draw(st.sampled_from(list(SPELLINGS)))](name) for name in names]
    assume(not reader.startswith("NUS") or not any(name != name.strip() for name in spelt))
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "set")
        files = touch(*(Path(os.path.normpath(folder / place / name)) for name in names))
        touch(folder / "other.jpg")
        WRITERS[reader](folder, spelt)
        annotations, images = found(folder)
        assert images[: len(files)] == files
        otherwise = sum(int(note.split()[0]) for note in annotations.notes if "another spelling" in note)
        assert otherwise <= len(names)
        assert otherwise or all(
            s == n or s == f"./{n}" or reader in ("VOC", "LVIS") for s, n in zip(spelt, names, strict=True)
        )
        assert not annotations.no_photos


@pytest.mark.parametrize("reader", WRITERS)
def test_several_folders_of_images_may_be_given(tmp_path, reader):
    files = touch(tmp_path / "one" / "a.jpg", tmp_path / "two" / "images" / "b.png")
    touch(tmp_path / "set" / "a.jpg")  # looked for in the given folders alone
    WRITERS[reader](tmp_path / "set", ["a.jpg", "b"])
    annotations, images = found(tmp_path / "set", images=[str(tmp_path / "one"), tmp_path / "two"])
    assert images[:2] == files
    assert set(map(os.path.realpath, annotations.folders)) <= set(annotations.roots)
    assert any("photos are found in 2 folders: 1 in " in note for note in annotations.notes)
    assert found(tmp_path / "set", images=tmp_path / "one")[1][0] == files[0]


@pytest.mark.parametrize("reader", WRITERS)
def test_none_found_is_one_hint_with_what_was_looked_for_and_what_is_there(tmp_path, reader):
    touch(tmp_path / "images" / "00001.jpg")
    WRITERS[reader](tmp_path, ["1.jpg", "2.jpg"])
    annotations, _ = found(tmp_path)
    assert annotations.no_photos.startswith("no photo is found: '1.jpg' was looked for as ")
    assert str(tmp_path / "images" / "1.jpg") in annotations.no_photos
    assert "/images/ holds '00001.jpg': expected names like that, or --images FOLDER" in annotations.no_photos
    assert annotations.notes[-1] == annotations.no_photos
    with pytest.raises(InputError, match="no photo is found"):
        annotations.expect_photos()


@pytest.mark.parametrize("reader", WRITERS)
def test_what_is_ambiguous_is_refused_by_name(tmp_path, reader):
    touch(tmp_path / "a.png", tmp_path / "a.gif", tmp_path / "b.jpg")
    WRITERS[reader](tmp_path, ["a.jpg", "b.jpg"])
    with pytest.raises(InputError, match=r"'a.jpg' may be a.gif or a.png; expected one image of that name"):
        found(tmp_path)


@pytest.mark.parametrize(
    "names", [("b.png", "b.jpg"), ("http://x/1/b.jpg", "http://x/2/b.jpg"), ("c/b.jpg", "d/b.jpg")]
)
def test_a_file_is_not_found_for_two_names(tmp_path, names):
    touch(tmp_path / "b.jpg")
    write_coco(tmp_path, names)
    with pytest.raises(
        InputError, match=rf"b.jpg: found for '{names[0]}' and for '{names[1]}'; expected a photo of each"
    ):
        found(tmp_path)


def test_the_end_of_a_path_is_no_photo_where_its_folder_is_there(tmp_path):
    files = touch(tmp_path / "dogs" / "2.jpg", tmp_path / "1.jpg")
    write_coco(tmp_path, ["dogs/1.jpg", "data/dogs/2.jpg"])
    assert found(tmp_path)[1] == [str(tmp_path / "dogs" / "1.jpg"), files[0]]


def test_names_of_folders_have_spellings_too(tmp_path):
    files = touch(tmp_path / "Images" / "Tra\u0301in" / "1.JPG")
    write_coco(tmp_path, ["images\\trÁin\\1.jpg"])
    assert found(tmp_path)[1] == files


@pytest.mark.parametrize("reader", WRITERS)
def test_the_folder_above_is_looked_in_only_if_no_photo_is_in_the_data_folder(tmp_path, reader, monkeypatch):
    above = touch(tmp_path / "a.jpg", tmp_path / "photos" / "b.jpg")
    WRITERS[reader](tmp_path / "set", ["a.jpg", "photos/b.jpg"])
    assert found(tmp_path / "set")[1][:2] == above
    touch(tmp_path / "set" / "a.jpg")
    assert all(image.startswith(str(tmp_path / "set")) for image in found(tmp_path / "set")[1])
    monkeypatch.chdir(tmp_path / "set")
    assert not any(image.startswith("..") for image in found(".")[1])
    WRITERS[reader](tmp_path / "set", [above[0], "c.jpg"])  # a whole path stays in the data folder in any case
    with contextlib.suppress(InputError):
        assert above[0] not in found(tmp_path / "set")[1]


def test_training_and_inference_say_it_once(tmp_path):
    write(
        tmp_path / "labels.csv",
        "filename,hat,split\n" + "".join(f"{k}.jpg,{k % 2},train\n{k},1,val\n" for k in range(20)),
    )
    said = []
    with pytest.raises(InputError, match="no photo is found: '0.jpg' was looked for as ") as error:
        load_data(TrainConfig(data=str(tmp_path)), said.append)
    assert not said
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no photo is found: '0' was looked for as "):
        annotations_for(DataOptions(data=str(tmp_path)), "val", None, None, None, tmp_path / "best.ckpt")


def names_of(count, name="{}.jpg"):
    return ImagePaths.from_names([name.format(row) for row in range(count)])


def test_millions_of_names_are_not_looked_for_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(photos_module, "_SAMPLE", 5)
    touch(*(tmp_path / "train" / f"{row}.jpg" for row in range(40)))
    asked, isfile = [], os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(path) or isfile(path))
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"{path} is listed"))
    images = Photos([tmp_path, tmp_path / "train"]).paths(names_of(40))
    assert (images.folder, images[39]) == (str(tmp_path / "train"), str(tmp_path / "train" / "39.jpg"))
    assert len(asked) == 10


@pytest.mark.parametrize("there", [[], [3], [3, 4], range(0, 40, 2)])
def test_few_photos_of_many_are_found(tmp_path, monkeypatch, there):
    monkeypatch.setattr(photos_module, "_SAMPLE", 5)
    touch(*(tmp_path / "b" / f"{row}.jpg" for row in there))
    (tmp_path / "a").mkdir()
    looked = Photos([tmp_path / "a", tmp_path / "b"])
    images = looked.paths(names_of(40))
    assert images.folder == str(tmp_path / ("b" if there else "a"))
    assert bool(looked.hint) == (not there)


@pytest.mark.parametrize("both", [False, True])
def test_many_names_in_another_spelling_or_two_folders(tmp_path, monkeypatch, both):
    monkeypatch.setattr(photos_module, "_SAMPLE", 5)
    files = touch(*(tmp_path / ("b" if both and row % 2 else "a") / f"{row} é.JPG" for row in range(40)))
    looked = Photos([tmp_path / "a", tmp_path / "b"])
    images = looked.paths(names_of(40, "{} E\u0301.jpg"))
    assert isinstance(images, ImagePaths)
    assert list(images) == files
    assert looked.otherwise == {"case or form of Unicode": 40}


def test_photos_that_are_not_unpacked_are_named(tmp_path):
    touch(tmp_path / "train2017.zip")
    looked = Photos([tmp_path / "train2017", tmp_path], within=tmp_path)
    looked.paths(["1.jpg"])
    assert looked.hint.endswith("no photo lies there: train2017.zip is not unpacked, or --images names their folder")


def split_photos(folder):
    for name in ("train/x.jpg", "val/x.jpg", "train/y.jpg"):
        write(folder / name, name)


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.png"])
def test_a_photo_of_one_name_in_two_splits_is_refused_unless_its_row_says_the_split(tmp_path, name):
    split_photos(tmp_path)
    write(tmp_path / "labels.csv", f"filename,hat\n{name},1\ny.jpg,0\n")
    with pytest.raises(InputError, match=rf"'{name}' may be .*/train/x.jpg or .*/val/x.jpg; expected names with their"):
        read_annotations(tmp_path)
    write(tmp_path / "labels.csv", f"filename,hat,split\n{name},1,train\n{name},0,val\ny.jpg,0,train\n")
    for split, images, labels in (
        ("train", ["train/x.jpg", "train/y.jpg"], [[1], [0]]), ("val", ["val/x.jpg"], [[0]]),
        (None, ["train/x.jpg", "val/x.jpg", "train/y.jpg"], [[1], [0], [0]]),
    ):  # fmt: skip
        annotations = read_annotations(tmp_path, split=split)
        assert annotations.images == [str(tmp_path / image) for image in images]
        assert annotations.labels.to_dense().tolist() == labels


def test_a_file_of_a_split_or_equal_photos_leave_nothing_open(tmp_path):
    split_photos(tmp_path)
    write_coco(tmp_path, ["x.jpg"])  # train.json
    assert found(tmp_path)[1] == [str(tmp_path / "train" / "x.jpg")]
    (tmp_path / "train.json").rename(tmp_path / "labels.json")
    with pytest.raises(InputError, match="'x.jpg' may be "):
        found(tmp_path)
    write(tmp_path / "val" / "x.jpg", "train/x.jpg")
    assert found(tmp_path)[1] == [str(tmp_path / "train" / "x.jpg")]
