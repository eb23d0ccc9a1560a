"""Networks that give softmax probabilities in groups of classes: every head, the fused form, an export, a checkpoint."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from csl import InputError, checkpoint
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import EvalTransform
from csl.labels import read_annotations
from csl.models import create_model, fuse
from csl.models.exclusive import make_exclusive
from csl.predict import Predictor
from csl.runs.config import TrainConfig
from csl.training.experiment import train

GROUPS = [slice(0, 3), slice(4, 6)]


@pytest.mark.parametrize(
    ("name", "head"),
    [("tresnet_m", "linear"), ("tresnet_m", "bottleneck"), ("tresnet_m", "ml_decoder"), ("test_vit", "linear"),
     ("mobilenetv3_small_050", "linear"), ("test_resnet", "ml_decoder"), ("test_resnet", "boostlu")],
)  # fmt: skip
def test_every_head_gives_them_and_keeps_its_weights(name, head):
    torch.manual_seed(0)
    model, size = create_model(name, 7, head=head).eval(), 160 if name == "test_vit" else 64
    x, keys = torch.rand(2, 3, size, size), list(model.state_dict())
    with torch.inference_mode():
        z = model(x)
        make_exclusive(model, GROUPS)
        s = model(x)
        fused = fuse(model)(x)
    assert list(model.state_dict()) == keys
    for group in GROUPS:
        torch.testing.assert_close(torch.sigmoid(s[:, group]), torch.softmax(z[:, group], 1))
    torch.testing.assert_close(s[:, [3, 6]], z[:, [3, 6]])
    torch.testing.assert_close(fused, s, rtol=1e-4, atol=1e-4)


def test_a_network_that_averages_several_classifiers_is_refused():
    with pytest.raises(InputError, match="ends in 2 layers for its classes"):
        make_exclusive(create_model("deit_tiny_distilled_patch16_224", 6), GROUPS)


@pytest.fixture(scope="module")
def trained(garments, tmp_path_factory):
    """A run of two steps with --group_loss softmax on attributes and two yes/no classes, and its data."""
    folder = tmp_path_factory.mktemp("softmax")
    shutil.copytree(garments, folder / "data")
    table = pd.read_csv(folder / "data" / "attributes.csv", dtype=str, keep_default_na=False)
    table["striped"] = np.where(np.arange(len(table)) % 3, "0", "1")
    table["new"] = np.where(np.arange(len(table)) % 4, "1", "0")
    table.to_csv(folder / "data" / "attributes.csv", index=False)
    (folder / "data" / "truth.csv").unlink()
    config = TrainConfig(
        data=str(folder / "data"), path_dest=str(folder / "run"), model_name="test_resnet", image_size=32, batch_size=8,
        epochs=1, max_steps=2, workers=0, lr=1e-2, augment="none", device="cpu", group_loss="softmax",
        partial_loss_mode="ignore",
    )  # fmt: skip
    train(config, lambda _: None)
    return folder


def sums(probabilities, groups):
    return [probabilities[:, g].sum(1) for g in groups.values() if g.stop - g.start > 1]


def test_a_run_is_scored_validated_and_exported_by_softmax(trained, tmp_path):
    run, val = trained / "run", read_annotations(trained / "data", split="val")
    predictor = Predictor.load(run / "best.ckpt", device="cpu")
    probabilities = predictor.score(val.images, 8, 0, roots=val.roots).probabilities[0]
    assert len(sums(probabilities, val.groups)) == 3
    for total in sums(probabilities, val.groups):
        np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert not np.allclose(probabilities[:, -2:].sum(1), 1, atol=1e-3)  # yes/no classes exclude nothing
    recorded = json.loads((run / "results.json").read_text())["best"]
    from csl.metrics import mean_average_precision

    assert mean_average_precision(probabilities, val.labels) == pytest.approx(recorded["mAP"], abs=1e-6)
    prior = pd.read_csv(run / "train_avg_preds.csv").avg_pred.to_numpy()
    for name, group in val.groups.items():
        assert group.stop - group.start == 1 or prior[group].sum() == pytest.approx(1, abs=1e-4), name

    pytest.importorskip("onnx")
    from csl.export import ExportOptions, export

    file = export(
        ExportOptions(model_path=str(run / "best.ckpt"), format="onnx", out=str(tmp_path / "net.onnx")), lambda _: None
    )
    exported, exact = Predictor.load(file, device="cpu"), Predictor.load(run / "best.ckpt", device="cpu", amp="off")
    found, expected = (p.score(val.images, 8, 0, roots=val.roots).probabilities[0] for p in (exported, exact))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_transformer_of_8_bits_keeps_them(garments, tmp_path):
    pytest.importorskip("onnxruntime")
    from csl.export import ExportOptions, export

    model = create_model("test_vit", 6)
    content = {"model": model.state_dict(), "model_name": "test_vit", "num_classes": 6, "classes": list("abcdef"),
               "groups": {"x": [0, 3], "y": [3, 4], "z": [4, 6]}, "config": {"group_loss": "softmax"}}  # fmt: skip
    checkpoint.write(tmp_path / "w.ckpt", content)
    folder = str(garments / "images")
    options = ExportOptions(
        model_path=str(tmp_path / "w.ckpt"), out=str(tmp_path / "w.onnx"), image_size=96, int8=True, check=folder,
        calibrate=folder,
    )  # fmt: skip
    export(options, lambda _: None)
    found = Predictor.load(tmp_path / "w.onnx").score(sorted(map(str, (garments / "images").iterdir()))[:4], workers=0)
    for total in sums(found.probabilities[0], {"x": slice(0, 3), "z": slice(4, 6)}):
        np.testing.assert_allclose(total, 1, atol=1e-5)


def test_the_weights_without_the_word_are_a_network_of_sigmoids(trained):
    model, loaded = checkpoint.load_model(trained / "run" / "best.ckpt")
    assert [group.stop - group.start for group in loaded.exclusive] == [7, 4, 10]
    loaded.extra["config"]["group_loss"] = "sigmoid"
    assert loaded.exclusive == []
    val = read_annotations(trained / "data", split="val")
    batch = next(iter(create_loader(ImageDataset(val, EvalTransform(32)), 4, 0)))
    x = batch.images.float() / 255
    with torch.inference_mode():
        s = model(x)
        for layer in model.modules():
            if getattr(layer, "exclusive", ()):
                layer.exclusive = ()
        z = model(x)
    group = val.groups["neck"]
    torch.testing.assert_close(torch.sigmoid(s[:, group]), torch.softmax(z[:, group], 1))


def test_what_has_no_part_beside_it_is_refused(garments, tmp_path):
    base = {"data": str(garments), "path_dest": str(tmp_path / "run"), "model_name": "test_resnet", "image_size": 32,
            "group_loss": "softmax", "device": "cpu", "workers": 0}  # fmt: skip
    for settings, flag in (
        ({"partial_loss_mode": "ignore"}, "partial_loss_mode"), ({"gamma_neg": 2.0}, "gamma_neg"), ({"loss": "hill"}, "loss"),
        ({"partial_loss_mode": "selective", "prior_path": "auto"}, "partial_loss_mode"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"--{flag} changes nothing with --group_loss softmax, as every class"):
            train(TrainConfig(**base, **settings), lambda _: None)
    with pytest.raises(InputError, match="--group_loss word: unknown, expected one of sigmoid, softmax"):
        train(TrainConfig(**{**base, "group_loss": "word"}), lambda _: None)
    assert not (tmp_path / "run").exists()
