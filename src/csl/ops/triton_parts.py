"""What the Triton kernels share: accumulators, rounding, memory layouts, and the device that a launch goes to."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from csl.ops.interpreter import INTERPRETED

ACC = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def store(pointer, value, mask, BY_HAND: tl.constexpr):
    """Store in the pointer's type, rounded to nearest: by hand in Triton's interpreter, which cuts float32 to bfloat16."""
    if BY_HAND:
        bits = value.to(tl.int32, bitcast=True)
        bits = tl.where(value == value, bits + 0x7FFF + ((bits >> 16) & 1), bits) & -0x10000
        value = bits.to(tl.float32, bitcast=True)
    tl.store(pointer, value.to(pointer.dtype.element_ty), mask)


def by_hand(out: Tensor) -> bool:
    """`BY_HAND` of `store` for an output."""
    return out.dtype == torch.bfloat16 and INTERPRETED


def accumulator(x: Tensor) -> torch.dtype:
    """What is computed in: float32, and float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def dense(x: Tensor) -> Tensor:
    """x where it is contiguous or channels-last, else a contiguous copy."""
    return x if is_channels_last(x) else x.contiguous()


def is_channels_last(x: Tensor) -> bool:
    """Whether x [B, C, H, W] lies in memory as rows of channels; for one channel or one pixel it may be both."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def laid_out(x: Tensor, like: Tensor) -> Tensor:
    """x in the layout of a dense tensor."""
    channels_last = is_channels_last(like) and not like.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def tile(channels: int, pixels: int, channels_last: bool, size: int) -> tuple[int, int]:
    """Pixels and channels (powers of 2) of a tile of about `size` elements that lie near each other in memory."""
    if channels_last:
        block_c = min(64, triton.next_power_of_2(channels))
        return min(size // block_c, triton.next_power_of_2(pixels)), block_c
    block_p = min(size // 4, triton.next_power_of_2(pixels))
    return block_p, min(size // block_p // 4, triton.next_power_of_2(channels))


def splits_for(device: torch.device, tiles: int, columns: int) -> int:
    """Programs that share the tiles of each of so many columns: enough to fill the device a few times."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
    return max(1, min(tiles, 4 * processors // max(columns, 1)))


def device_of(x: Tensor) -> torch.cuda.device:
    """Launches go to the current device, which need not be x's: a context manager that makes it so."""
    return torch.cuda.device(x.get_device())
