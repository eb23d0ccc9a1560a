"""mid_to_classes.pth: every form of it, read without running it, beside CSL's data.csv."""

import os
import pickle
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch

from csl.errors import InputError
from csl.labels import read_annotations, read_openimages
from csl.labels.openimages.classes import read_mid_to_classes

MIDS = ["/m/0zvk5", "/m/01g317", "/m/0k4j"]
NAMES = {"/m/0zvk5": "Helmet", "/m/01g317": '"Person, adult"', "/m/0k4j": "Car"}
ROWS = """filepath,label,label_neg,split_name
train/a.jpg,"['/m/0k4j']","['/m/0zvk5']",train
val/b.jpg,"['/m/01g317']","[]",val
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data.csv").write_text(ROWS)
    return tmp_path


def by_torch(content, file, **options):
    torch.save(content, file, **options)


WRITERS = {
    "torch": by_torch,
    "old torch": lambda content, file: by_torch(content, file, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
@pytest.mark.parametrize(
    "content",
    [MIDS, tuple(MIDS), dict(enumerate(MIDS)), {mid: number for number, mid in reversed(list(enumerate(MIDS)))}],
    ids=["list", "tuple", "number: MID", "MID: number"],
)
def test_the_classes_and_their_order(folder, write, content):
    write(content, folder / "mid_to_classes.pth")
    (folder / "oidv6-classes-trainable.txt").write_text("/m/0zvk5\n")  # not what data.csv goes with
    with pytest.warns(UserWarning, match="shown by their MIDs"):
        train = read_openimages(folder)
    assert list(train.keys) == MIDS
    assert train.labels.to_dense().tolist() == [[0, -1, 1]]
    with pytest.warns(UserWarning, match="shown by their MIDs"):
        assert read_openimages(folder, split="val").labels.to_dense().tolist() == [[-1, 1, -1]]
    given = folder / "two.txt"
    given.write_text("/m/0k4j\n/m/0zvk5\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert list(read_openimages(folder, classes_file=given).keys) == ["/m/0k4j", "/m/0zvk5"]  # what is given wins


@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
def test_the_names(folder, write):
    write(NAMES, folder / "mid_to_classes.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train = read_annotations(folder)
    assert list(train.keys) == ["/m/0k4j", "/m/0zvk5"]  # those of the training rows
    assert list(train.classes) == ["Car", "Helmet"]
    (folder / "oidv6-class-descriptions.csv").write_text("LabelName,DisplayName\n/m/0k4j,Motor car\n")
    assert list(read_openimages(folder).classes) == ["Motor car", "Helmet"]


def test_only_beside_data_csv(tmp_path):
    (tmp_path / "train-annotations-human-imagelabels.csv").write_text(
        "ImageID,Source,LabelName,Confidence\na,verification,/m/0k4j,1\n"
    )
    torch.save(MIDS, tmp_path / "mid_to_classes.pth")
    with pytest.warns(UserWarning, match="shown by their MIDs"):
        assert list(read_openimages(tmp_path).keys) == ["/m/0k4j"]


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds other values, expected a dict of MIDs"),
        ({}, "holds other values"),
        (7, "holds other values"),
        (["/m/1", "/m/1"], "each once"),
        (["/m/1", 2], "holds other values"),
        ({"/m/1": 0, "/m/2": 2}, "numbers 0, 1 and so on"),
        ({"/m/1": 0, "/m/2": 0}, "numbers 0, 1 and so on"),
        ({1: "/m/1", 2: "/m/2"}, "numbers 0, 1 and so on"),
        ({"/m/1": "Car", "/m/2": 3}, "holds other values"),
        ({"/m/1": "Car\x1b[2J"}, "control character"),
        ({"/m/1": Trap()}, "holds more than plain values"),
        (Trap(), "holds more than plain values"),
    ],
)
def test_what_it_must_not_hold(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "mid_to_classes.pth")
    with pytest.raises(InputError, match=message) as error:
        read_mid_to_classes(tmp_path / "mid_to_classes.pth")
    assert str(error.value).startswith(str(tmp_path / "mid_to_classes.pth"))
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "trapped").exists()


def test_damaged_and_foreign_files(tmp_path, monkeypatch):
    file = tmp_path / "mid_to_classes.pth"
    whole = pickle.dumps(dict.fromkeys(MIDS, "x" * 50))
    torch.save(NAMES, tmp_path / "whole.pth")
    archive = (tmp_path / "whole.pth").read_bytes()
    monkeypatch.chdir(tmp_path)
    for damaged in (
        b"",
        b"hello",
        pickle.dumps(MIDS),  # not written by PyTorch
        pickle.dumps(Trap()),
        whole[:-9],
        archive[: len(archive) // 2],
        b"\x80\x02}q\x00."[:-1],
        b"cos\nsystem\n.",
    ):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="mid_to_classes.pth: (holds|cannot)"):
            read_mid_to_classes(file)
    assert not (tmp_path / "trapped").exists()
    with pytest.raises(InputError, match="cannot be read"):
        read_mid_to_classes(tmp_path / "none.pth")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", b"\0" * (1 << 27))
    with pytest.raises(InputError, match="134,217,728 bytes"):
        read_mid_to_classes(file)


def test_an_ordered_dict_is_a_dict(tmp_path):
    for write in WRITERS.values():
        write(OrderedDict(NAMES), tmp_path / "a.pth")
        assert read_mid_to_classes(tmp_path / "a.pth").names["/m/01g317"] == "Person, adult"
