"""The casts of a stage's weights together: what autocast gives, in fewer operations."""

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from networks import images, set_golden_weights
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from csl.models import tresnet
from csl.models.narrow import narrowed
from csl.models.tresnet import TResNet, TResNetConfig

X = images(0, 4, 32)


def network():
    model = TResNet(TResNetConfig((1, 2, 2, 1), width=0.25), num_classes=5)
    return set_golden_weights(model).train().to(memory_format=torch.channels_last)


def loss(model, x, dtype=torch.bfloat16, cached=True):
    with torch.autocast("cpu", dtype, cache_enabled=cached):
        return model(x.contiguous(memory_format=torch.channels_last)).float().square().sum()


def state(model, losses):
    named = {"loss": torch.stack(losses).detach()} | {n: p.grad for n, p in model.named_parameters()}
    return named | dict(model.named_buffers())


def one_step(model):
    made = loss(model, X)
    made.backward()
    return [made]


def in_float16(model):
    made = loss(model, X, torch.float16)
    (made * 0.01).backward()
    return [made]


def without_autocasts_cache(model):  # as of --cuda_graph
    made = loss(model, X, cached=False)
    made.backward()
    return [made]


def gradients_added_up(model):
    return one_step(model) + one_step(model)


def two_passes_before_their_backward(model):
    made = [loss(model, x) for x in (X, X.flip(3))]
    sum(made).backward()
    return made


def a_frozen_filter(model):
    model.body.layer2[0].conv2[0].weight.requires_grad_(False)
    return one_step(model)


def the_body_frozen(model):
    model.body.eval().requires_grad_(False)
    return one_step(model)


def in_parallel(model):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        return one_step(DistributedDataParallel(model, gradient_as_bucket_view=True))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "steps",
    [
        one_step,
        in_float16,
        without_autocasts_cache,
        gradients_added_up,
        two_passes_before_their_backward,
        a_frozen_filter,
        the_body_frozen,
        in_parallel,
    ],
)
def test_outputs_gradients_and_statistics_are_autocasts_bit_for_bit(steps, monkeypatch):
    model = network()
    ours = state(model, steps(model))
    monkeypatch.setattr(tresnet, "narrowed", lambda *_: nullcontext())
    model = network()
    theirs = state(model, steps(model))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if value is None:
            assert ours[name] is None, name
        else:
            assert ours[name].dtype == value.dtype, name
            assert ours[name].stride() == value.stride(), name
            assert torch.equal(ours[name], value), name


class Casts(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found[func._schema.name] += 1
        return func(*args, **kwargs or {})


def test_a_stage_casts_its_weights_by_one_operation_each_way(monkeypatch):
    model = network()
    filters = sum(isinstance(m, nn.Conv2d) for name, m in model.body.named_modules() if name.startswith("layer"))
    with Casts() as ours:
        one_step(model)
    monkeypatch.setattr(tresnet, "narrowed", lambda *_: nullcontext())
    with Casts() as theirs:
        one_step(model)
    assert theirs.found["aten::_to_copy"] - ours.found["aten::_to_copy"] == 2 * filters > 40
    assert ours.found["aten::_foreach_copy_"] - theirs.found["aten::_foreach_copy_"] == 2 * 4


def test_parameters_are_the_same_ones_within_a_hook_after_a_step_and_after_an_error():
    model = network()
    conv, seen = model.body.layer3[1].conv2[0], []
    before = dict(model.named_parameters())
    conv.register_forward_hook(lambda module, *_: seen.append(module.weight.dtype))
    one_step(model)
    conv.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one_step(model)
    assert seen == [torch.bfloat16] * 2
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is parameter for name, parameter in before.items())


@pytest.mark.parametrize("off", ["evaluation", "no autocast", "float64"])
def test_nothing_is_cast_where_autocast_would_not_be_asked_for_it(off):
    model = network()
    conv = model.body.layer1[0].conv1[0]
    if off == "evaluation":
        model.eval()
    if off == "float64":
        model.double()
    dtype = conv.weight.dtype
    with torch.autocast("cpu", torch.bfloat16, enabled=off != "no autocast"), narrowed(model.body.layer1, X.device):
        assert conv.weight.dtype == dtype


def test_a_compiled_stage_is_one_graph_and_gives_the_same():
    stage, graphs = network().body.layer1, []

    def count(graph, _):
        graphs.append(graph)
        return graph

    x = torch.rand(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        compiled, plain = torch.compile(stage, backend=count)(x), stage(x)
    assert len(graphs) == 1
    torch.testing.assert_close(compiled, plain)
