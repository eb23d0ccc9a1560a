"""csl.training.memory: what a step keeps where memory is plentiful, and that it changes no number."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from csl import InputError, TrainConfig
from csl.machine import distributed
from csl.models import create_model
from csl.models.abn import InPlaceABN, describe_abn, keep_inputs
from csl.models.tresnet import TResNet, TResNetConfig
from csl.ops import set_abn_backend
from csl.ops.interpreter import INTERPRETED
from csl.training import memory
from csl.training.memory import keeps_inputs, kept_bytes
from csl.training.preflight import check_backends, check_settings

CPU = torch.device("cpu")


def small():
    """A network whose residual branches have a part."""
    torch.manual_seed(0)
    model = TResNet(TResNetConfig((1, 2, 2, 1), width=0.25), 3)
    for module in model.modules():
        if isinstance(module, InPlaceABN):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def step(model, x):
    """The loss and the gradients of a step, and the bytes that it keeps beside the network's own tensors."""
    kept, own = {}, {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() if storage.data_ptr() not in own else 0
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model.train()(x).square().sum()
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters()), *model.buffers()], sum(kept.values())


def test_keeping_inputs_changes_no_number_and_takes_more_memory():
    x = torch.rand(4, 3, 64, 64, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    (plain, less), (kept, more) = (step(keep_inputs(small().double(), keep), x) for keep in (False, True))
    for ours, theirs in zip(kept, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-11)
    assert 1.2 * less < more < 2 * less


@pytest.mark.parametrize("size", [64, (48, 96)])
def test_what_a_step_keeps_is_told_without_taking_it(size):
    model = small()
    _, kept = step(keep_inputs(small()), torch.rand(4, 3, *((size, size) if isinstance(size, int) else size)))
    assert kept_bytes(model, size) == pytest.approx(kept / 4, rel=0.02)  # statistics are kept once, however many images
    assert not any(getattr(module, "keep", False) for module in model.modules())  # a copy was followed
    assert next(model.parameters()).device == CPU


def test_a_processor_keeps_them_where_they_are_few():
    model = small()
    few, many = (int(memory.MOST_KEPT / kept_bytes(model, 64) * factor) for factor in (0.99, 1.01))
    assert keeps_inputs("auto", CPU, model, 64, few)
    assert not keeps_inputs("auto", CPU, model, 64, many)
    assert keeps_inputs("fast", CPU, model, 64, many)
    assert not keeps_inputs("save", CPU, model, 64, few)
    assert not keeps_inputs("auto", torch.device("cuda"), model, 64, few)
    assert not keeps_inputs("auto", CPU, model, 64, few, synchronised=True)
    assert not keeps_inputs("auto", CPU, create_model("test_resnet", num_classes=3), 64, few)


def test_it_is_said():
    line = "InPlace-ABN: torch (Triton needs a CUDA device, not cpu)"
    assert describe_abn(small(), "cpu") == line
    assert describe_abn(keep_inputs(small()), "cpu") == (
        f"{line}; inputs are kept for backward (--memory save recovers them)"
    )


def test_it_is_refused_where_it_changes_nothing(monkeypatch):
    config = TrainConfig(data="set", memory="fast", sync_abn=True, device="cpu")
    check_backends(small(), config, lambda _: None)  # one process
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(InputError, match="^--memory fast: changes nothing with --sync_abn; expected auto or save"):
        check_backends(small(), config, lambda _: None)
    assert memory.why_not(torch.device("cuda"), False).startswith("changes nothing on cuda")


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton's interpreter")
def test_a_kernel_recovers_its_input_as_it_reads():
    set_abn_backend("triton")
    assert not keeps_inputs("auto", CPU, small(), 64, 1)
    assert memory.why_not(CPU, False) == "changes nothing with --abn triton"


def test_another_word_is_refused():
    with pytest.raises(InputError, match="^--memory much: unknown, expected one of auto, save, fast"):
        check_settings(TrainConfig(data="set", memory="much", device="cpu"))
