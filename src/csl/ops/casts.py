"""Many tensors cast by one operation, where a GPU would be given one launch for each."""

from collections.abc import Sequence

import torch
from torch import Tensor


def cast_all(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Copies in another dtype, each in its tensor's layout; without a gradient. A graph's compiler joins casts by itself."""
    if torch.compiler.is_compiling():
        return [tensor.detach().to(dtype) for tensor in tensors]
    out = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if out:
        with torch.no_grad():
            torch._foreach_copy_(out, tensors)
    return out
