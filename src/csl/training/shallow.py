"""The blocks of a TResNet that `--shallow_epochs` leaves out at first.

A network learns from scratch what it learns first with a part of its depth as well, in less than half of the time (progressive
stacking, Gong et al., ICML 2019). Here depth changes no output: a block that has learned nothing is its shortcut, as the
weight of its last batch norm starts at 0.
"""

from collections.abc import Iterable

from torch import nn

from csl.models.tresnet import Stage


class LaterBlocks:
    """All blocks but the first of each stage, in `networks` of the same weights: the one in training and its average.

    Left out, they get no gradient, no weight decay and no statistics.

    Attributes:
        are_out: whether they are.
    """

    def __init__(self, networks: Iterable[nn.Module]):
        self.are_out = False
        self._stages = [module for network in networks for module in network.modules() if isinstance(module, Stage)]
        later = [block for stage in self._stages for block in stage[1:]]
        self._weights = [weight for block in later for weight in block.parameters() if weight.requires_grad]

    def leave_out(self, out: bool) -> bool:
        """Leave them out, or not; returns whether that is not as it was."""
        if out == self.are_out:
            return False
        self.are_out = out
        for stage in self._stages:
            stage.is_shallow = out
        for weight in self._weights:
            weight.requires_grad_(not out)
        return True
