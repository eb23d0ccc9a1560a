"""--frozen_epochs: what stays as it was, when it begins to learn, and that a stopped run goes on as it was."""

import pytest
import torch

from csl import InputError
from csl.checkpoint.network import head_filter
from csl.models import create_model
from csl.training.body import Body

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def run(short_run, tmp_path):
    """run(folder, ...) trains in the folder, three steps an epoch, from weights; returns its state and what was said."""
    start = tmp_path / "start.pth"
    torch.manual_seed(7)
    torch.save(create_model("test_resnet", 21).state_dict(), start)

    def go(folder, **settings):
        said = short_run(folder, **{"model_path": str(start), "frozen_epochs": 1, **settings})
        return torch.load(tmp_path / folder / "last.ckpt", weights_only=True), said

    return go


def test_the_head_alone_learns_at_first_and_then_all(run, tmp_path):
    start = torch.load(tmp_path / "start.pth", weights_only=True)
    first, said = run("run", max_steps=3)
    changed = {name for name in start if not torch.equal(start[name], first["model"][name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert {name for name in start if not torch.equal(start[name], first["ema"]["state"][name])} == changed
    assert "epoch 1: the head alone is trained up to epoch 1 (--frozen_epochs)" in said
    last, said = run("run", resume=True)
    assert "epoch 2: all is trained (--frozen_epochs)" not in said  # in this process nothing was frozen
    still = {name for name in start if torch.equal(first["model"][name], last["model"][name])}
    assert not still, still
    straight, said = run("straight")
    assert "epoch 2: all is trained (--frozen_epochs)" in said
    assert all(torch.equal(straight["model"][name], last["model"][name]) for name in start)


def test_what_was_frozen_before_stays_so():
    model = create_model("test_resnet", 5, head="ml_decoder").train()
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed
    body, is_head = Body(model), head_filter(model)
    body.freeze(True)
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {name for name, _ in model.named_parameters() if is_head(name)} - fixed
    in_training = {name for name, module in model.named_modules() if module.training}
    assert in_training == {name for name, _ in model.named_modules() if is_head(f"{name}.")}
    body.freeze(False)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == fixed


def test_there_is_nothing_to_keep_of_random_weights(run, tmp_path):
    with pytest.raises(InputError, match=r"^--frozen_epochs 1: the network starts from scratch"):
        run("run", model_path=None)
    assert not (tmp_path / "run").exists()
