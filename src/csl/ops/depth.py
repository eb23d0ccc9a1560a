"""Space-to-depth: TResNet's stem trades 4x4 pixels for channels without losing any."""

from torch import Tensor


def space_to_depth(x: Tensor, block: int = 4) -> Tensor:
    """Move every `block` x `block` patch into the channels: [B, C, H, W] -> [B, block^2 C, H/block, W/block].

    Output channel (block row + column) C + c holds channel c of the pixel at (row, column) of its patch, the order of
    TResNet (arXiv 2003.13630, section 2.2). It is not the order of `torch.nn.functional.pixel_unshuffle`, which puts
    c first. A channels-last input gives a channels-last output with a single copy.
    """
    batch, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1)  # [B, H, W, C], free where the input is channels-last
    x = x.reshape(batch, height // block, block, width // block, block, channels)
    x = x.transpose(2, 3)  # [B, H/4, W/4, row, column, C]
    x = x.reshape(batch, height // block, width // block, block * block * channels)
    return x.permute(0, 3, 1, 2)  # [B, 16 C, H/4, W/4], channels-last in memory
