"""The Triton kernels of the selective loss against the plain twin: interpreted, and on a GPU against the CPU."""

import os
import subprocess
import sys

import pytest
import torch
from loss_problems import ALL_MODES, problem, value_and_gradient

from csl.ops import selective_loss

INTERPRETED = """
import itertools, torch
from csl.ops import SelectiveOptions, selective_loss_ref
from csl.ops.selective_triton import on_gpu

torch.manual_seed(0)
modes, topks = (None, "ignore", "ignore_normalize_classes", "selective"), (0, 3, 50)
for mode, scope, topk, clip, focal in itertools.product(modes, ("batch", "sample"), topks, (0.0, 0.05), (False, True)):
    known = (0, 1, 0.5)[topk % 3 if topk else 2]
    for dtype in (torch.float32, torch.bfloat16):
        # in bfloat16, distinct values, as ties are shared by the kernel and drawn by the twin
        logits = (((torch.randperm(65) - 32) / 4).view(5, 13)).to(dtype)
        targets = torch.where(torch.rand(5, 13) < known, torch.randint(0, 2, (5, 13)), -1).to(torch.int8)
        options = torch.rand(13), SelectiveOptions(mode, clip, 0.0, 1.0, 2.5, 1.0, 0.5, 2.0, topk, 0.5, scope, focal)
        x = logits.float().requires_grad_()
        expected = selective_loss_ref(x, targets, *options)
        expected.backward()
        loss, gradient = on_gpu(logits, targets, *options, block=32)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, x.grad, rtol=1e-3, atol=2e-6)
inf, nan = torch.inf, torch.nan
options = None, SelectiveOptions("selective", likelihood_topk=2)
loss, gradient = on_gpu(torch.tensor([[inf, -inf, inf, -inf]]), torch.tensor([[1, 0, 0, 1]]), *options, block=32)
torch.testing.assert_close(loss, -2 * torch.tensor(1e-8).log())
assert not gradient.any()
loss, _ = on_gpu(torch.tensor([[nan, 1.0, 2.0, 3.0]]), torch.tensor([[1, 0, -1, -1]]), *options, block=32)
assert loss.isnan()
loss, tied = on_gpu(torch.tensor([[2.0, 1, 1, 1, 0, 9]]), torch.tensor([[-1, -1, -1, -1, -1, 0]]), *options, block=32)
x, t = torch.tensor([[2.0, 1, 1, 1, 0, 9]]), torch.tensor([[-1, -1, -1, -1, -1, 0]])
_, every = on_gpu(x, t, None, SelectiveOptions(), block=32)
torch.testing.assert_close(tied / every, torch.tensor([[0, 2 / 3, 2 / 3, 2 / 3, 1, 1]]))
"""


def test_triton_kernel_equals_the_plain_twin_when_interpreted():
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", INTERPRETED], env=environment, check=True)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("scope", ["batch", "sample"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_triton_kernel_equals_the_cpu(mode, scope, dtype):
    logits, targets, prior = problem(33, 1001, 7)
    options = {"mode": mode, "topk_scope": scope, "prior": prior.float(), "clip": 0.05, "likelihood_topk": 20}
    # Half precision ties, and the CPU may share where p ties: distinct values that half precision holds.
    logits = logits.float() if dtype == torch.float32 else logits.mul(16).round().div(16)
    options["likelihood_topk"] = 20 if dtype == torch.float32 else 0
    loss, grad = value_and_gradient(lambda x, y: selective_loss(x, y, **options), logits.to(dtype), targets)
    on_device = options | {"prior": prior.float().cuda()}
    found, grad_gpu = value_and_gradient(
        lambda x, y: selective_loss(x, y, **on_device), logits.to(dtype).cuda(), targets.cuda()
    )
    assert found == pytest.approx(loss, rel=1e-4)
    torch.testing.assert_close(grad_gpu.cpu(), grad, rtol=1e-2, atol=1e-5)
