"""--shallow_epochs: which blocks learn, that the network is the same without the others, and that a stopped run goes on."""

import pytest
import torch

from csl import InputError
from csl.models import create_model
from csl.training.shallow import LaterBlocks

pytestmark = pytest.mark.usefixtures("no_pictures")


def is_later(name):
    """Whether a parameter or buffer is of a block behind the first of its stage: body.layer3.2.conv1.0.weight."""
    parts = name.split(".")
    return len(parts) > 2 and parts[1].startswith("layer") and parts[2] != "0"


@pytest.fixture(scope="module")
def tresnet():
    torch.manual_seed(3)
    return create_model("tresnet_m", 5)


@pytest.mark.parametrize("training", [False, True])
def test_a_new_network_gives_the_same_without_its_later_blocks(tresnet, training):
    tresnet.train(training)
    images, later = torch.rand(4, 3, 64, 64), LaterBlocks([tresnet])
    with torch.no_grad():
        whole = tresnet(images)
        assert later.leave_out(True)
        assert not later.leave_out(True)
        calls = []
        handle = tresnet.body.layer3[1].register_forward_hook(lambda *_: calls.append(1))
        shallow = tresnet(images)
        handle.remove()
        assert later.leave_out(False)
    assert not calls
    assert torch.allclose(whole, shallow, rtol=1e-3, atol=1e-4 * whole.abs().max())


def test_the_first_blocks_alone_get_gradients(tresnet):
    later = LaterBlocks([tresnet.train()])
    later.leave_out(True)
    tresnet(torch.rand(2, 3, 64, 64)).sum().backward()
    got = {name for name, p in tresnet.named_parameters() if p.grad is not None}
    later.leave_out(False)
    tresnet.zero_grad()
    assert got == {name for name, _ in tresnet.named_parameters() if not is_later(name)}
    assert all(p.requires_grad for p in tresnet.parameters())


@pytest.fixture
def run(short_run, tmp_path):
    """run(folder, ...) trains TResNet-M in the folder, three steps an epoch; returns its state and what was said."""

    def go(folder, **settings):
        said = short_run(folder, **{"model_name": "tresnet_m", "image_size": 64, "shallow_epochs": 1, **settings})
        return torch.load(tmp_path / folder / "last.ckpt", weights_only=True), said

    return go


def test_later_blocks_learn_after_the_shallow_epochs(run):
    first, said = run("run", max_steps=3, print_freq=1)
    assert "epoch 1: the first block of each stage alone is trained up to epoch 1 (--shallow_epochs)" in said
    steps = [line for line in said if "img/s" in line and "step" in line]
    assert steps
    assert all(" at least 0" in line for line in steps)  # whole steps take longer than those that the rate is of
    assert first["model"]["body.layer3.1.conv3.1.weight"].eq(0).all()
    assert first["ema"]["state"]["body.layer3.1.conv3.1.weight"].eq(0).all()
    last, said = run("run", resume=True, print_freq=1)
    assert "epoch 2: all is trained (--shallow_epochs)" not in said  # in this process nothing was left out
    assert not any("at least" in line for line in said)
    still = {name for name, value in first["model"].items() if torch.equal(value, last["model"][name])}
    assert not still, still
    straight, said = run("straight")
    assert "epoch 2: all is trained (--shallow_epochs)" in said
    for kept in ("model", "ema"):
        ours, theirs = (state[kept] if kept == "model" else state[kept]["state"] for state in (straight, last))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_path": "x.pth"}, "--shallow_epochs changes nothing with --model_path"),
        ({"model_name": "test_resnet"}, "--shallow_epochs changes nothing with --model_name test_resnet"),
        ({"shallow_epochs": 2}, "--shallow_epochs changes nothing with --epochs 2"),
    ],
)
def test_it_is_of_a_tresnet_from_scratch_that_becomes_whole(run, settings, message):
    with pytest.raises(InputError, match=f"^{message}"):
        run("run", **settings)
