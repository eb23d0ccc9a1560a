"""Files beside a table that say the split: CelebA's and NIH's as they are published, lists of names."""

import pytest
from PIL import Image

from csl.errors import InputError, NoSplit
from csl.labels import read_annotations
from csl.labels.inspection import inspect
from csl.labels.options import DataOptions

CLASSES = ("Bald", "Young")
SPLITS = {"train": range(1, 7), "val": range(7, 9), "test": range(9, 11)}


def photo(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(file)


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def celeba(form, anno="", evaluation=""):
    """The files of CelebA, as on its own site (.txt) or on Kaggle's (.csv): labels, splits, boxes, points, people."""
    names = [f"{k:06}.jpg" for k in range(1, 11)]
    number = {f"{k:06}.jpg": n for n, split in enumerate(SPLITS.values()) for k in split}
    tables = {
        "list_attr_celeba": (CLASSES, [(name, 1 if k % 2 else -1, -1) for k, name in enumerate(names)]),
        "list_eval_partition": (("partition",), [(name, number[name]) for name in names]),
        "list_bbox_celeba": (("x_1", "y_1", "width", "height"), [(name, 1, 2, k, 9) for k, name in enumerate(names)]),
        "list_landmarks_align_celeba": (("lefteye_x", "nose_y"), [(name, 1, k) for k, name in enumerate(names)]),
        "identity_CelebA": (("class 0",), [(name, 100 * k) for k, name in enumerate(names)]),
    }
    files = {}
    for name, (header, rows) in tables.items():
        separator, place = (",", "") if form == "csv" else (" ", evaluation if "partition" in name else anno)
        lines = [separator.join(map(str, row)) for row in rows]
        if form == "csv":
            lines = [",".join(("image_id", *header)), *lines]
        elif name in ("list_attr_celeba", "list_bbox_celeba", "list_landmarks_align_celeba"):
            lines = [str(len(rows)), " ".join((*(("image_id",) if "bbox" in name else ()), *header)), *lines]
        files[f"{place}{name}.{form}"] = "\n".join(lines) + "\n"
    if form == "csv":
        del files["identity_CelebA.csv"]  # Kaggle has none
    return files


@pytest.mark.parametrize(
    ("files", "images"),
    [
        (celeba("csv"), "img_align_celeba/img_align_celeba"),
        (celeba("txt"), "img_align_celeba"),
        (celeba("txt", "Anno/", "Eval/"), "Img/img_align_celeba"),
    ],
)
def test_celeba_as_published(tmp_path, files, images):
    write(tmp_path, files)
    for split in SPLITS.values():
        for k in split:
            photo(tmp_path / images / f"{k:06}.jpg")
    for split, numbers in SPLITS.items():
        found = read_annotations(tmp_path, split=split, minus_one="negative")
        assert found.classes == list(CLASSES)
        assert found.images == [str(tmp_path / images / f"{k:06}.jpg") for k in numbers]
        assert found.labels.to_dense().tolist() == [[(k + 1) % 2, 0] for k in numbers]
    assert any(note.startswith("the split is that of list_eval_partition") for note in found.notes)


def test_nih_chest_x_rays_as_published(tmp_path):
    names = [f"{k:08}_000.png" for k in range(8)]
    findings = ["Mass", "No Finding", "Mass|Nodule", "Nodule"]
    rows = "".join(f"{name},{findings[k % 4]},{k},05{k}Y,2{k}82\n" for k, name in enumerate(names))
    write(
        tmp_path,
        {
            "Data_Entry_2017.csv": "Image Index,Finding Labels,Patient ID,Patient Age,OriginalImage[Width\n" + rows,
            "BBox_List_2017.csv": f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n{names[0]},Mass,1.0,2.0,3.2,4.3,,,\n",
            "train_val_list.txt": "\n".join(names[:5]),
            "test_list.txt": "\n".join(names[5:]),
        },
    )
    for k, name in enumerate(names):
        photo(tmp_path / f"images_{1 + k // 3:03}" / "images" / name)
    train, test = (read_annotations(tmp_path, split=split) for split in ("train", "test"))
    assert train.classes == ["Mass", "Nodule"]
    assert train.labels.to_dense().tolist() == [[1, 0], [0, 0], [1, 1], [0, 1], [1, 0]]
    assert [one.rpartition("/")[2] for one in (*train.images, *test.images)] == names


@pytest.mark.parametrize(
    "files",
    [
        {"train.csv": "filename\n0.jpg\n1.jpg\n", "val.csv": "filename\n2.jpg\n"},
        {"splits/train.txt": "0\n1\n", "splits/val.txt": "2\n"},
        {"splits.csv": "filename,split\n0.jpg,train\n1.jpg,train\n2.jpg,valid\n"},
    ],
)
def test_other_files_that_say_the_split(tmp_path, files):
    write(tmp_path, files | {"labels.csv": "filename,cat\n0.jpg,0\n1.jpg,1\n2.jpg,1\n"})
    for k in range(3):
        photo(tmp_path / f"images/{k}.jpg")
    found = [read_annotations(tmp_path, split=split).labels.to_dense().tolist() for split in ("train", "val")]
    assert found == [[[0], [1]], [[1]]]


def test_lists_of_other_images_are_said(tmp_path):
    write(tmp_path, {"labels.csv": "filename,cat\n0.jpg,0\n1.jpg,1\n", "train.txt": "x0.jpg\nx1.jpg\n"})
    assert any("train.txt names no image of labels.csv" in note for note in read_annotations(tmp_path).notes)


def test_lists_beside_a_table(tmp_path):
    write(
        tmp_path,
        {
            "labels.csv": "filename,cat\n" + "".join(f"{k}.jpg,{k % 2}\n" for k in range(6)),
            "train.txt": "0.jpg\n1\nimages/2.jpg\n",
            "val.txt": "3.jpg\n4.jpg\n",
            "trainval.txt": "0.jpg\n3.jpg\n",
        },
    )
    for k in range(6):
        photo(tmp_path / f"images/{k}.jpg")
    train, val = (read_annotations(tmp_path, split=split) for split in ("train", "val"))
    assert [train.labels.to_dense().tolist(), val.labels.to_dense().tolist()] == [[[0], [1], [0]], [[1], [0]]]
    assert any("1 rows that they do not name are left out" in note for note in train.notes)
    write(tmp_path, {"val.txt": "0.jpg\n"})
    with pytest.raises(InputError, match=r"val.txt: '0.jpg' is of the split val, and of train in another file"):
        read_annotations(tmp_path, split="train")


def test_what_kaggle_takes_is_no_split(tmp_path):
    write(
        tmp_path,
        {
            "train.csv": "id_code,healthy,rust\na1,1,0\na2,0,1\n",
            "test.csv": "id_code\nb1\nb2\n",
            "sample_submission.csv": "id_code,healthy,rust\nb1,0.25,0.25\nb2,0.25,0.25\n",
        },
    )
    for name in ("train_images/a1.png", "train_images/a2.png", "test_images/b1.png", "test_images/b2.png"):
        photo(tmp_path / name)
    found = read_annotations(tmp_path, split="train")
    assert found.images == [str(tmp_path / f"train_images/a{k}.png") for k in (1, 2)]
    for split, message in (("val", "no CSV of the val split"), ("test", "no CSV of the test split")):
        with pytest.raises(NoSplit, match=message):
            read_annotations(tmp_path, split=split)


def test_photos_of_one_name_in_two_folders_are_asked_about(tmp_path):
    write(tmp_path, {"labels.csv": "filename,cat\na.jpg,1\nb.jpg,0\n"})
    for name in ("full/a.jpg", "small/a.jpg", "full/b.jpg"):
        photo(tmp_path / name)
    with pytest.raises(InputError, match=r"full/a.jpg: .*small/a.jpg has its name, too; --images DIR says which"):
        read_annotations(tmp_path)
    assert read_annotations(tmp_path, images=tmp_path / "full").images == [
        str(tmp_path / f"full/{k}.jpg") for k in "ab"
    ]


def test_a_file_a_split_by_any_name_and_one_that_says_its_split(tmp_path):
    text = "file,cat,dog\n{0}1.jpg,1,0\n{0}2.jpg,0,1\n"
    for split in ("train", "val"):
        (tmp_path / f"faces_label_{split}.csv").write_text(text.format(split[0]))
    for split in ("train", "val"):
        assert [image[-6:] for image in read_annotations(tmp_path, split=split).images] == [
            f"{split[0]}1.jpg",
            f"{split[0]}2.jpg",
        ]
    with pytest.raises(NoSplit):
        read_annotations(tmp_path, split="test")
    for file in tmp_path.iterdir():
        file.unlink()
    (tmp_path / "train.csv").write_text(
        "fname,labels,is_valid\n1.jpg,a b,False\n2.jpg,a,True\n3.jpg,b,False\n4.jpg,a b c,False\n"
    )
    assert len(read_annotations(tmp_path, split="val", roles={"labels": "list"})) == 1
    assert len(read_annotations(tmp_path, split="train", roles={"labels": "list"})) == 3


def test_a_table_of_validation_alone_is_inspected(tmp_path):
    (tmp_path / "valid.csv").write_text("file,cat\n1.jpg,1\n2.jpg,0\n")
    for name, split in (("valid.csv", "val"), ("test.csv", "test")):
        (tmp_path / "valid.csv").replace(tmp_path / name)
        report, _ = inspect(DataOptions(data=str(tmp_path / name)))
        assert {one: part["images"] for one, part in report["splits"].items()} == {split: 2}
        (tmp_path / name).replace(tmp_path / "valid.csv")


@pytest.mark.parametrize("name", ["StudyInstanceUID", "Uid"])
def test_the_only_column_of_words_no_one_twice_names_the_images(tmp_path, name):
    rows = "".join(f"1.2.{k}.7,{k % 2},p{k // 2}\n" for k in range(20))
    (tmp_path / "train.csv").write_text(f"{name},ETT,PatientID\n{rows}")
    found = read_annotations(tmp_path / "train.csv")
    assert (found.classes, len(found)) == (["ETT"], 20)
