"""csl.training.precision: what a CPU trains in, and whether its gradients are right where that is bf16."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from csl import InputError, TrainConfig
from csl.machine import precision as of_machine
from csl.models import create_model
from csl.training import precision
from csl.training.precision import layer_of_wrong_gradients, training_precision
from csl.training.preflight import check_settings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def bf16(monkeypatch):
    """A processor that computes in it."""
    monkeypatch.setattr(of_machine, "cpu_bf16", lambda: "avx512_bf16")


def test_a_processor_trains_depthwise_convolutions_in_float32():
    for name, dtype in (("tresnet_m", torch.bfloat16), ("resnet18", torch.bfloat16), ("mobilenetv3_small_050", None)):
        network = create_model(name, num_classes=3)
        found, why = training_precision("auto", CPU, network, 224)
        assert found == dtype
        assert ("depthwise" in why) == (dtype is None)
        assert training_precision("off", CPU, network, 224) == (None, None)
        assert training_precision("bf16", CPU, network, 224) == (torch.bfloat16, None)


def test_maps_smaller_than_a_kernel_are_trained_in_float32():
    network = create_model("test_resnet", num_classes=3)
    assert layer_of_wrong_gradients(network, 48) is None
    assert layer_of_wrong_gradients(network, 16) == "layer4.0.conv1"
    assert layer_of_wrong_gradients(network, (16, 48)) == "layer4.0.conv1"
    assert training_precision("auto", CPU, network, 16) == (
        None, "in bf16 a CPU gets the gradients of layer4.0.conv1 wrong at 16x16 pixels"
    )  # fmt: skip
    with pytest.raises(
        InputError, match="--amp bf16: at 16x16 pixels the maps of layer4.0.conv1 are smaller than its kernel"
    ):
        training_precision("bf16", CPU, network, 16)
    for name, size in (("tresnet_m", 32), ("convnext_atto", 96)):
        assert layer_of_wrong_gradients(create_model(name, num_classes=3), size) is None
    assert layer_of_wrong_gradients(create_model("convnext_atto", num_classes=3), 64) == "stages.3.blocks.0.conv_dw"
    assert network.training
    assert all(p.device == CPU for p in network.parameters())


def test_it_is_refused_before_a_run_is_moved():
    small = TrainConfig(
        data="set", model_name="test_resnet", image_size=48, progressive_size=16, amp="bf16", device="cpu"
    )
    with pytest.raises(InputError, match="^--amp bf16: at 16x16 pixels"):
        check_settings(small)
    check_settings(replace(small, amp="auto"))


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_in_bf16_are_right_where_nothing_is_said(kernel, stride):
    torch.manual_seed(0)
    for sides, (inputs, outputs) in itertools.product(
        itertools.product((1, 2, 3, 4), repeat=2), ((16, 16), (256, 512))
    ):
        if precision._is_wrong((kernel, kernel), (stride, stride), sides):
            continue
        x = torch.randn(4, inputs, *sides).bfloat16().contiguous(memory_format=torch.channels_last)
        weight = torch.randn(outputs, inputs, kernel, kernel).bfloat16().contiguous(memory_format=torch.channels_last)
        unwritten = [torch.full((1 << n,), float("nan")) for n in range(8, 21)]
        del unwritten  # what a gradient's memory may hold
        found, exact = [], []
        for dtype, gradients in ((torch.bfloat16, found), (torch.float64, exact)):
            leaf = weight.detach().clone().to(dtype).requires_grad_()
            F.conv2d(x.to(dtype), leaf, None, stride, kernel // 2).square().sum().backward()
            gradients.append(leaf.grad.double())
        assert (found[0] - exact[0]).abs().max() <= 0.05 * exact[0].abs().max(), (sides, inputs)
