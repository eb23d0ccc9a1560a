"""csl.training.memory: what a step keeps where memory is plentiful, and that it changes no number."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from csl import InputError, TrainConfig
from csl.models import create_model
from csl.models.abn import describe_abn, keep_inputs
from csl.models.tresnet import TResNet, TResNetConfig
from csl.training import memory
from csl.training.memory import keeps_inputs, kept_bytes
from csl.training.preflight import check_settings

CPU = torch.device("cpu")


def small():
    torch.manual_seed(0)
    return TResNet(TResNetConfig((1, 2, 2, 1), width=0.25), 3)


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
    return [loss.detach(), *(p.grad for p in model.parameters())], sum(kept.values())


def test_keeping_inputs_changes_no_number_and_takes_more_memory():
    x = torch.rand(4, 3, 64, 64, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    (plain, less), (kept, more) = (step(keep_inputs(small().double(), keep), x) for keep in (False, True))
    for ours, theirs in zip(kept, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    assert 1.2 * less < more < 2 * less


@pytest.mark.parametrize("size", [64, (48, 96)])
def test_what_a_step_keeps_is_told_without_taking_it(size):
    model = small()
    _, kept = step(keep_inputs(small()), torch.rand(4, 3, *((size, size) if isinstance(size, int) else size)))
    assert kept_bytes(model, size) == pytest.approx(kept / 4, rel=0.01)
    assert not any(getattr(module, "keep", False) for module in model.modules())  # a copy was followed
    assert next(model.parameters()).device == CPU


def test_a_processor_keeps_them_where_they_are_few(monkeypatch):
    model = small()
    few, many = (int(memory.MOST_KEPT / kept_bytes(model, 64) * factor) for factor in (0.99, 1.01))
    assert keeps_inputs("auto", CPU, model, 64, few)
    assert not keeps_inputs("auto", CPU, model, 64, many)
    assert keeps_inputs("fast", CPU, model, 64, many)
    assert not keeps_inputs("save", CPU, model, 64, few)
    assert not keeps_inputs("auto", torch.device("cuda"), model, 64, few)
    assert not keeps_inputs("auto", CPU, create_model("test_resnet", num_classes=3), 64, few)


def test_it_is_said():
    line = "InPlace-ABN: torch (Triton needs a CUDA device, not cpu)"
    assert describe_abn(small(), "cpu") == line
    assert describe_abn(keep_inputs(small()), "cpu") == (
        f"{line}; inputs are kept for backward (--memory save recovers them)"
    )


def test_another_word_is_refused():
    with pytest.raises(InputError, match="^--memory much: unknown, expected one of auto, save, fast"):
        check_settings(TrainConfig(data="set", memory="much", device="cpu"))
