"""What the NUS-WIDE tutorial's recipe needs of training: no moving average, one learning rate, a test every N steps."""

import json

import pytest
import torch

from csl import InputError, checkpoint
from csl.runs.config import TrainConfig
from csl.training.experiment import train
from csl.training.recipes import RECIPES

SMALL = {
    "model_name": "test_resnet",
    "model_path": None,
    "image_size": 32,
    "batch_size": 8,
    "workers": 0,
    "device": "cpu",
}


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def garments(drawn):
    return drawn(22, 10, 32)  # three steps an epoch


@pytest.fixture
def run(garments, tmp_path):
    """run("a", max_steps=4, ...) trains as the recipe says, but for what is given; returns the folder of the run."""

    def start(name, **settings):
        recipe = {**RECIPES["nuswide_tutorial"], **SMALL, "lr": 1e-3, "epochs": 2, "eval_every": 1, "seed": 3}
        train(TrainConfig(**{**recipe, **settings}, data=str(garments), path_dest=str(tmp_path / name)), lambda _: None)
        return tmp_path / name

    return start


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def state(folder):
    found = torch.load(folder / "last.ckpt", weights_only=True)
    for key in ("config", "best"):
        found.pop(key)
    return found


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_stopped_and_resumed_equals_not_stopped(run):
    a = run("a")
    for max_steps in (1, 4, None):  # in the middle of an epoch, and of the next
        b = run("b", max_steps=max_steps, resume=max_steps != 1)
    ours, theirs = state(a), state(b)
    assert ours["step"] == 6
    assert [key for key in ours if not equal(ours[key], theirs[key])] == []
    assert json.loads((a / "results.json").read_text())["best"] == json.loads((b / "results.json").read_text())["best"]
    assert equal(checkpoint.read(a / "best.ckpt").state_dict, checkpoint.read(b / "best.ckpt").state_dict)


def test_evaluations_between_are_logged_and_change_nothing(run):
    every, never = run("every", eval_every=2), run("never", eval_every=None)
    assert equal(state(every)["model"], state(never)["model"])
    assert [(entry["step"], entry["epoch"]) for entry in log(every)] == [(2, 0.6667), (3, 1), (4, 1.3333), (6, 2)]
    assert [entry["step"] for entry in log(never)] == [3, 6]
    assert {entry["lr"] for entry in log(every)} == {1e-3}
    best = json.loads((every / "results.json").read_text())["best"]
    assert best["mAP"] == max(entry["mAP_model"] for entry in log(every))
    assert best["step"] == max(log(every), key=lambda entry: entry["mAP_model"])["step"]
    assert list((every / "tensorboard" / "steps").iterdir())


def test_the_best_may_be_in_the_middle_of_an_epoch(run):
    folder = run("a", epochs=1, lr=1e-12)  # nothing is learnt: the first evaluation is the best, and stays it
    best = json.loads((folder / "results.json").read_text())["best"]
    assert best["step"] in (1, 2, 3)
    assert best["mAP"] == max(entry["mAP_model"] for entry in log(folder))
    assert len(log(folder)) == 3


def test_without_a_moving_average(run):
    folder = run("a", epochs=1, eval_every=None)
    (entry,) = log(folder)
    assert entry["mAP_ema"] is None
    assert entry["mAP_negative_ema"] is None
    assert state(folder)["ema"] is None
    assert json.loads((folder / "results.json").read_text())["best"]["weights"] == "model"
    assert equal(checkpoint.read(folder / "best.ckpt").state_dict, checkpoint.read(folder / "last.ckpt").state_dict)
    for settings, message in (
        ({"ema_decay": 0.9}, "holds no moving average of the weights, this command has --ema_decay 0.9"),
        ({"schedule": "onecycle"}, "made with another schedule than --schedule onecycle"),
    ):
        with pytest.raises(InputError, match=message):
            run("a", epochs=1, resume=True, **settings)
    averaged = run("b", epochs=1, ema_decay=0.5)
    with pytest.raises(InputError, match="holds a moving average of the weights, this command has --ema_decay 0"):
        run("b", epochs=1, resume=True)
    assert state(averaged)["ema"]["updates"] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ema_decay": 1.0}, "--ema_decay 1: expected a number from 0 to less than 1"),
        ({"schedule": "cosine"}, "--schedule cosine: unknown, expected one of onecycle, constant"),
        ({"eval_every": 0}, "--eval_every 0: expected a whole number from 1 "),
        ({"augment": "flip"}, "unknown augmentation 'flip': expected one of original, flip_affine"),
    ],
)
def test_bad_settings(run, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        run("a", **settings)
    assert not (tmp_path / "a").exists()
