"""The mark of a constant result is the one of the installed PyTorch, and a compiled function takes it for one."""

import torch

from csl.ops.constant import assume_constant_result


def test_the_mark_is_that_of_pytorch():
    def ours(): ...
    def theirs(): ...

    assert vars(assume_constant_result(ours)) == vars(torch.compiler.assume_constant_result(theirs)) != {}


def test_a_compiled_function_takes_the_result_for_a_constant():
    calls = []

    @assume_constant_result
    def opaque() -> float:
        calls.append(None)  # a graph that traced it would do this at every call
        return 2.0

    double = torch.compile(lambda x: x * opaque(), backend="eager", fullgraph=True)
    x = torch.ones(3)
    assert [double(x).tolist() for _ in range(3)] == [[2.0] * 3] * 3
    assert len(calls) == 1
