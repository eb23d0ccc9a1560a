"""Batches of one image: refused before the first step where batch norm has one value a channel, trained on where it has not."""

import csv
import itertools
import shutil

import pytest

from csl import InputError, TrainConfig, train
from csl.data.loader import EpochBatches
from csl.models import fewest_images

BASE = {
    "model_name": "test_resnet", "image_size": 32, "batch_size": 8, "epochs": 1, "workers": 0, "augment": "none",
    "device": "cpu",
}  # fmt: skip


def few(garments, folder, count):
    """A folder with the first `count` training images of a drawn set, and four to validate on."""
    folder.mkdir()
    shutil.copytree(garments / "images", folder / "images")
    header, *rows = csv.reader((garments / "attributes.csv").read_text().splitlines())
    split = header.index("split")
    kept = [row for row in rows if row[split] == "train"][:count] + [row for row in rows if row[split] != "train"][:4]
    with open(folder / "attributes.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *kept])
    name = header.index("filename")
    return [folder / "images" / row[name] for row in kept]


@pytest.mark.parametrize(
    ("name", "size", "head", "fewest"),
    [
        ("test_resnet", 32, "linear", 2), ("test_resnet", 64, "linear", 1), ("test_resnet", (32, 64), "linear", 1),
        ("test_byobnet", 32, "ml_decoder", 2), ("test_vit", 32, "linear", 1), ("test_efficientnet_gn", 32, "linear", 1),
        ("test_convnext", 32, "ml_decoder", 1), ("tresnet_m", 32, "linear", 2), ("tresnet_m", 36, "ml_decoder", 1),
    ],
)  # fmt: skip
def test_the_fewest_images_that_a_network_learns_from(name, size, head, fewest):
    assert fewest_images(name, size, head) == fewest


def test_the_smallest_batch_is_that_of_all_processes():
    for images, batch, accumulated, processes in itertools.product(range(1, 14), (1, 2, 3, 8), (1, 2), (1, 2, 3)):
        if images < accumulated * processes:
            continue
        samplers = [EpochBatches(images, batch, 0, accumulated, rank, processes) for rank in range(processes)]
        smallest = min(len(keys) for sampler in samplers for keys in sampler if keys)
        assert [sampler.smallest for sampler in samplers] == [smallest] * processes


@pytest.mark.parametrize(
    ("images", "settings"), [(5, {"batch_size": 1}), (1, {}), (3, {"grad_accum": 2, "batch_size": 2})]
)
def test_a_batch_of_one_is_refused_before_anything_moves(garments, tmp_path, images, settings):
    few(garments, tmp_path / "data", images)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("of an earlier run")
    with pytest.raises(
        InputError, match=f"{images} images to train on give a batch of one image .*batch norm of test_resnet"
    ):
        train(
            TrainConfig(**{**BASE, **settings}, data=str(tmp_path / "data"), path_dest=str(tmp_path / "run")),
            lambda _: None,
        )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.jsonl"]


def test_too_few_images_for_a_step_are_refused_before_anything_moves(garments, tmp_path):
    few(garments, tmp_path / "data", 1)
    with pytest.raises(InputError, match="1 images in an epoch, expected one or more for each of 1 processes x 2"):
        train(
            TrainConfig(**BASE, grad_accum=2, data=str(tmp_path / "data"), path_dest=str(tmp_path / "run")),
            lambda _: None,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("images", "settings"),
    [
        (1, {"model_name": "test_vit"}),
        (3, {"model_name": "test_vit", "batch_size": 1}),
        (1, {"image_size": 64}),
        (2, {}),
    ],
)
def test_networks_that_bear_it_train_on(garments, tmp_path, no_pictures, images, settings):
    few(garments, tmp_path / "data", images)
    config = TrainConfig(**{**BASE, **settings}, data=str(tmp_path / "data"), path_dest=str(tmp_path / "run"))
    assert train(config, lambda _: None)["step"] == max(1, images // config.batch_size)


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (slice(0, 3), "no batch had 2 or more images that can be read in epoch 1"),
        (slice(0, 4), "no batch had 2 or more images that can be read in epoch 1"),
        (slice(4, 8), "none of the 4 validation images can be read in epoch 1"),
    ],
)
def test_images_that_are_gone_once_training_has_begun(garments, tmp_path, broken, line):
    files = few(garments, tmp_path / "data", 4)

    def say(text):
        if text.startswith("training on "):
            for file in files[broken]:
                file.unlink()

    with pytest.raises(InputError, match=f"{line} after step 1: nothing was saved yet"):
        train(
            TrainConfig(**BASE, on_bad_image="skip", data=str(tmp_path / "data"), path_dest=str(tmp_path / "run")), say
        )


def test_a_batch_that_bad_images_leave_one_image_of_is_left_out(garments, tmp_path, no_pictures):
    files = few(garments, tmp_path / "data", 6)
    said = []

    def say(text):
        said.append(text)
        if text.startswith("training on "):
            files[0].unlink()

    settings = {**BASE, "batch_size": 2}
    best = train(
        TrainConfig(**settings, on_bad_image="skip", data=str(tmp_path / "data"), path_dest=str(tmp_path / "run")), say
    )
    assert best["step"] == 3
    assert sum(text.startswith("bad image 1, left out") for text in said) == 1
