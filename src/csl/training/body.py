"""The part of a network before its head, which `--frozen_epochs` leaves as it is at first."""

from torch import nn

from csl.checkpoint.network import head_filter


class Body:
    """What of `model` is not its head: weights that it starts from, which a head of random weights would spoil.

    Frozen, it gets no gradients and no statistics of its batch norms, so that a step is little more than a forward pass.

    Attributes:
        is_frozen: whether it is.
    """

    def __init__(self, model: nn.Module):
        is_head = head_filter(model)
        self.is_frozen = False
        self._modules = [module for name, module in model.named_modules() if not is_head(f"{name}.")]
        self._weights = [p for name, p in model.named_parameters() if p.requires_grad and not is_head(name)]

    def freeze(self, frozen: bool) -> bool:
        """Freeze it, or not, in a model that is in training mode; returns whether that is not as it was."""
        changed, self.is_frozen = frozen != self.is_frozen, frozen
        for module in self._modules if frozen else ():
            module.training = False
        for weight in self._weights:
            weight.requires_grad_(not frozen)
        return changed
