"""Training on a GPU: as good as on a CPU, the same bits from the same seed, and no memory lost on the way."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from csl import InputError
from csl.garments import make_garments
from csl.models import create_model
from csl.models.graphing import GraphedNetwork
from csl.models.tresnet import TResNet, TResNetConfig
from csl.runs.config import TrainConfig
from csl.training.experiment import train

pytestmark = pytest.mark.gpu

SMALL = TResNetConfig((1, 1, 2, 1), width=0.5)


def step(model, optimizer, x, targets, dtype=torch.bfloat16):
    with torch.autocast("cuda", dtype, enabled=dtype is not None):
        logits = model(x)
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def fresh(config=SMALL, batch=8, size=128):
    torch.manual_seed(0)
    model = TResNet(config, 5).cuda().to(memory_format=torch.channels_last).train()
    x = torch.rand(batch, 3, size, size, device="cuda").contiguous(memory_format=torch.channels_last)
    targets = (torch.rand(batch, 5, device="cuda") < 0.3).float()
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), x, targets


def test_steps_leave_no_memory_behind():
    parts = fresh()
    allocated = []
    for _ in range(12):
        step(*parts)
        torch.cuda.synchronize()
        allocated.append(torch.cuda.memory_allocated())
    assert len(set(allocated[3:])) == 1, allocated


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None])
def test_two_runs_with_one_seed_give_the_same_bits(dtype):
    torch.backends.cudnn.deterministic = True
    try:
        found = []
        for _ in range(2):
            model, *rest = fresh()
            losses = torch.stack([step(model, *rest, dtype) for _ in range(4)])
            found.append([losses, *model.state_dict().values()])
    finally:
        torch.backends.cudnn.deterministic = False
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_step_equals_the_cpus():
    model, _, x, targets = fresh(batch=4, size=64)
    gradients = []
    for device in ("cpu", "cuda"):
        model = model.to(device)
        model.zero_grad()
        torch.backends.cudnn.allow_tf32, before = False, torch.backends.cudnn.allow_tf32
        try:
            F.binary_cross_entropy_with_logits(model(x.to(device)), targets.to(device)).backward()
        finally:
            torch.backends.cudnn.allow_tf32 = before
        gradients.append([p.grad.cpu().clone() for p in model.parameters()])
    for on_cpu, on_gpu in zip(*gradients, strict=True):
        assert (on_gpu - on_cpu).norm() <= 5e-3 * on_cpu.norm() + 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None])
def test_a_graphed_step_is_the_same_step(dtype):
    """Losses, gradients and running statistics of steps in a graph, one of them of a smaller batch, and of others."""
    torch.backends.cudnn.deterministic = True
    try:
        found = []
        for graphed in (False, True):
            model, optimizer, x, targets = fresh()
            network, seen = GraphedNetwork(model) if graphed else model, []
            for size in (8, 8, 4, 8):
                with torch.autocast("cuda", dtype or torch.bfloat16, dtype is not None, cache_enabled=not graphed):
                    logits = network(x[:size])
                loss = F.binary_cross_entropy_with_logits(logits.float(), targets[:size])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                seen += [loss.detach().clone(), *(p.grad.clone() for p in model.parameters())]
                optimizer.step()
            found.append([*seen, *(value.clone() for value in model.state_dict().values())])
    finally:
        torch.backends.cudnn.deterministic = False
    for plain, graphed in zip(*found, strict=True):
        torch.testing.assert_close(graphed, plain)


def test_a_network_that_looks_at_its_values_is_refused_in_a_graph():
    class Looks(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum().item() > 0 else x

    with pytest.raises(InputError, match="--cuda_graph: this network cannot be recorded"):
        GraphedNetwork(Looks(3, 3).cuda())(torch.rand(2, 3, device="cuda"))


def test_a_graphed_training_ends_where_another_does(tmp_path):
    data, found = make_garments(tmp_path / "set", num_train=44, num_val=8, size=64, progress=False), []
    for cuda_graph in (False, True):
        config = TrainConfig(
            data=str(data), path_dest=str(tmp_path / str(cuda_graph)), model_name="tresnet_m", image_size=64, batch_size=8,
            epochs=2, lr=1e-4, augment="none", workers=0, device="cuda", cuda_graph=cuda_graph, amp="off", loss="csl",
        )  # fmt: skip
        train(config, lambda line: None)
        found.append([json.loads(line)["loss"] for line in (tmp_path / str(cuda_graph) / "log.jsonl").open()])
    assert found[1] == pytest.approx(found[0], rel=1e-2)


def test_memory_of_a_step_is_within_the_target_of_timms():
    import timm

    peaks = []
    for make in (create_model, timm.create_model):
        torch.manual_seed(0)
        model = make("tresnet_m", num_classes=80).cuda().to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        x = torch.rand(64, 3, 224, 224, device="cuda").contiguous(memory_format=torch.channels_last)
        targets = torch.zeros(64, 80, device="cuda")
        step(model, optimizer, x, targets)
        torch.cuda.reset_peak_memory_stats()
        step(model, optimizer, x, targets)
        peaks.append(torch.cuda.max_memory_allocated())
        del model, optimizer, x, targets
        torch.cuda.empty_cache()
    assert peaks[0] <= 0.65 * peaks[1]  # at batch 64 the weights still count; benchmarks/tresnet_speed.py has 256


def test_the_drawn_set_is_learnt_as_on_a_cpu(tmp_path):
    data = make_garments(tmp_path / "set", num_train=160, num_val=80, size=64, progress=False)
    found = []
    for device in ("cpu", "cuda"):
        config = TrainConfig(
            data=str(data), path_dest=str(tmp_path / device), model_name="tresnet_m", image_size=64, batch_size=16,
            epochs=4, lr=1e-3, ema_decay=0.9, augment="none", workers=2, device=device,
        )  # fmt: skip
        found.append(train(config, lambda line: None)["mAP"])
    assert abs(found[0] - found[1]) <= 5, found


def test_memory_checker_finds_nothing():
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("compute-sanitizer is not installed")
    code = (
        "import torch; from csl.ops import inplace_abn, pointwise_abn\n"
        "for shape in ((3, 70, 7, 5), (2, 130, 9, 7), (5, 3)):\n"
        "    for dtype in (torch.float32, torch.bfloat16):\n"
        "        x = torch.randn(shape, device='cuda', dtype=dtype, requires_grad=True)\n"
        "        w, b = torch.ones(2, shape[1], device='cuda').unbind(0)\n"
        "        inplace_abn(x, w, b, None, None, True).float().sum().backward()\n"
        "        if x.dim() == 4:\n"
        "            c = torch.randn(shape[1], shape[1], 1, 1, device='cuda')\n"
        "            pointwise_abn(x, c, w, b, None, None, shortcut=x.detach()).float().sum().backward()\n"
    )
    command = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert out.returncode == 0, out.stdout[-2000:] + out.stderr[-2000:]
