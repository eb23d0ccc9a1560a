"""The mark of a function whose result a compiler may take for a constant."""

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable)


def assume_constant_result(function: Function) -> Function:
    """`torch.compiler.assume_constant_result` without its import of Dynamo, over a second where nothing is trained."""
    function._dynamo_marked_constant = True
    return function
