"""`csl prepare attributes` of any table that train.py reads: the command that it prints reads what it wrote."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csl import InputError
from csl import __main__ as tools
from csl.cli import parsing
from csl.cli import train as train_cli
from csl.labels import read_annotations
from csl.plots.style import Page
from csl.preparation import attributes as preparation
from csl.preparation.attributes import prepare_attributes
from csl.runs.config import TrainConfig
from csl.training.data import load_data


def photos(folder, names, seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name)


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """It takes longer than all else, and test_prepare_attributes.py draws it."""
    monkeypatch.setattr(preparation, "draw_distribution", lambda *_: Page(1, 1))


@pytest.fixture
def prepared(capsys):
    """prepared(data, flags) -> the data as train.py reads it by the command that is printed as next, and all that is said."""

    def run(data, flags=""):
        assert tools.main(["prepare", "attributes", "--data", str(data), "--workers", "0", *shlex.split(flags)]) == 0
        said = capsys.readouterr().out.splitlines()
        command = next(line for line in said if line.startswith("next: "))
        words = shlex.split(command)
        words = words[1 + next(k for k, word in enumerate(words) if word in ("train", "train.py")) :]
        return load_data(TrainConfig(**parsing.parse(train_cli.parser(), words)), said.append), said

    return run


def names(part):
    return {Path(image).name for image in part.images}


LISTS = "Image Index,Finding Labels,Age\n" + "".join(
    f"{n:03},{'No Finding' if n % 4 == 0 else '|'.join(w for k, w in enumerate('abc') if n % (k + 2) == 0) or 'a'},{n + 20}\n"
    for n in range(24)
)
SIGNS = "image_id,Bald,Young\n" + "".join(f"{n:03}.jpg,{1 if n % 3 else -1},{1 if n % 2 else -1}\n" for n in range(24))
ROWS = "filename,class,xmin,ymin,xmax,ymax\n" + "".join(f"{n % 24:03}.jpg,{'ab'[n % 2]},1,2,3,4\n" for n in range(40))
WORDS = (
    "filename,colour\n"
    + "".join(f"{n:03}.jpg,{'red' if n % 2 else 'blue'}\n" for n in range(20))
    + "".join(f"{n:03}.jpg,rare{n}\n" for n in range(20, 24))
)
BLANKS = "".join(f"photos/{n:03}.jpg {1 if n % 3 else -1} {1 if n % 2 else -1}\n" for n in range(24))
GROUPS = "filename;hat;Group\n" + "".join(f"{n:03}.JPG;{n // 4 % 2};{'train' if n % 4 else 'dev'}\n" for n in range(24))
TABLES = {
    "lists and names without an extension": ("labels.csv", LISTS, ""),
    "a list with a word for nothing": ("labels.csv", LISTS.replace("No Finding", "healthy"), "--no_label healthy"),
    "signs": ("list_attr.csv", SIGNS, "--minus_one negative"),
    "a text file": ("list.txt", BLANKS, "--minus_one negative"),
    "several rows of an image": ("train_labels.csv", ROWS, ""),
    "a row of sums": ("labels.csv", SIGNS.replace("-1", "0") + "Total,16,12\n", ""),
    "rare words": ("attributes.csv", WORDS, ""),
    "a column that is said": ("labels.csv", GROUPS, "--roles Group=split,hat=class --filename_column filename"),
    "votes": (
        "labels.csv",
        "id,smooth\n" + "".join(f"{n:03},{n % 3 / 2}\n" for n in range(24)),
        "--vote_threshold 0.5",
    ),
    "lists and what they lack": ("labels.csv", LISTS, "--unlisted unknown"),
    "copies": ("labels.csv", WORDS, "--balance original"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_what_is_prepared_is_what_train_reads(tmp_path, kind, prepared):
    name, text, flags = TABLES[kind]
    file = tmp_path / "set" / name
    photos(file.parent, [f"photos/{n:03}.jpg" if kind == "a text file" else f"{n:03}.jpg" for n in range(24)])
    file.write_text(text)
    data = file if name in ("train_labels.csv", "list.txt") else file.parent
    for _ in range(2):  # the second time over the result of the first
        found, _ = prepared(data, flags)
    data = found
    labels = [part.labels.to_dense() for part in (data.train, data.val)]
    assert len(data.val) > 0
    originals = {n for n in names(data.train) if "_aug_" not in n}
    assert not originals & names(data.val)
    assert all(Path(image).is_file() for part in (data.train, data.val) for image in part.images)
    whole = read_annotations(file, **options_of(flags)).select(slice(None))
    dense = whole.labels.to_dense()
    of_name = {Path(image).name: row for image, row in zip(whole.images, dense, strict=True)}
    for part, found in zip((data.train, data.val), labels, strict=True):
        assert (found == 1).any()
        for image, row in zip(part.images, found, strict=True):
            wanted = of_name.get(Path(image).name)
            if wanted is not None:  # no copy
                positives = {whole.classes[c] for c in np.flatnonzero(wanted == 1)} & set(part.classes)
                assert {part.classes[c] for c in np.flatnonzero(row == 1)} == positives
    if kind == "a column that is said":
        assert names(data.val) == {f"{n:03}.jpg" for n in range(0, 24, 4)}
    if kind == "rare words":  # each is there once, and is learned
        assert {f"colour:rare{n}" for n in range(20, 24)} <= set(data.train.classes)


def options_of(flags):
    given = parsing.parse(train_cli.parser(), shlex.split(flags.replace("--balance original", "")))
    if "roles" in given:
        given["roles"] = dict(pair.split("=") for pair in given["roles"].split(","))
    return given


def test_labels_toml_goes_with_the_result(tmp_path, prepared):
    photos(tmp_path / "set", [f"{n:03}.jpg" for n in range(24)])
    (tmp_path / "set" / "labels.csv").write_text(
        SIGNS.replace("Bald", "Group").replace("-1,", "train,").replace(",1,", ",val,")
    )
    (tmp_path / "set" / "labels.toml").write_text('minus_one = "negative"\n[roles]\nGroup = "split"\n')
    data, said = prepared(tmp_path / "set", f"--out {tmp_path / 'out'}")
    assert "the split is that of the column 'Group'" in said
    assert (tmp_path / "out" / "labels.toml").is_file()
    assert list(data.train.classes) == ["Young"]
    assert len(data.train) == 8


SPLITS = {
    "files": {"train.csv": "images/", "val.csv": "images/"},
    "files of Kaggle": {"train.csv": "train_images/", "test.csv": "test_images/"},
    "attributes": {
        "attributes_train.csv": "images/",
        "attributes_val.csv": "images/",
        "attributes_test.csv": "images/",
    },
    "Roboflow": {"train/_classes.csv": "train/", "valid/_classes.csv": "valid/", "test/_classes.csv": "test/"},
}


@pytest.mark.parametrize("kind", SPLITS)
def test_a_file_for_each_split(tmp_path, kind, prepared):
    data, start = tmp_path / "data", 0
    for file, images in SPLITS[kind].items():
        numbers = range(start, start := start + 8)
        photos(data, [f"{images}{n:03}.jpg" for n in numbers], start)
        (data / file).parent.mkdir(exist_ok=True)
        without = kind == "files of Kaggle" and file == "test.csv"
        rows = "".join(f"{n:03}.jpg\n" if without else f"{n:03}.jpg,{n % 2},{1 if n % 3 else -1}\n" for n in numbers)
        (data / file).write_text("filename\n" + rows if without else "filename,hat,tie\n" + rows)
    flags = f"--out {tmp_path / 'out'}" if kind == "attributes" else ""
    for _ in range(2):  # the second time over the result of the first
        found, said = prepared(data, flags)
    if kind == "files of Kaggle":
        assert len(found.train) + len(found.val) == 7  # of 8, one of which is for testing
        return
    assert "the split is that of the column 'split'" in said
    assert [names(part) for part in (found.train, found.val)] == [
        {f"{n:03}.jpg" for n in numbers} for numbers in (range(8), range(8, 16))
    ]
    for part in (found.train, found.val):
        numbers = [int(Path(image).stem) for image in part.images]
        assert part.labels.to_dense().tolist() == [[n % 2, 1 if n % 3 else -1] for n in numbers]


def test_lists_and_a_folder_of_tables(tmp_path, prepared):
    photos(tmp_path, [f"Img/{n:03}.jpg" for n in range(24)])
    (tmp_path / "Anno").mkdir()
    (tmp_path / "Eval").mkdir()
    (tmp_path / "Anno" / "list_attr.csv").write_text(SIGNS)
    partition = "".join(f"{n:03}.jpg {n % 3}\n" for n in range(24))
    (tmp_path / "Eval" / "list_eval_partition.txt").write_text(partition)
    for _ in range(2):
        data, _ = prepared(tmp_path, "--minus_one negative")
    assert names(data.val) == {f"{n:03}.jpg" for n in range(1, 24, 3)}
    assert len(data.train) == 8
    assert (data.train.labels.to_dense() >= 0).all()


def test_a_patient_is_on_one_side(tmp_path, prepared):
    photos(tmp_path, [f"images/{n:03}.jpg" for n in range(24)])
    rows = "".join(f"{n:03}.jpg,{n % 2},P{n // 4}\n" for n in range(24))
    (tmp_path / "attributes.csv").write_text("filename,hat,patient_id\n" + rows)
    data, said = prepared(tmp_path, "--val_split 0.3")
    assert "images of one 'patient_id' stay on one side of the split, 6 groups" in said
    assert not {int(name[:3]) // 4 for name in names(data.train)} & {int(name[:3]) // 4 for name in names(data.val)}


def test_an_owners_split_is_kept_unless_a_share_is_asked_for(tmp_path, prepared):
    photos(tmp_path, [f"images/{n:03}.jpg" for n in range(24)])
    text = "filename,hat,split\n" + "".join(f"{n:03}.jpg,{n % 2},{'train' if n % 4 else 'test'}\n" for n in range(24))
    (tmp_path / "attributes.csv").write_text(text)
    data, said = prepared(tmp_path)
    assert names(data.val) == {f"{n:03}.jpg" for n in range(0, 24, 4)}  # test in place of val
    data, said = prepared(tmp_path, "--val_split 0.25")
    assert "--val_split: the split is drawn anew, and not that of the column 'split'" in said
    assert len(data.val) == 6
    assert data.val.labels.to_dense().sum() == 3
    assert not (tmp_path / "attributes_test.csv").exists()


def test_a_word_that_only_an_owners_validation_has_is_written_as_unknown(tmp_path, prepared):
    photos(tmp_path, [f"images/{n:03}.jpg" for n in range(24)])
    text = WORDS.replace("\n", ",train\n").replace("colour,train", "colour,split").replace("rare23,train", "rare23,val")
    (tmp_path / "attributes.csv").write_text(text)
    data, said = prepared(tmp_path)
    assert "colour: 1 cells say a word that no training photo has, and are written as unknown" in said
    assert (data.val.labels.to_dense() == -1).all()


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        (SIGNS, "", "may mean no or not known; expected --minus_one negative"),
        (SIGNS.replace("Bald", "weight").replace("-1", "0"), "--roles weight=class", "'weight' .* is none of weights"),
        (WORDS.replace("\n", ",val\n").replace("colour,val", "colour,split"), "", "no images of the train"),
        (WORDS, "--val_split 2", "expected a share of more than 0"),
    ],
)  # fmt: skip
def test_what_train_would_refuse_is_refused_and_nothing_is_written(tmp_path, text, flags, message, capsys):
    photos(tmp_path, [f"{n:03}.jpg" for n in range(24)])
    (tmp_path / "labels.csv").write_text(text)
    before = sorted(tmp_path.iterdir())
    assert tools.main(["prepare", "attributes", "--data", str(tmp_path), "--workers", "0", *shlex.split(flags)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(InputError, match=message):
        raise InputError(error)
    assert sorted(tmp_path.iterdir()) == before


def test_two_tables_are_asked_about(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("filename,hat\n1.jpg,1\n")
    with pytest.raises(InputError, match="found a.csv, b.csv, expected one table"):
        prepare_attributes(tmp_path)
