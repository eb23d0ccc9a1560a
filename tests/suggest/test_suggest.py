"""`csl suggest` on a drawn set and a real checkpoint: what is written, for which purpose, in which format, what is refused."""

import json
import shutil
from contextlib import chdir
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from csl import Predictor, checkpoint, read_annotations, simulate
from csl import __main__ as tools
from csl.labels.trust import unescape_cell
from csl.models import create_model
from csl.suggest import material, relations
from csl.suggest.material import Material
from csl.suggest.options import PURPOSES, SuggestOptions
from csl.training import linear

SMALL = ["--batch_size", "16", "--workers", "0", "--device", "cpu", "--folds", "2"]


def write_run(folder, data, classes, groups=None, head="linear", model="test_resnet", seed=0, **config):
    """A run of a network with random weights."""
    folder.mkdir()
    torch.manual_seed(seed)
    content = {
        "model": create_model(model, len(classes), head=head).state_dict(), "model_name": model, "head": head,
        "num_classes": len(classes), "classes": list(classes), "idx_to_class": dict(enumerate(classes)),
        "config": {"data": str(data), "image_size": 32, **config},
    }  # fmt: skip
    if groups:
        content["groups"] = {name: [group.start, group.stop] for name, group in groups.items()}
    (folder / "config.json").write_text(json.dumps(content["config"]))
    checkpoint.write(folder / "best.ckpt", content)
    return folder


@pytest.fixture
def run(garments, tmp_path, monkeypatch):
    """A run of the drawn garments, in whose folder the test works; heads take a few steps."""
    for module, name in ((linear, "LEAST_STEPS"), (relations, "LEAST_STEPS")):
        monkeypatch.setattr(module, name, 20)
    train = read_annotations(garments, split="train")
    with chdir(tmp_path):
        yield write_run(tmp_path / "run", garments, train.classes, train.groups)


def suggest(*words):
    return tools.main(["suggest", *map(str, words), *SMALL])


def table(file):
    return pd.read_csv(file, dtype={"image": str, "class": str, "attribute": str})


@pytest.mark.parametrize("purpose", ["positives", "training"])
def test_unknown_entries_are_ranked_one_question_an_attribute(run, garments, purpose, capsys):
    assert suggest("run", "--for", purpose, "--top", "1000") == 0
    found, train = table("run/suggestions.csv"), read_annotations(garments, split="train")
    y, row = train.labels.to_dense(), {name: row for row, name in enumerate(train.names)}
    places = [
        (row[image], train.classes.index(name)) for image, name in zip(found["image"], found["class"], strict=True)
    ]
    assert all(y[place] == -1 for place in places)
    open_ = {(r, name) for r in range(len(y)) for name, group in train.groups.items() if (y[r, group] == -1).all()}
    asked = [(r, attribute) for (r, _), attribute in zip(places, found["attribute"], strict=True)]
    assert len(asked) == len(set(asked)) == len(open_)
    assert set(asked) == open_
    assert all(
        train.groups[a].start <= c < train.groups[a].stop for (_, c), a in zip(places, found["attribute"], strict=True)
    )
    assert found["score"].between(0, 1).all()
    assert found["network"].between(0, 1).all()
    assert (found["known"] == -1).all()
    if purpose == "positives":
        assert found["score"].is_monotonic_decreasing
    everything = found
    assert suggest("run", "--for", purpose, "--top", "7", "--per_class", "2") == 0
    found = table("run/suggestions.csv")
    assert len(found) == 7
    assert found["class"].value_counts().max() <= 2
    if purpose == "positives":
        kept = everything[everything.groupby("class").cumcount() < 2].head(7)
        assert found["image"].tolist() == kept["image"].tolist()


def test_labels_that_were_turned_round_are_found(run, garments, tmp_path):
    """Colours are told from the pixels by any features: of few wrong ones most are among the first."""
    rng = np.random.default_rng(0)
    names = [f"{number:03}.png" for number in range(120)]
    (tmp_path / "photos" / "images").mkdir(parents=True)
    red = rng.random(120) < 0.5
    for name, is_red in zip(names, red, strict=True):
        noise = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        noise[..., 0 if is_red else 2] += 150
        Image.fromarray(noise).save(tmp_path / "photos" / "images" / name)
    wrong = rng.choice(120, 6, replace=False)
    said = red.copy()
    said[wrong] ^= True
    pd.DataFrame(
        {"filename": names, "red": said.astype(int), "other": rng.integers(0, 2, 120), "split": "train"}
    ).to_csv(tmp_path / "photos" / "attributes.csv", index=False)
    classes = read_annotations(tmp_path / "photos", split="train").classes
    write_run(tmp_path / "colours", tmp_path / "photos", classes)
    assert suggest("colours", "--for", "errors", "--top", "200") == 0
    found = table("colours/suggestions.csv")
    of_red = found[found["class"] == classes[0]]
    assert set(of_red["image"][:6]) == {names[number] for number in wrong}
    assert [int(said[names.index(image)]) for image in of_red["image"]] == of_red["known"].tolist()
    assert found["score"].is_monotonic_decreasing


def test_formats_are_read_by_what_they_are_for(run, garments):
    assert suggest("run", "--top", "10") == 0
    expected = table("run/suggestions.csv")
    assert suggest("run", "--top", "10", "--format", "parquet", "--output", "some.parquet") == 0
    parquet = pd.read_parquet("some.parquet")
    assert parquet["image"].tolist() == expected["image"].map(unescape_cell).tolist()
    assert parquet["class"].tolist() == expected["class"].tolist()
    assert np.allclose(parquet["score"], expected["score"], atol=1e-5)

    assert suggest("run", "--top", "10", "--format", "label_studio", "--output", "tasks.json") == 0
    tasks = json.loads(Path("tasks.json").read_text())
    view = ElementTree.parse("tasks.xml").getroot()
    controls = {c.get("name"): [v.get("value") for v in c.iter("Choice")] for c in view.iter("Choices")}
    assert {c.get("toName") for c in view.iter("Choices")} == {i.get("name") for i in view.iter("Image")} == {"image"}
    results = [(task["data"]["image"], r) for task in tasks for r in task["predictions"][0]["result"]]
    assert len(results) == 10
    assert all(
        r["type"] == "choices" and set(r["value"]["choices"]) <= set(controls[r["from_name"]]) for _, r in results
    )
    # what an annotator accepts as it stands comes back as labels
    export = [{"data": t["data"], "annotations": [{"result": t["predictions"][0]["result"]}]} for t in tasks]
    shutil.copytree(garments / "images", "export/images")
    Path("export/export.json").write_text(json.dumps(export))
    back = read_annotations("export", split=None)
    assert sum((back.labels.to_dense() == 1).sum(1)) == 10

    assert suggest("run", "--top", "10", "--format", "fiftyone", "--output", "labels.json") == 0
    labels = json.loads(Path("labels.json").read_text())["labels"]
    found = [(path, one["label"], one["confidence"]) for path, listed in labels.items() for one in listed]
    assert len(found) == 10
    assert all(path.startswith("/") for path, _, _ in found)
    assert {(path.rsplit("/", 1)[1], name) for path, name, _ in found} == set(
        zip(expected["image"], expected["class"], strict=True)
    )


@pytest.mark.parametrize(("head", "model"), [("bottleneck", "test_resnet"), ("ml_decoder", "test_resnet")])
def test_networks_of_any_head_have_features(run, garments, tmp_path, head, model):
    train = read_annotations(garments, split="train")
    write_run(tmp_path / "other", garments, train.classes, train.groups, head=head, model=model)
    assert suggest("other", "--top", "3", "--image_size", "32") == 0
    assert len(table("other/suggestions.csv")) == 3


@pytest.mark.parametrize("purpose", ["positives", "training"])
def test_more_images_than_heads_are_trained_on_are_streamed(run, purpose, monkeypatch, capsys):
    assert suggest("run", "--for", purpose, "--top", "300") == 0
    every = table("run/suggestions.csv")
    monkeypatch.setattr(material, "SAMPLE_IMAGES", 8)
    assert suggest("run", "--for", purpose, "--top", "300") == 0
    assert "2 folds of the 8 images with known labels" in capsys.readouterr().out
    found = table("run/suggestions.csv")
    asked = [set(zip(one["image"], one["attribute"], strict=True)) for one in (found, every)]
    assert asked[0] == asked[1]


def test_labels_that_training_has_hidden_are_unknown(run, garments, tmp_path):
    train = read_annotations(garments, split="train")
    config = {"simulate_partial_type": "rps", "simulate_partial_param": 0.5, "left_out": {"train": [3], "val": []}}
    hidden = simulate(train.labels.select(np.delete(np.arange(len(train)), 3)), "rps", 0.5, np.random.default_rng(0))
    folder = write_run(tmp_path / "partial", garments, train.classes, train.groups, **config)
    hidden.save(folder / "partial_labels.npz")
    assert suggest("partial", "--for", "errors", "--top", "5000") == 0
    assert len(table("partial/suggestions.csv")) == (hidden.to_dense() != -1).sum()
    hidden.select(range(10)).save(folder / "partial_labels.npz")
    assert suggest("partial") == 2


@pytest.fixture
def two_runs(run, garments, tmp_path):
    """Runs of two networks, each trained on a part of the same table; both on its first two images. {folder: its images}."""
    photos = tmp_path / "photos"
    shutil.copytree(garments / "images", photos / "images")
    table = pd.read_csv(garments / "attributes.csv", dtype=str, keep_default_na=False).drop(columns="split")
    table.to_csv(photos / "attributes.csv", index=False)
    every = read_annotations(photos, split=None)
    names, parts = list(every.names), {}
    for number, folder in enumerate(("first", "second")):
        write_run(tmp_path / folder, photos, every.classes, every.groups, seed=number, val_split=0.5)
        parts[folder] = names[:2] + names[2 + number :: 2]
        split = ["train" if name in parts[folder] else "val" for name in names]
        pd.DataFrame({"image": names, "split": split}).to_csv(tmp_path / folder / "split.csv", index=False)
    return parts


def test_earlier_runs_score_what_they_were_not_trained_on(two_runs, garments, capsys):
    folders = list(two_runs)
    options = SuggestOptions(
        model_path="first", split="train", from_runs=folders, workers=0, batch_size=4, device="cpu"
    )
    said = []
    material = Material.gather(options, said.append)
    mine = two_runs["first"][2:]
    assert list(material.annotations.names) == mine
    assert (
        f"{len(mine)} images are scored by those of 'first', 'second' that were not trained on them; 2 that" in said[-1]
    )
    found = torch.cat([seen.features for seen in material.batches()])
    p = Predictor.load("second/best.ckpt", device="cpu").score(material.annotations.images).probabilities
    assert np.allclose(torch.sigmoid(found).numpy(), p, atol=1e-5)
    assert suggest("first", "--for", "errors", "--top", "5000", "--from_runs", *folders) == 0
    found = table("first/suggestions.csv")
    assert set(found["image"]) <= set(mine)
    assert len(found) == (material.annotations.labels.to_dense() != -1).sum()
    assert suggest("first", "--for", "training", "--top", "5", "--from_runs", "second") == 0


def test_runs_that_were_trained_on_everything_are_refused(two_runs, run, tmp_path, capsys):
    assert "was trained on by 'first', whose scores of them say nothing" in one_line(
        capsys, "first", "--from_runs", "first"
    )
    assert "--from_runs changes nothing" in one_line(capsys, "first", "--for", "audit", "--from_runs", "second")
    (tmp_path / "second" / "split.csv").unlink()
    assert "split.csv" in one_line(capsys, "first", "--from_runs", "second")
    shutil.copy("first/best.ckpt", "alone.ckpt")
    assert "--from_runs" in one_line(capsys, "first", "--from_runs", "alone.ckpt")


def one_line(capsys, *words):
    assert suggest(*words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_bad_input_is_one_line(run, garments, tmp_path, capsys):
    full = tmp_path / "full"
    shutil.copytree(garments, full)
    lines = pd.read_csv(garments / "attributes.csv", dtype=str, keep_default_na=False)
    every = lines.replace("#N/A", "1")
    every.to_csv(full / "attributes.csv", index=False)
    assert "no label of the train split is unknown" in one_line(capsys, "run", "--data", full)
    lines.assign(neck="#N/A", sleeve_length="#N/A", pattern="#N/A").to_csv(full / "attributes.csv", index=False)
    assert "no label of the train split is known" in one_line(capsys, "run", "--data", full)
    lines.to_csv(full / "attributes.csv", index=False)
    shutil.rmtree(full / "images")
    assert "attributes.csv" in one_line(capsys, "run", "--data", full)
    lines.rename(columns={"neck": "hem"}).to_csv(full / "attributes.csv", index=False)
    shutil.copytree(garments / "images", full / "images")
    assert "no column 'neck'" in one_line(capsys, "run", "--data", full)
    assert "nowhere" in one_line(capsys, "nowhere")
    for flag, value in (("--for", "fun"), ("--format", "xls")):
        with pytest.raises(SystemExit):
            suggest("run", flag, value)
        assert f"{flag}: invalid choice: '{value}'" in capsys.readouterr().err
    assert set(PURPOSES) >= {"positives", "training", "errors"}


def test_files_that_were_there_are_whole_where_nothing_is_suggested(run, capsys):
    assert suggest("run", "--top", "5") == 0
    before = Path("run/suggestions.csv").read_text()
    assert suggest("run", "--split", "test") == 2
    assert Path("run/suggestions.csv").read_text() == before
