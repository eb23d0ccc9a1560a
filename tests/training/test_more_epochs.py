"""--resume with another number of epochs: on under a constant learning rate, one line with the way out under a curve."""

import json

import pytest
import torch

from csl import InputError
from csl.runs.config import TrainConfig
from csl.training.experiment import train

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def run(garments, tmp_path):
    """run(folder, epochs, ...) trains in the folder; returns what was said."""

    def go(folder, epochs, schedule="constant", **settings):
        said = []
        network = {"model_name": "test_resnet", "image_size": 32, "batch_size": 8, "augment": "none"}
        machine = {"workers": 0, "device": "cpu", "path_dest": str(tmp_path / folder), "data": str(garments)}
        train(TrainConfig(**{**network, **machine, "epochs": epochs, "schedule": schedule, **settings}), said.append)
        return said

    return go


def state_of(folder):
    state = torch.load(folder / "last.ckpt", weights_only=True)
    return {name: part for name, part in state.items() if name not in ("config", "log_lines")}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list | tuple) else a == b


def test_a_constant_rate_goes_on_bit_for_bit(run, tmp_path):
    run("straight", 4)
    run("b", 1)
    run("b", 2, resume=True)
    run("b", 2, resume=True)  # nothing is left to do
    assert any("resumed" in line and "at epoch 3, step 6" in line for line in run("b", 4, resume=True))
    straight, b = state_of(tmp_path / "straight"), state_of(tmp_path / "b")
    assert [name for name in straight if not same(straight[name], b[name])] == []
    assert json.loads((tmp_path / "b" / "config.json").read_text())["epochs"] == 4
    assert len((tmp_path / "b" / "log.jsonl").read_text().splitlines()) == 4


def test_fewer_epochs_are_enough_until_they_are_less_than_those_done(run, tmp_path):
    run("a", 9, max_steps=5)
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.suffix in (".ckpt", ".json", ".jsonl")}
    with pytest.raises(InputError, match=r"^--epochs 1: .*last\.ckpt has come to epoch 2 of 9, expected 2 or more$"):
        run("a", 1, resume=True)
    assert before == {name: (tmp_path / "a" / name).read_bytes() for name in before}
    run("a", 2, resume=True)
    assert state_of(tmp_path / "a")["epoch"] == 2


def test_a_curve_says_what_to_do_instead(run, tmp_path):
    run("a", 2, "onecycle")
    with pytest.raises(InputError, match=r"--epochs 1: .* come to epoch 2 of 2, expected 2$"):
        run("a", 1, "onecycle", resume=True)
    with pytest.raises(
        InputError, match=r"--epochs 4: .*onecycle follows a curve over the 2 epochs.*--model_path .*ckpt"
    ):
        run("a", 4, "onecycle", resume=True)
    with pytest.raises(InputError, match="made with another schedule than --schedule constant"):
        run("a", 2, "constant", resume=True)
    said = run("b", 1, "onecycle", model_path=str(tmp_path / "a" / "last.ckpt"))
    assert any("21 of 21 classes kept by name" in line for line in said)


def test_other_settings_and_data_are_refused_as_before(run, tmp_path):
    run("a", 1)
    with pytest.raises(InputError, match="with other settings, expected the same: --lr 0.5"):
        run("a", 2, resume=True, lr=0.5)
    with pytest.raises(InputError, match="16 images a step|8 images a step"):
        run("a", 2, resume=True, batch_size=4)


def test_the_first_stage_keeps_its_epochs(run, tmp_path):
    stages = {"partial_loss_mode": "selective", "prior_path": "auto"}
    run("straight", 2, prior_epochs=1, **stages)
    run("b", 1, **stages)
    run("b", 2, **stages, resume=True)
    straight, b = state_of(tmp_path / "straight"), state_of(tmp_path / "b")
    assert [name for name in straight if not same(straight[name], b[name])] == []
