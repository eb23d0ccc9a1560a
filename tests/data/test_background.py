"""Transparent images: what lies under is seen unless --background lays them over a colour, in every script alike."""

import json
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from csl.data.images import load_pixels
from csl.data.photo_cache import open_cache
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import InputError
from csl.inference.infer import InferenceOptions, infer
from csl.inference.validate import ValidateOptions, validate
from csl.models.description import Architecture, Description, read_description
from csl.predict import Predictor
from csl.runs.config import TrainConfig
from csl.training.experiment import train

RED, CLEAR = (200, 0, 0, 255), (0, 100, 0, 0)  # the right half is transparent over green


@pytest.fixture
def half():
    pixels = np.empty((8, 8, 4), np.uint8)
    pixels[:, :4], pixels[:, 4:] = RED, CLEAR
    return Image.fromarray(pixels)


def test_transparency_is_dropped_or_laid_over_a_colour(tmp_path, half):
    for name in ("a.png", "a.webp", "a.tif"):
        half.save(tmp_path / name, **({"lossless": True, "exact": True} if name.endswith("webp") else {}))
        for background, expected in (("none", CLEAR[:3]), ("white", (255,) * 3), ("#102030", (16, 32, 48))):
            pixels = load_pixels(tmp_path / name, background=background)
            assert (pixels[:, :4] == RED[:3]).all()
            assert (pixels[:, 4:] == expected).all()
    part = half.copy()
    part.putalpha(51)
    part.save(tmp_path / "part.png")
    assert load_pixels(tmp_path / "part.png", background="white")[0, 0].tolist() == [244, 204, 204]


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("LA", {}), ("P", {"transparency": 7}), ("P", {"transparency": bytes([255] * 7 + [0])}),
        ("L", {"transparency": 7}), ("RGB", {"transparency": (7, 7, 7)}), ("I;16", {"transparency": 7}),
        ("1", {"transparency": 1}),
    ],
)  # fmt: skip
def test_every_kind_of_transparency(tmp_path, mode, options):
    grey = np.full((4, 4), 3, np.uint8)
    grey[:, 2:] = 7
    if mode == "LA":
        image = Image.merge(
            "LA", [Image.fromarray(grey), Image.fromarray(np.where(grey == 7, 0, 255).astype(np.uint8))]
        )
    elif mode == "P":
        image = Image.fromarray(grey).copy()
        image.putpalette(bytes(768))
    elif mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16))
    else:
        image = Image.fromarray(grey == 7) if mode == "1" else Image.fromarray(grey).convert(mode)
    file = tmp_path / "a.png"
    image.save(file, **options)
    pixels = load_pixels(file, background="#ff0000")
    assert (pixels[:, 2:] == (255, 0, 0)).all()
    assert (pixels[:, :2] < 5).all()
    assert (load_pixels(file)[:, :2] < 5).all()
    assert load_pixels(file)[0, 3].tolist() in ([0] * 3, [7] * 3, [255] * 3)


def test_images_without_transparency_are_the_same_on_any_background(tmp_path, half):
    for mode, name in (("RGB", "a.jpg"), ("RGB", "a.png"), ("CMYK", "a.tif"), ("P", "a.gif"), ("L", "a.bmp")):
        half.convert("RGB").convert(mode).save(tmp_path / name)
        np.testing.assert_array_equal(load_pixels(tmp_path / name, background="white"), load_pixels(tmp_path / name))


@pytest.mark.parametrize("background", ["whit", "#12345", "#ffffff80", "", "rgb(1,2)"])
def test_what_is_no_colour_is_refused(background):
    for transform in (TrainTransform, EvalTransform):
        with pytest.raises(InputError, match=r"^--background .*: expected a colour such as white or #808080, or none$"):
            transform(8, background=background)


def test_the_photo_cache_keeps_each_background_of_its_own(tmp_path, half):
    half.save(tmp_path / "a.png")
    images, paths = [str(tmp_path / "a.png")], {}
    for background in ("none", "white", "black"):
        transform = EvalTransform(8, background)
        paths[background] = open_cache(tmp_path, images, transform, lambda _: None).path
    assert len(set(paths.values())) == 3
    same = EvalTransform(8, "#FFFFFF")
    assert open_cache(tmp_path, images, same, lambda _: None).path == paths["white"]


def shows_what_lies_under(picture):
    """Whether a picture has the colour of the transparent pixels."""
    return bool((np.asarray(Image.open(picture).convert("RGB")) == CLEAR[:3]).all(-1).any())


def test_a_run_keeps_its_background_for_validation_inference_and_pictures(tmp_path, half):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "photos"
    folder.mkdir()
    table = pd.DataFrame(
        {"filename": [f"{i}.png" for i in range(8)], "hat": [0, 1] * 4, "split": ["train"] * 4 + ["val"] * 4}
    )
    table.to_csv(folder / "attributes.csv", index=False)
    for i in range(8):
        half.rotate(90 * i).save(folder / f"{i}.png")
    run = str(tmp_path / "run")
    train(
        TrainConfig(
            data=str(folder), path_dest=run, model_name="test_resnet", image_size=32, batch_size=4, epochs=1, workers=0,
            augment="none", device="cpu", background="white",
        ),
        lambda _: None,
    )  # fmt: skip
    assert json.loads((tmp_path / "run" / "config.json").read_text())["background"] == "white"
    best = tmp_path / "run" / "best.ckpt"
    assert Predictor.load(best, device="cpu").background == "white"
    assert Predictor.load(best, device="cpu", background="none").background == "none"
    assert not shows_what_lies_under(tmp_path / "run" / "plots" / "predictions.png")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert not shows_what_lies_under(BytesIO(events.Images("predictions")[0].encoded_image_string))
    numbers, scores = [], []
    for given in (None, "white", "none"):
        options = {"model_path": run, "workers": 0, "device": "cpu", "background": given}
        dest = tmp_path / str(given)
        plots = given is not None
        numbers.append(validate(ValidateOptions(path_dest=str(dest), plots=plots, **options), lambda _: None))
        infer(InferenceOptions(pic_path=str(folder), path_dest=str(dest), th=0, **options), lambda _: None)
        pictures = ["results/predictions.png", *["plots/val_predictions.png"] * plots]
        assert [shows_what_lies_under(dest / name) for name in pictures] == [given == "none"] * len(pictures)
        scores.append(pd.read_csv(dest / "results" / "predictions.csv").score.tolist())
    assert scores[0] == scores[1] != scores[2]
    assert numbers[0] == numbers[1]


def test_an_exported_network_says_its_background():
    from csl.labels.class_set import ClassSet

    described = Description(Architecture("tresnet_m", "linear", 1), ClassSet(["a"], ["a"]), 32, background="white")
    metadata = described.to_metadata()
    assert read_description(metadata, "a.onnx") == described
    metadata["preprocessing"] = metadata["preprocessing"].replace('"background"', '"of another version"')
    assert read_description(metadata, "a.onnx").background == "none"


def test_a_predictor_sees_its_background(tmp_path, half):
    half.save(tmp_path / "a.png")
    for background, green in (("none", 100), ("white", 255)):
        network = Predictor(nn.Flatten(), ["x"] * 192, None, 8, torch.device("cpu"), background=background)
        found = network.predict(tmp_path / "a.png").reshape(3, 8, 8)
        assert found[1, 0, 7] == pytest.approx(1 / (1 + np.exp(-green / 255)), abs=1e-6)
    with pytest.raises(InputError, match="--background whit"):
        Predictor(nn.Flatten(), ["x"], None, 8, torch.device("cpu"), background="whit")
