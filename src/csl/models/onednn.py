"""Convolution with bias, addition and activation in one pass on a CPU, by PyTorch's private oneDNN operators.

`torch.compile` freezes a CPU network to the same operators. They are no documented interface, so a small convolution is
tried once for each dtype, and where it is missing or wrong, `OneDNNConv.takes` says no.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


class OneDNNConv:
    """act(conv(x) + bias + other) of stride 1; remembers the weight as the last call wanted it, by dtype and layout."""

    def __init__(self):
        self._weights, self._made_for = None, None

    def takes(self, x: Tensor) -> bool:
        """Whether these operators can run on x [B, C, H, W]: on a CPU, without gradient, in no graph being captured."""
        return x.device.type == "cpu" and not _is_recorded(x) and _runs(_dtype_of(x))

    def cast(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, weight and bias for `F.conv2d` where `takes` says no: in one dtype, the weight cast once for many calls."""
        if _is_recorded(x):
            return x, weight, bias
        dtype = _dtype_of(x)
        return x.to(dtype), *self._prepared(weight, bias, dtype, x.device.type, lambda cast: cast)

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        padding: int,
        activation: str,
        slope: float,
        other: Tensor | None = None,
    ) -> Tensor:
        """x [B, in, H, W], weight [out, in, k, k], bias [out] and other [B, out, H, W] or None -> [B, out, H, W].

        activation: "none", "relu", or, without `other`, "leaky_relu" of `slope`. `other` may be overwritten.
        """
        x = _channels_last(x, _dtype_of(x))
        geometry = [padding, padding], [1, 1], [1, 1], 1

        def lay_out(cast):
            return torch.ops.mkldnn._reorder_convolution_weight(cast, *geometry, list(x.shape))

        place = *self._prepared(weight, bias, x.dtype, tuple(x.shape), lay_out), *geometry
        scalars = [slope] if activation == "leaky_relu" else []
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *place, activation, scalars, "")
        act = None if activation == "none" else activation
        other = _channels_last(other, x.dtype)
        return torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *place, "add", 1.0, act, scalars, "")

    def _prepared(self, weight, bias, dtype, layout, lay_out):
        """Weight, laid out, and bias in `dtype`: made anew when either or the layout's key has changed."""
        version = None if weight.is_inference() else weight._version
        wanted = (dtype, layout, weight.data_ptr(), version)
        if self._made_for != wanted:
            self._weights, self._made_for = (lay_out(weight.to(dtype)), bias.to(dtype)), wanted
        return self._weights

    def __getstate__(self):
        return {"_weights": None, "_made_for": None}  # oneDNN's layout cannot be copied


def _is_recorded(x):
    """Whether a graph is being captured, or autograd follows x."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or (x.requires_grad and torch.is_grad_enabled())


def _dtype_of(x):
    """The dtype that a convolution of x computes in, autocast considered."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _channels_last(x, dtype):
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


@functools.cache
def _runs(dtype):
    """Whether the operators exist here and give what `F.conv2d` gives in `dtype`."""
    if not torch.backends.mkldnn.is_available() or dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    ramp = torch.arange(4 * 16.0).view(1, 16, 2, 2).to(dtype) / 64 - 0.5
    weight, bias = torch.ones(16, 16, 1, 1, dtype=dtype) / 16, torch.ones(16, dtype=dtype) / 4
    try:
        alone = OneDNNConv()(ramp, weight, bias, 0, "leaky_relu", 0.5)
        added = OneDNNConv()(ramp, weight, bias, 0, "relu", 0.0, ramp.clone())
    except (AttributeError, RuntimeError, TypeError):
        return False
    plain = F.conv2d(ramp.float(), weight.float(), bias.float())
    expected = F.leaky_relu(plain, 0.5), F.relu(plain + ramp)
    return all(
        a.dtype == dtype and torch.allclose(a.float(), e.float(), atol=0.02)
        for a, e in zip((alone, added), expected, strict=True)
    )
