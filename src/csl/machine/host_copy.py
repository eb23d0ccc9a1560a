"""Values of a device's tensor on the host, without waiting for what the device has still to do."""

import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor on the host, begun now and read later; on a CPU the tensor itself.

    From a GPU the copy goes into page-locked memory, on the tensor's stream. `Tensor.item` and `Tensor.cpu` would wait for
    everything that was queued there before the call; `values` waits for what was queued before the copy alone.

    Args:
        tensor: whose values; it may be overwritten afterwards on the same stream, on a CPU not before they are read.
    """

    def __init__(self, tensor: Tensor):
        self._values, self._copied = tensor.detach().to("cpu", non_blocking=True), None
        if tensor.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def values(self) -> Tensor:
        """The values, once the copy has arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values
