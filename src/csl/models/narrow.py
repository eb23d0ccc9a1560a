"""Autocast's casts of a stage's weights together: one operation each way in place of two a convolution."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from csl.ops.casts import cast_all


@contextmanager
def narrowed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Within it the convolutions in a module find their float32 weights in autocast's precision, as autocast would cast them.

    Values and gradients are autocast's, bit for bit, and the parameters are the same ones before and after. Their gradients
    are there when those of all convolutions in the module are. Nothing is done outside training and autocast.
    """
    kind, weights = device.type, []
    if module.training and kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        owners = (part._parameters for part in module.modules() if isinstance(part, nn.Conv2d))
        weights = [(own, own["weight"]) for own in owners if "weight" in own and own["weight"].dtype == torch.float32]
    if not weights:
        yield
        return
    narrow = _Cast.apply(torch.get_autocast_dtype(kind), *(weight for _, weight in weights))
    try:
        for (own, _), weight in zip(weights, narrow, strict=True):
            own["weight"] = weight
        yield
    finally:
        for own, weight in weights:
            own["weight"] = weight


class _Cast(torch.autograd.Function):
    """Tensors of one dtype to another, and their gradients back."""

    @staticmethod
    def forward(ctx, dtype, *tensors):
        ctx.dtype = tensors[0].dtype
        ctx.set_materialize_grads(False)
        return tuple(cast_all(tensors, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        cast = iter(cast_all([g for g in gradients if g is not None], ctx.dtype))
        return None, *(None if g is None else next(cast) for g in gradients)
