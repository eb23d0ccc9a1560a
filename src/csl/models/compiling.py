"""`--compile`: torch.compile of a network, refused in one line where this machine cannot."""

import functools

import torch
from torch import nn

from csl.errors import InputError


def compile_network(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Have every later call of `model` run compiled; returns the same module.

    Its state dict and its type stay as they are, and a copy of it is not compiled. The first call takes minutes, and one
    of another kind (training, evaluation, another batch size) takes its own.

    Raises:
        InputError: torch.compile does not work on that device, such as for want of a C++ compiler (CPU) or Triton (GPU).
    """
    check_compiler(device)
    model.compile()
    return model


def check_compiler(device: torch.device | str) -> None:
    """Raise the InputError of `compile_network` where it would."""
    obstacle = _obstacle(torch.device(device).type)
    if obstacle is not None:
        raise InputError(f"--compile: torch.compile does not work here ({obstacle}), expected no --compile")


@functools.cache
def _obstacle(device_type):
    """Why nothing can be compiled for a device, or None: the way to know is to compile something."""
    try:
        found = torch.compile(lambda x: (x * 2 + 1).relu())(torch.ones(8, device=device_type))
        torch.testing.assert_close(found, torch.full_like(found, 3.0))
    except Exception as error:  # a missing compiler, header or package: each its own exception
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:200]
    return None
