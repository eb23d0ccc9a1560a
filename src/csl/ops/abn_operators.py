"""The parts of `csl.ops.inplace_abn` as a compiled graph calls them: opaque to it, with shapes and layouts known.

What is one number a channel stays in PyTorch's operations there, which the graph's compiler makes one kernel of.
"""

import torch
from torch import Tensor

from csl.ops import abn_triton
from csl.ops.triton_parts import accumulator, dense


def _normalise(x: Tensor, constants: Tensor, bias: Tensor, slope: float, shortcut: Tensor | None = None) -> Tensor:
    return abn_triton.normalise(x, constants, bias, slope, shortcut)


statistics = torch.library.custom_op("csl::abn_statistics", abn_triton.statistics, mutates_args=())
normalise = torch.library.custom_op("csl::abn_normalise", _normalise, mutates_args=())
backward_sums = torch.library.custom_op("csl::abn_backward_sums", abn_triton.backward_sums, mutates_args=())
backward_input = torch.library.custom_op("csl::abn_backward_input", abn_triton.backward_input, mutates_args=())


@statistics.register_fake
def _(x):
    return x.new_empty((3, x.shape[1]), dtype=accumulator(x))


@normalise.register_fake
def _(x, constants, bias, slope, shortcut=None):
    return torch.empty_like(dense(x))


@backward_sums.register_fake
def _(dy, y, bias, slope):
    return y.new_empty((2, y.shape[1]), dtype=accumulator(y))


@backward_input.register_fake
def _(dy, y, bias, coefficients, slope):
    return torch.empty_like(y)
