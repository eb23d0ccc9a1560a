"""`python -m csl prepare nuswide`: the tutorial's subset, from both forms."""

import json

import numpy as np
import pytest
from PIL import Image

from csl import InputError
from csl import __main__ as tools
from csl.labels import read_annotations, read_nuswide
from csl.preparation.nuswide import prepare_nuswide

CONCEPTS = ["bear", "sky", "water", "cat", "tree"]
SHARES = np.array([0.02, 0.5, 0.4, 0.3, 0.05])


def samples(count, seed, start=0):
    present = np.random.default_rng(seed).random((count, len(CONCEPTS))) < SHARES
    return [
        {
            "image_name": f"{start + row}_b.jpg",
            "image_labels": [CONCEPTS[c] for c in np.flatnonzero(present[row])[::-1]],
        }
        for row in range(count)
    ]


@pytest.fixture
def tutorial(tmp_path):
    for split, count, start in (("train", 80, 0), ("test", 20, 1000)):
        content = {"samples": samples(count, start, start), "labels": CONCEPTS}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "0_b.jpg")
    return tmp_path


def content(folder, split):
    return json.loads((folder / f"small_{split}.json").read_text())


def expected(source, kept, wanted):
    """The rule in plain Python."""
    found = []
    for sample in source:
        labels = [label for label in kept if label in sample["image_labels"]]
        if labels:
            found.append({"image_name": sample["image_name"], "image_labels": labels})
    return found[:wanted]


def test_the_first_images_with_the_most_frequent_labels(tutorial):
    said = []
    prepare_nuswide(tutorial, num_labels=3, num_images=30, say=said.append)
    kept = ["sky", "water", "cat"]  # most frequent, in the order of the concepts
    for split, wanted in (("train", 25), ("test", 5)):
        source = json.loads((tutorial / f"{split}.json").read_text())["samples"]
        assert content(tutorial, split) == {"samples": expected(source, kept, wanted), "labels": kept}
        assert len(content(tutorial, split)["samples"]) == wanted
    assert said[0] == "3 labels: sky, water, cat"
    assert said[-1] == f"next: python train.py --recipe nuswide_tutorial --data {tutorial}"
    # The reader takes the subset where it is there.
    train = read_annotations(tutorial, split="train")
    assert (len(train), train.classes) == (25, kept)
    assert train.source == str(tutorial / "small_train.json")
    assert train.images[0].startswith(str(tutorial / "images"))
    assert len(read_nuswide(tutorial, split="val")) == 5
    # Again: from the whole lists, not from the subset.
    before = content(tutorial, "train")
    prepare_nuswide(tutorial, num_labels=3, num_images=30, say=said.append)
    assert content(tutorial, "train") == before


def test_the_official_form_and_another_folder(tmp_path):
    official, out = tmp_path / "nus", tmp_path / "small"
    lists = {"Train": samples(40, 1), "Test": samples(12, 2, 1000)}
    for folder in ("ImageList", "Groundtruth/TrainTestLabels", "Flickr/zoo"):
        (official / folder).mkdir(parents=True)
    (official / "Concepts81.txt").write_text("\n".join(CONCEPTS) + "\n")
    for split, listed in lists.items():
        names = [f"zoo\\{sample['image_name']}" for sample in listed]
        (official / "ImageList" / f"{split}Imagelist.txt").write_text("\n".join(names) + "\n")
        for name in CONCEPTS:
            column = "\n".join(str(int(name in sample["image_labels"])) for sample in listed)
            (official / "Groundtruth" / "TrainTestLabels" / f"Labels_{name}_{split}.txt").write_text(column + "\n")
        for sample in listed:
            Image.new("RGB", (8, 8)).save(official / "Flickr" / "zoo" / sample["image_name"])
    said = []
    assert prepare_nuswide(official, out, num_labels=2, num_images=12, say=said.append) == out
    for listed in lists.values():
        for sample in listed:
            sample["image_name"] = f"zoo/{sample['image_name']}"
    assert content(out, "train")["samples"] == expected(lists["Train"], ["sky", "water"], 10)
    assert content(out, "test")["samples"] == expected(lists["Test"], ["sky", "water"], 2)
    assert said[-1].endswith(f"--data {out} --images {official / 'Flickr'}")
    train = read_annotations(out, images=official / "Flickr", split="train")
    assert Image.open(train.images[-1]).size == (8, 8)
    assert len(read_nuswide(official).classes) == 5  # nothing in the data set itself has changed
    prepare_nuswide(official, num_labels=2, num_images=12, say=said.append)
    assert read_nuswide(official).classes == ["sky", "water"]
    assert read_annotations(official, split="val").images[0].startswith(str(official / "Flickr" / "zoo"))


def test_given_labels_and_fewer_images_than_wanted(tutorial, capsys):
    line = ["prepare", "nuswide", "--data", str(tutorial), "--labels", "tree,bear", "--num-images", "600"]
    assert tools.main(line) == 0
    source = json.loads((tutorial / "train.json").read_text())["samples"]
    assert content(tutorial, "train") == {
        "samples": expected(source, ["tree", "bear"], 500),
        "labels": ["tree", "bear"],
    }
    assert "(500 wanted, the train list has no more)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_labels": 6}, "--num_labels 6: expected 1 to 5"),
        ({"num_labels": 0}, "--num_labels 0"),
        ({"num_images": 5}, "--num_images 5: expected 6 or more"),
        ({"labels": ["dog"]}, "--labels dog: unknown, expected some of bear, sky"),
        ({"labels": ["sky", "sky"]}, "--labels sky,sky: expected one or more, each once"),
    ],
)
def test_bad_flags(tutorial, flags, message):
    with pytest.raises(InputError, match=message):
        prepare_nuswide(tutorial, say=print, **{"num_labels": 3, **flags})
    assert not list(tutorial.glob("small_*"))


def test_a_label_that_only_one_split_has_leaves_nothing_behind(tmp_path):
    for split, label in (("train", "sky"), ("test", "tree")):
        sample = {"image_name": "0_a.jpg", "image_labels": [label]}
        (tmp_path / f"{split}.json").write_text(json.dumps({"samples": [sample], "labels": CONCEPTS}))
    with pytest.raises(InputError, match=r"test\.json: no test image has one of the labels sky"):
        prepare_nuswide(tmp_path, num_labels=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.json", "train.json"]


def test_nothing_to_read(tmp_path, tutorial):
    (tutorial / "test.json").unlink()
    with pytest.raises(InputError, match=r"no NUS-WIDE labels of the test split, expected .*test\.json"):
        prepare_nuswide(tutorial, num_labels=2)
    with pytest.raises(InputError, match="no such file or folder"):
        prepare_nuswide(tmp_path / "none")
