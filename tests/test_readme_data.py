"""The table of the README and the command lines of docs/data.md, on small trees in the layouts of the real data sets."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from csl import __main__ as tools
from csl.cli import infer, parsing, train, validate
from csl.labels import read_annotations
from csl.runs.config import TrainConfig
from csl.training.data import load_data

README = Path(__file__).parents[1] / "README.md"
COUNTS = {"train": 8, "val": 4}
SMALL = {
    "model_name": "test_resnet", "model_path": None, "image_size": 32, "epochs": 1, "max_steps": 1, "batch_size": 4,
    "workers": 0, "device": "cpu",
}  # fmt: skip


def photo(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(file.name.encode())).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def numbers(split):
    return range(1, COUNTS[split] + 1) if split == "train" else range(101, 101 + COUNTS[split])


def coco(folder, year=2014):
    names = ["cat", "dog", "kite"]
    for split in COUNTS:
        images = [{"id": n, "file_name": f"COCO_{split}{year}_{n:012d}.jpg"} for n in numbers(split)]
        for image in images:
            photo(folder / f"{split}{year}" / image["file_name"])
        content = {
            "images": images,
            "annotations": [{"id": n, "image_id": n, "category_id": 1 + n % 3, "iscrowd": 0} for n in numbers(split)],
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
        }
        write(folder / "annotations" / f"instances_{split}{year}.json", content)


def lvis(folder):
    for split in COUNTS:
        images = [
            {"id": n, "coco_url": f"http://images.cocodataset.org/{split}2017/{n:012d}.jpg",
             "neg_category_ids": [1 + (n + 1) % 3], "not_exhaustive_category_ids": []}
            for n in numbers(split)
        ]  # fmt: skip
        for n in numbers(split):
            photo(folder / f"{split}2017" / f"{n:012d}.jpg")
        content = {
            "images": images,
            "annotations": [{"id": n, "image_id": n, "category_id": 1 + n % 3} for n in numbers(split)],
            "categories": [{"id": k, "name": f"thing_{k}"} for k in (1, 2, 3)],
        }
        write(folder / "annotations" / f"lvis_v1_{split}.json", content)


def openimages(folder):
    for split, spelt in (("train", "train"), ("val", "validation")):
        rows = ["ImageID,Source,LabelName,Confidence"]
        for n in numbers(split):
            rows += [f"{n:016x},verification,/m/0{n % 3},1", f"{n:016x},verification,/m/0{(n + 1) % 3},0"]
            photo(folder / spelt / f"{n:016x}.jpg")
        write(folder / f"oidv6-{spelt}-annotations-human-imagelabels.csv", "\n".join(rows) + "\n")
    write(folder / "oidv6-classes-trainable.txt", "/m/00\n/m/01\n/m/02\n")
    write(folder / "oidv6-class-descriptions.csv", "LabelName,DisplayName\n/m/00,Cat\n/m/01,Dog\n/m/02,Kite\n")


def openimages_of_csl(folder):
    import torch

    rows = ["filepath,label,label_neg,split_name"]
    for split in COUNTS:
        for n in numbers(split):
            rows.append(f"{split}/{n}.jpg,\"['/m/0{n % 3}']\",\"['/m/0{(n + 1) % 3}']\",{split}")
            photo(folder / split / f"{n}.jpg")
    write(folder / "data.csv", "\n".join(rows) + "\n")
    torch.save({"/m/00": "Cat", "/m/01": "Dog", "/m/02": "Kite"}, folder / "mid_to_classes.pth")


def nuswide(folder):
    for split, name in (("train", "Train"), ("val", "Test")):
        images = [f"{n:04d}_{n}.jpg" for n in numbers(split)]
        for image in images:
            photo(folder / "Flickr" / "zoo" / image)
        write(folder / "ImageList" / f"{name}Imagelist.txt", "".join(f"zoo\\{image}\n" for image in images))
        for k, concept in enumerate(("sky", "cat", "dog", "sun")):
            column = "".join(f"{int(n % 4 == k or k == 0)}\n" for n in numbers(split))
            write(folder / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{name}.txt", column)
    write(folder / "Concepts81.txt", "sky\ncat\ndog\nsun\n")


def nuswide_tutorial(folder):
    for split, name in (("train", "train"), ("val", "test")):
        samples = [{"image_name": f"{n}_b.jpg", "image_labels": ["sky", ("cat", "dog")[n % 2]]} for n in numbers(split)]
        for sample in samples:
            photo(folder / "images" / sample["image_name"])
        write(folder / f"{name}.json", {"samples": samples, "labels": ["cat", "dog", "sky", "sun"]})


def voc(folder):
    folder = folder / "VOCdevkit" / "VOC2007"
    for split in COUNTS:
        for n in numbers(split):
            objects = "".join(
                f"<object><name>{name}</name><difficult>{difficult}</difficult></object>"
                for name, difficult in ((("cat", "dog", "car")[n % 3], 0), ("sofa", 1))
            )
            write(folder / "Annotations" / f"{n:06d}.xml", f"<annotation>{objects}</annotation>")
            photo(folder / "JPEGImages" / f"{n:06d}.jpg")
        write(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{n:06d}\n" for n in numbers(split)))


def attributes(folder, count=40, csv="attributes.csv", images="images"):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"filename": [f"{n:03d}.jpg" for n in range(count)]})
    table["neck"] = rng.choice(7, count, p=(0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05)).astype(str)
    table["sleeve_length"] = rng.choice(4, count, p=(0.7, 0.1, 0.1, 0.1)).astype(str)
    table["pattern"] = rng.choice(9, count).astype(str)  # value 9 does not occur
    for name in ("neck", "sleeve_length", "pattern"):
        table.loc[rng.random(count) < 0.2, name] = "#N/A"
    for n, name in enumerate(table.filename):
        (folder / images).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(
            folder / images / name
        )
    table.to_csv(folder / csv, index=False)


def fork(folder):
    attributes(folder, csv="attributes_cleaned.csv", images="images_cleaned/images")


def test_the_table_of_the_readme_is_read(tmp_path):
    readme = README.read_text()
    (table,) = re.findall(r"^    (filename,.*(?:\n    \S.*)+)", readme, re.MULTILINE)
    write(tmp_path / "attributes.csv", table.replace("    ", "") + "\n")
    for name in re.findall(r"\d+\.jpg", table):
        photo(tmp_path / "images" / name)
    found = [read_annotations(tmp_path, split=split) for split in ("train", "val")]
    names = ["Neck 0", "Neck 1", "Neck 2", "Neck 3", "colour:blue", "colour:red", "striped"]
    assert list(found[0].classes) == names
    assert found[0].labels.to_dense().tolist() == [[0, 0, 0, 1, 0, 1, 1], [-1, -1, -1, -1, 1, 0, -1]]
    assert found[1].labels.to_dense().tolist() == [[1, 0, 0, 0, -1, -1, 0]]


OWN = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `(--data \w+)([^`]*)` \|$", README.read_text(), re.MULTILINE)
WORDS = {"haze primary": "clear", "-1": "1", "0.9": "0.2", "0.1": "0.7", "rot": "blau", "1,5": "2"}  # in other rows
READ = [
    ["haze", "primary", "clear"], ["Bald", "Young"], ["smooth", "edge"], ["Farbe:blau", "Farbe:rot"],
    *(5 * [["cat", "dog"]]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "classes"), list(zip(OWN, READ, strict=True)), ids=[row[0] for row in OWN])
def test_data_of_your_own_as_the_readme_shows_it(row, classes, tmp_path, monkeypatch):
    _, shown, place, flags = row
    monkeypatch.chdir(tmp_path)
    folder, (first, second) = Path(place.split()[1]), re.findall("`([^`]+)`", shown)
    names = [f"{n}.jpg" for n in range(10)]
    if first.startswith("["):
        tasks = [json.loads(f"{first}{second}".replace("a.jpg", name)) for name in names]
        tasks = [json.loads(json.dumps(task).replace("cat", ("cat", "dog")[n % 2])) for n, (task,) in enumerate(tasks)]
        write(folder / "export.json", tasks)
    elif "/" not in first:  # a table, whose rows have other words, too
        mark = ";" if ";" in first else ","
        other = mark.join(WORDS.get(cell, cell) for cell in second.split(mark))
        lists = ("clear", "haze", "clear primary", "haze clear", "primary", "haze primary clear")
        rows = (second, *(other.replace("clear", some) for some in (lists if "clear" in other else "-")))
        rows = [rows[n % len(rows)].replace("a.jpg", name, 1) for n, name in enumerate(names)]
        write(folder / "labels.csv", "\n".join([first, *rows, ""]))
    for name in names if "/" not in first else ():
        photo(folder / name)
    for split in (part.split("/")[0] for part in (first, second) if "/" in part):
        if "json" in first:
            images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
            labelled = [{"id": n, "image_id": n, "category_id": n % 2} for n in range(len(names))]
            categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
            content = {"images": images, "annotations": labelled, "categories": categories}
            write(folder / first.replace("train", split), content)
        elif "csv" in first:
            table = [f"{name},{n % 2},{1 - n % 2}" for n, name in enumerate(names)]
            write(folder / first.replace("train", split), "\n".join(["file_name,cat,dog", *table, ""]))
        elif "txt" in first:
            write(folder / "data.yaml", "names: [cat, dog]\n")
            for n, name in enumerate(names):
                write(folder / split / "labels" / name.replace("jpg", "txt"), f"{n % 2} 0.5 0.5 1 1\n")
        for n, name in enumerate(names):
            inner = "images" if "txt" in first else "" if "." in first.split("/")[1] else ("cat", "dog")[n % 2]
            photo(folder / split / inner / name)
    config = TrainConfig(**parsing.parse(train.parser(), [*place.split(), *flags.split()]))
    data = load_data(config, say=lambda line: None)
    assert sorted(data.train.classes) == sorted(classes)
    assert all(Path(image).is_file() for image in (*data.train.images, *data.val.images))
    assert len(data.val) >= 2


def trained(folder, line, run):
    """The log's last entry of `python train.py LINE`, made small."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flags = parsing.parse(train.parser(), line.replace("DIR", str(folder)).split())
        train.main({**flags, **SMALL, "path_dest": str(run)})
    return json.loads((run / "log.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize(
    ("make", "preparation", "line"),
    [
        (coco, None, "--recipe csl_coco_fpc --data DIR"),
        (coco, None, "--data DIR --partial_loss_mode selective --simulate_partial_type rps"),
        (coco, None, "--recipe csl_coco_rps --data DIR"),
        (lambda folder: coco(folder, 2017), None, "--recipe asl_coco --data DIR"),
        (openimages, None, "--recipe csl_openimages --data DIR"),
        (openimages_of_csl, None, "--data DIR"),
        (lvis, None, "--recipe lvis --data DIR"),
        (nuswide, None, "--data DIR"),
        (nuswide, "nuswide --data DIR --num_labels 3 --num_images 9", "--recipe nuswide_tutorial --data DIR"),
        (nuswide_tutorial, "nuswide --data DIR --num_labels 3 --num_images 9", "--recipe nuswide_tutorial --data DIR"),
        (voc, None, "--data DIR"),
        (attributes, "attributes --data DIR", "--data DIR --partial_loss_mode selective --prior_path auto"),
    ],
    ids=["coco fpc", "coco rps", "coco rps recipe", "coco 2017", "openimages", "data.csv", "lvis", "nus official",
         "nus official subset", "nus tutorial subset", "voc", "attributes"],
)  # fmt: skip
def test_a_data_set_trains(tmp_path, monkeypatch, capsys, make, preparation, line):
    # The pictures at the end take longer than the rest together, and `test_the_layout_of_the_fork` has them.
    monkeypatch.setattr("csl.plots.plot_training", lambda *_: [])
    monkeypatch.chdir(tmp_path)
    folder, run = tmp_path / "data", tmp_path / "run"
    make(folder)
    if preparation:
        assert tools.main(["prepare", *preparation.replace("DIR", str(folder)).split()]) == 0
    entry = trained(folder, line, run)
    assert entry["step"] == 1
    assert np.isfinite(entry["loss"])
    said = capsys.readouterr().out + (run / "config.json").read_text()
    if "nuswide_tutorial" in line:
        assert "3 classes" in said  # the subset, not all four
        assert entry["mAP_ema"] is None
    if preparation and preparation.startswith("attributes"):
        assert "images by the weight column of" in said
    (config,) = [json.loads((run / "config.json").read_text())]
    assert config["data"] == str(folder)


def test_the_layout_of_the_fork(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "Datasets" / "FlixstockTask"
    run = tmp_path / "run"
    fork(folder)
    assert tools.main(["prepare", "attributes", "--data", str(folder), "--balance", "original"]) == 0
    trained(folder, "--recipe flixstock --data DIR --printfreq 10", run)
    config = json.loads((run / "config.json").read_text())
    fork_defaults = {
        "attributes": "neck:7,sleeve_length:4,pattern:10", "partial_loss_mode": "selective", "gamma_pos": 0,
        "gamma_neg": 1, "gamma_unann": 4, "likelihood_topk": 3, "prior_threshold": None, "augment": "none", "lr": 2e-4,
        "weight_decay": 1e-4, "prior_path": None, "clip": 0, "print_freq": 10,
    }  # fmt: skip
    assert {key: config[key] for key in fork_defaults} == fork_defaults
    capsys.readouterr()

    names = [
        *(f"Neck {n}" for n in range(7)),
        *(f"Sleeve Length {n}" for n in range(4)),
        *(f"Pattern {n}" for n in range(10)),
    ]
    source = pd.read_csv(folder / "attributes_val.csv", dtype=str, keep_default_na=False)
    line = f"--data {folder} --model-path {run / 'best.ckpt'} --thre 0.7 -b 8 -j 0 --path_dest {run} --num-classes 21"
    validate.main(parsing.parse(validate.parser(), line.split()))
    assert pd.read_csv(run / "validation.csv")["class"].tolist() == names
    said = capsys.readouterr().out
    assert re.search(r"attribute +known +accuracy +balanced_accuracy +majority", said)
    for name in ("neck", "sleeve_length", "pattern"):
        known = source[name][source[name] != "#N/A"]
        majority = 100 * known.value_counts().max() / len(known)
        assert re.search(rf"{name} +{len(known)} +[\d.]+ +[\d.]+ +{majority:.1f}\n", said + "\n")

    line = f"--all_val_inference --dataset_type flixstock --data {folder} --model_path {run} -j 0 --path_dest {run}"
    infer.main(parsing.parse(infer.parser(), line.split()))
    table = pd.read_csv(run / "results" / "attributes_val_inference.csv", dtype=str, keep_default_na=False)
    predicted = ["Predicted Neck Type", "Predicted Sleeve Length Type", "Predicted Pattern Type"]
    assert list(table.columns) == [*source.columns, *predicted]
    pd.testing.assert_frame_equal(table[list(source.columns)], source)
    for column, values in zip(predicted, (7, 4, 10), strict=True):
        assert table[column].astype(int).between(0, values - 1).all()
