"""csl.ops.selective where no kernel runs: layouts of the input, and the trial run of the kernels."""

import pytest
import torch

from csl.ops import SelectiveOptions, selective_loss, selective_loss_ref
from csl.ops.selective import _compare, _implementation


@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_a_transposed_view_gives_what_its_copy_gives(scope):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=g).T  # [5, 7]
    targets = torch.randint(-1, 2, (5, 7), generator=g)
    options = SelectiveOptions("selective", 0.05, 1.0, 2.0, 4.0, 1.0, 0.5, 0.7, 2, topk_scope=scope)
    for loss in (selective_loss, selective_loss_ref):
        found, copied = (loss(x, targets, None, options) for x in (logits, logits.contiguous()))
        torch.testing.assert_close(found, copied)


def test_the_trial_run_works_in_inference_mode():
    with torch.inference_mode():
        _compare(_implementation(torch.empty(0)), "cpu")
