"""A step and an evaluation read nothing of the device but what was copied before the step: on a GPU the host runs ahead.

PyTorch's "meta" device stands for a GPU here. It has shapes and no values: whatever would wait for a value raises.
"""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from csl import InputError
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import EvalTransform, TrainTransform
from csl.labels import read_annotations
from csl.losses import LOSSES, create_loss, options_of
from csl.losses.groups import GroupLoss
from csl.machine.host_copy import HostCopy
from csl.models import create_model
from csl.models.graphing import GraphedNetwork
from csl.predict import scoring
from csl.runs.config import TrainConfig, TrainOptions
from csl.runs.folder import RunFolder
from csl.training import finite, progress, trainer
from csl.training.experiment import train
from csl.training.state import EpochSums

META = torch.device("meta")
SIZE = 32


class Copies(TorchDispatchMode):
    """Copies of the host's tensors to the device for which a host without page-locked memory would wait."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        of_host = [
            t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.dim() and t.device != META
        ]
        moved = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.device == META]
        if of_host and moved and not (kwargs or {}).get("non_blocking", "copy_" in str(function) and args[-1] is True):
            self.waiting.append((str(function), [tuple(t.shape) for t in of_host]))
        return result


@pytest.fixture
def events(monkeypatch):
    """What the host queues, copies and reads, in order; and PyTorch made to work without values."""
    seen = []

    class Noted:
        def __init__(self, tensor):
            assert tensor.device == META
            self.number = sum(kind == "copy" for kind, _ in seen)
            self.shape = tensor.shape
            seen.append(("copy", self.number))

        def values(self):
            seen.append(("read", self.number))
            return torch.zeros(self.shape)

    monkeypatch.setattr(finite, "HostCopy", Noted)
    monkeypatch.setattr(scoring, "HostCopy", Noted)
    monkeypatch.setattr(progress, "QUIET_SECONDS", 1e9)  # a line of progress holds the mean loss
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it has no precision for "meta"
    monkeypatch.setattr(trainer, "on_device", lambda loader, device: (batch.to(device) for batch in loader))
    # PyTorch's fused Adam has no form for "meta".
    monkeypatch.setattr(trainer, "create_optimizer", lambda model, *_: torch.optim.SGD(model.parameters(), 1e-3))
    return seen


def made(garments, folder, loss, name="test_resnet", augment="fast", device="meta", amp="off"):
    train, val = (read_annotations(garments, split=split) for split in ("train", "val"))
    loaders = (
        create_loader(ImageDataset(train, TrainTransform(SIZE, augment), seed=0), 4, 0, shuffle_seed=0, shared=True),
        create_loader(ImageDataset(val, EvalTransform(SIZE)), 4, 0, shared=True),
    )
    model = create_model(name, num_classes=len(train.classes))
    options, run = TrainOptions(epochs=1, lr=1e-3, amp=amp), RunFolder(str(folder))
    return trainer.Trainer(model, loss, *loaders, val, run, torch.device(device), options, lambda _: None)


@pytest.mark.parametrize(("name", "augment"), [("test_resnet", "fast"), ("tresnet_m", "none")])
def test_a_step_waits_for_the_loss_of_the_step_before_alone(garments, tmp_path, events, monkeypatch, name, augment):
    found = made(garments, tmp_path, create_loss("csl"), name, augment)
    step = found.train_step
    monkeypatch.setattr(found, "train_step", lambda batches: (step(batches), events.append(("queued", None))))
    with Copies() as copies:
        found._train_epoch()
    assert copies.waiting == []
    assert events[:7] == [
        ("copy", 0), ("queued", None),
        ("read", 0), ("copy", 1), ("queued", None),
        ("read", 1), ("copy", 2),
    ]  # fmt: skip
    assert sum(kind == "queued" for kind, _ in events) == 5


def test_an_evaluation_reads_a_batch_once_the_next_is_queued(garments, events):
    loader = create_loader(ImageDataset(read_annotations(garments, split="val"), EvalTransform(SIZE)), 4, 0)
    model = create_model("test_resnet", num_classes=21).to(META)
    assert scoring.score([model], loader, META).probabilities.shape == (1, 12, 21)
    assert events == [("copy", 0), ("copy", 1), ("read", 0), ("copy", 2), ("read", 1), ("read", 2)]


@pytest.mark.parametrize(
    "name", sorted(LOSSES.keys() - {"spa"})
)  # which solves an equation for the known entries alone
def test_no_loss_reads_its_logits(events, name):
    given = {"shape": (9, 8), "k": 2.0} | {"prior": torch.full((8,), 0.1), "known": torch.full((2, 8), 0.05)}
    loss = create_loss(name, **{key: given[key] for key in given.keys() & options_of(name).keys()}).to(META)
    logits = torch.randn(6, 8, device=META, requires_grad=True)
    rows = [torch.arange(6, device=META)] if getattr(loss, "by_image", False) else []
    with Copies() as copies:
        loss(logits, torch.zeros(6, 8, dtype=torch.int8, device=META), *rows).backward()
    assert copies.waiting == []
    assert logits.grad.shape == logits.shape


def test_no_loss_of_groups_reads_its_logits(events):
    loss = GroupLoss([slice(0, 3), slice(3, 7)], 8, create_loss("csl"), annotated=torch.rand(8)).to(META)
    logits = torch.randn(6, 8, device=META, requires_grad=True)
    with Copies() as copies:
        loss(logits, torch.zeros(6, 8, dtype=torch.int8, device=META)).backward()
    assert copies.waiting == []
    assert logits.grad.shape == logits.shape


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_a_step_of_a_gpu_waits_for_nothing(garments, tmp_path, amp):
    found = made(garments, tmp_path, create_loss("csl"), "tresnet_m", device="cuda", amp=amp)
    steps = list(found.steps())
    found.train_step(steps[0])  # compiles and allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in steps[1:3]:
            found.train_step(step)
            assert not found.finite.nonfinite()  # an event, which is no wait for the stream
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_a_copy_arrives_though_the_device_works_on():
    weight, value = torch.rand(4096, 4096, device="cuda"), torch.full((3,), 7.0, device="cuda")
    torch.cuda.synchronize()
    copy = HostCopy(value)
    assert copy._values.is_pinned()
    value.zero_()
    for _ in range(50):
        weight = weight @ weight
    assert copy.values().tolist() == [7.0, 7.0, 7.0]
    assert not torch.cuda.current_stream().query()  # the products are still under way


@pytest.mark.gpu
def test_pixels_become_floats_in_one_pass():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    for dtype in (torch.float32, torch.float64):
        found = scoring.to_input(images, torch.device("cuda"), dtype)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found.cpu(), scoring.to_input(images, torch.device("cpu"), dtype), rtol=1e-7, atol=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.gpu
def test_a_named_gpu_is_the_current_one():
    before = torch.cuda.current_device()
    try:
        assert (
            scoring.choose_device("cuda:1")
            == torch.device("cuda", torch.cuda.current_device())
            == torch.device("cuda:1")
        )
    finally:
        torch.cuda.set_device(before)


def test_a_copy_of_a_cpus_tensor_is_the_tensor():
    value = torch.rand(3, requires_grad=True)
    copy = HostCopy(value)
    assert copy.values().data_ptr() == value.data_ptr()
    assert not copy.values().requires_grad


def test_mixed_images_leave_the_prior_alone(events):
    logits, alone = torch.randn(4, 3), torch.tensor([True, False, True, True])
    for device in ("cpu", META):  # on "meta" a mask would be read
        sums = EpochSums(3, torch.device(device))
        sums.update(logits.to(device), torch.zeros((), device=device), alone)
        assert (sums.images, sums.prior.samples) == (4, 3)
        if device == "cpu":
            assert torch.equal(sums.prior.value(), logits[[0, 2, 3]].sigmoid().sum(0).double().div(3).float())


@pytest.mark.parametrize(
    ("settings", "beside"),
    [
        ({}, "cpu"),
        ({"grad_accum": 2, "batch_size": 2}, "cpu, --grad_accum"),
        ({"progressive_size": 16}, "cpu, --progressive_size"),
    ],
    ids=str,
)
def test_a_graph_is_refused_where_there_is_none(garments, tmp_path, settings, beside):
    config = TrainConfig(
        data=str(garments), path_dest=str(tmp_path), model_name="test_resnet", image_size=32, workers=0, device="cpu",
        epochs=1, loss="csl", cuda_graph=True, **{"batch_size": 8} | settings,
    )  # fmt: skip
    with pytest.raises(
        InputError, match=f"^--cuda_graph: not with {beside}; expected one GPU and batches of one kind, one a step$"
    ):
        train(config, lambda line: None)
    assert not any(tmp_path.glob("*.ckpt"))


def test_recording_leaves_the_running_statistics_alone(monkeypatch):
    """What surrounds the recording, which a GPU alone can do: here it is a module that has been warmed up."""
    recorded = []

    def make(whole, args):
        for _ in range(3):
            whole(*args)
        recorded.append(args[0].shape)
        return whole

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    model = copy.deepcopy(plain)
    network = GraphedNetwork(model)
    for size in (4, 2, 4):
        x = torch.rand(size, 3, 5, 5)
        assert torch.equal(network(x), plain(x))
    assert recorded == [(4, 3, 5, 5)]
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), plain.buffers(), strict=True))
