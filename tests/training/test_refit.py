"""Category-wise fine-tuning: rows of the last layer against a loop that trains one class alone, and runs with --refit_head."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from csl import InputError
from csl.labels import read_annotations
from csl.metrics import average_precision, mean_average_precision
from csl.predict import Predictor
from csl.runs.config import TrainConfig
from csl.training import linear, refit
from csl.training.experiment import train


def problem(images=60, features=5, classes=4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(images, features)).astype(np.float32)
    truth = (x @ rng.normal(size=(features, classes)) + rng.normal(size=(images, classes)) > 0.7).astype(np.int8)
    return torch.from_numpy(x), torch.from_numpy(np.where(rng.random(truth.shape) < 0.6, truth, -1).astype(np.int8))


def alone(weight, bias, train, val, rate, steps):
    """One class: ASL by its formula, Adam by its formula, the step with the best average precision, in float64."""
    (x, y), (x_val, y_val) = ((x.double().numpy(), y.numpy()) for x, y in (train, val))
    theta = np.append(weight.double().numpy(), bias.item())
    x, x_val = (np.c_[part[t != -1], np.ones((t != -1).sum())] for part, t in ((x, y), (x_val, y_val)))
    y, y_val = y[y != -1], y_val[y_val != -1]
    best = (average_precision_score(y_val, x_val @ theta), theta)
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(1, steps + 1):
        p = 1 / (1 + np.exp(-x @ theta))
        q = np.minimum(1, 1 - p + 0.05)  # of a negative; its weight (1 - q) ** 4 is held
        slope = np.where(y == 1, p - 1, (1 - q) ** 4 * np.where(q < 1, p * (1 - p) / q, 0))
        gradient = slope @ x / len(y)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        theta = theta - rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        if step % refit.EVERY == 0 and (found := average_precision_score(y_val, x_val @ theta)) > best[0]:
            best = found, theta
    return best


def test_each_row_is_that_of_its_class_trained_alone(monkeypatch):
    monkeypatch.setattr(refit, "RATE", 3e-2)
    monkeypatch.setattr(refit, "MOST_STEPS", 80)
    monkeypatch.setattr(refit, "CLASSES", 3)
    x, y = problem()
    y[:, 3] = torch.where(y[:, 3] == 1, -1, y[:, 3])  # no known positive in the images to train on
    train, val = (x[:40], y[:40]), (x[40:], problem()[1][40:])
    torch.manual_seed(1)
    layer = torch.nn.Linear(5, 4)
    old = {name: value.clone() for name, value in layer.state_dict().items()}
    before, after = refit.refit_rows(layer, *train, *val)
    for c in range(3):
        of_class = ((part, labels[:, c]) for part, labels in (train, val))
        ap, theta = alone(old["weight"][c], old["bias"][c], *of_class, 3e-2, 80)
        assert after[c] == pytest.approx(ap)
        np.testing.assert_allclose(np.append(layer.weight[c].detach(), layer.bias[c].item()), theta, atol=2e-5)
    assert (after[:3] > before[:3]).any()
    assert after[3] == before[3]
    assert torch.equal(layer.weight[3], old["weight"][3])


def test_it_stops_when_no_class_has_grown_for_long(monkeypatch):
    monkeypatch.setattr(refit, "RATE", 0.0)
    looks = []
    monkeypatch.setattr(refit, "average_precision", lambda *a: looks.append(1) or average_precision(*a))
    (x, y), layer = problem(), torch.nn.Linear(5, 4)
    old = layer.weight.clone()
    before, after = refit.refit_rows(layer, x, y, x, y)
    assert len(looks) == 2 + refit.PATIENCE / refit.EVERY
    assert torch.equal(layer.weight, old)
    assert np.array_equal(before, after)


@pytest.mark.parametrize("probe", [False, True])
def test_a_run_ends_in_the_network_that_it_reports(garments, tmp_path, no_pictures, monkeypatch, probe):
    monkeypatch.setattr(linear, "LEAST_STEPS", 20)
    settings = {"epochs": 1, "max_steps": 2, "lr": 1e-2, "augment": "none", "loss": "spa"}
    config = TrainConfig(
        data=str(garments), path_dest=str(tmp_path / "run"), model_name="test_resnet", image_size=32, batch_size=8, workers=0,
        device="cpu", refit_head=True, **({} if probe else settings),
    )  # fmt: skip
    if probe:
        start = {**vars(config), "refit_head": False, "path_dest": str(tmp_path / "start"), **settings}
        train(TrainConfig(**start), lambda _: None)
        config.model_path, config.probe = f"{start['path_dest']}/best.ckpt", True
    said = []
    train(config, said.append)
    (line,) = (line for line in said if line.startswith("--refit_head: "))
    val = read_annotations(garments, split="val")
    best = json.loads((tmp_path / "run" / "results.json").read_text())["best"]
    scores = Predictor.load(tmp_path / "run" / "best.ckpt", device="cpu").score(val.images, 8, 0, roots=val.roots)
    assert mean_average_precision(scores.probabilities[0], val.labels) == pytest.approx(best["mAP"], abs=1e-3)
    assert line.endswith(f"and {best['mAP']:.2f} now")
    if not probe:
        config.resume = True
        train(config, said.append)  # is over: what was refitted stays
        assert json.loads((tmp_path / "run" / "results.json").read_text())["best"] == best


def test_what_cannot_be_refitted_is_refused_before_anything_is_written(garments, tmp_path):
    for settings, reason in (
        ({"head": "ml_decoder"}, "--refit_head: test_resnet ends in 0 linear"),
        ({"group_loss": "softmax"}, "--refit_head: --group_loss softmax"),
    ):
        config = TrainConfig(
            data=str(garments), path_dest=str(tmp_path / "run"), model_name="test_resnet", image_size=32, device="cpu",
            workers=0, refit_head=True, **settings,
        )  # fmt: skip
        with pytest.raises(InputError, match=reason):
            train(config, lambda _: None)
        assert not (tmp_path / "run").exists()
