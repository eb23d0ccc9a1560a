"""Losses that change with the epoch, or remember: a run that was stopped and resumed equals one that was not, bit for bit."""

import json

import pytest
import torch

from csl import InputError
from csl.machine import distributed
from csl.runs.config import TrainConfig
from csl.training.experiment import train

pytestmark = pytest.mark.usefixtures("no_pictures")

CHANGING = {  # options with which it changes something in a few steps of a small network, and with which it does not
    "splc": ("tau=0.3", "change_epoch=9"),
    "ll_r": ("delta=0.2", "delta=0"),
    "ll_cp": ("delta=0.05", "delta=0"),
    "em_apl": ("warm_up=1,ramp=2", "warm_up=9"),
    "role": ("k=3", "k=3,rate=0"),
    "crisp": ("warm_up=1", "warm_up=9"),
}
NOT_OF_TRAINING = ("config", "best", "best_weights", "log_lines", "evaluated")  # a stop is evaluated


@pytest.fixture
def run(garments, tmp_path):
    """run(folder, loss, options, max_steps) trains, or goes on, three steps an epoch; the state that it leaves."""

    def go(folder, loss, options, max_steps):
        path = tmp_path / folder
        train(
            TrainConfig(
                data=str(garments), path_dest=str(path), model_name="test_resnet", image_size=32, batch_size=8, epochs=3,
                workers=0, augment="none", device="cpu", lr=1e-2, ema_decay=0.0, simulate_partial_type="rps",
                loss=loss, loss_options=options, max_steps=max_steps, resume=path.exists(),
            ),
            lambda line: None,
        )  # fmt: skip
        state = torch.load(path / "last.ckpt", weights_only=True)
        return {name: part for name, part in state.items() if name not in NOT_OF_TRAINING}

    return go


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list | tuple) else a == b


@pytest.mark.parametrize("loss", CHANGING)
def test_stopped_and_resumed_is_not_stopped(loss, run):
    changing, constant = CHANGING[loss]
    straight = run("straight", loss, changing, 5)
    for steps in (3, 4, 5):  # at the end of an epoch, and within the next
        resumed = run("resumed", loss, changing, steps)
    assert [name for name in straight if not same(straight[name], resumed[name])] == []
    assert not same(straight["model"], run("constant", loss, constant, 5)["model"])


def test_the_first_epoch_is_the_first(run, tmp_path):
    """As the epoch is counted from 1, nothing has changed yet after three steps; the fourth differs."""
    for steps in (3, 4):
        changing, constant = (run(f"{name}{steps}", "splc", name, steps) for name in CHANGING["splc"])
        assert same(changing["model"], constant["model"]) == (steps == 3)
    log = [json.loads(line) for line in (tmp_path / "tau=0.34" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 4


def test_what_a_loss_remembers_is_in_the_state_and_another_shape_of_it_is_refused(run, tmp_path):
    state = run("a", "ll_cp", "delta=0.05", 4)
    assert state["criterion"]["corrected"].shape == (20, 21)
    assert state["criterion"]["corrected"].any()
    assert "criterion" not in run("b", "splc", "tau=0.3", 1)
    path = tmp_path / "a" / "last.ckpt"
    whole = torch.load(path, weights_only=True)
    whole["criterion"]["corrected"] = whole["criterion"]["corrected"][:3]
    torch.save(whole, path)
    with pytest.raises(InputError, match=r"last.ckpt: not the state of this run \(RuntimeError: .*corrected"):
        run("a", "ll_cp", "delta=0.05", 5)


def test_a_loss_that_remembers_images_is_of_one_process(run, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(
        InputError, match="--loss role: remembers each image in one process, expected a run without torch"
    ):
        run("a", "role", "k=3", 1)
