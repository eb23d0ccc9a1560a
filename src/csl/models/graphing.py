"""`--cuda_graph`: forward and backward of a network as two launches, whatever number of kernels they are of."""

import torch
from torch import Tensor, nn

from csl.errors import InputError, in_words


class GraphedNetwork:
    """A network in training whose kernels are recorded with the first batch, and launched together for those of its shape.

    The host then has next to nothing to do for a step, which pays where it is what the GPU waits for: small batches. The
    memory of a step stays taken. Gradients lie where the next backward writes them: a step has one batch, and the
    optimizer's gradients are set to None before it. Autocast is entered with `cache_enabled=False`. A batch of
    another shape takes the network as it is, as do evaluations, which call the network itself.

    Args:
        model: on a CUDA device, in training mode at the first call.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._graphed: nn.Module | None = None
        self._shape: torch.Size | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] to logits [B, C], which the next call overwrites.

        Raises:
            InputError: the network does what cannot be recorded, such as to look at a value.
        """
        if self._graphed is None:
            self._record(x)
        return self._graphed(x) if x.shape == self._shape else self.model(x)

    def _record(self, x):
        before = [buffer.clone() for buffer in self.model.buffers()]
        try:  # of a module around it: the network's own forward stays
            self._graphed = torch.cuda.make_graphed_callables(nn.Sequential(self.model), (x.clone(),))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise InputError(f"--cuda_graph: this network cannot be recorded ({in_words(error, 120)})") from error
        self._shape = x.shape
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)  # the running statistics have seen the batch in warming up
