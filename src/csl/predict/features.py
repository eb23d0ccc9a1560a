"""What a layer of a network takes in, and what the network makes of it, batch by batch."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from csl.data.dataset import BadImage, Batch
from csl.data.prefetch import on_device
from csl.predict.scoring import show_bar, to_input


def with_features(
    model: nn.Module,
    layer: nn.Module,
    loader: DataLoader,
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
    progress: str | None = None,
    bad: list[BadImage] | None = None,
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """The batches of images that can be read, on `device`, each with the network's logits and what the layer took in.

    Args:
        model: images [B, 3, H, W] in [0, 1] to logits [B, C], on `device`; it is in eval mode afterwards.
        layer: of the network, which it calls once.
        loader: yields `csl.data.dataset.Batch`.
        device: where the network is.
        amp_dtype: autocast's precision, None for float32.
        progress: label of the progress bar, None for no bar.
        bad: gets the images that cannot be read.

    Yields:
        The batch; logits [B, C]; the first argument of the layer [B, ...]; both as the network has them.
    """
    taken: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    model.eval()
    bar = tqdm(total=len(loader.dataset), desc=progress, unit="img", leave=False, disable=not show_bar(progress))
    try:
        for batch in on_device(loader, device):
            bar.update(len(batch) + len(batch.bad))
            if bad is not None:
                bad += batch.bad
            if not len(batch):
                continue
            with (
                torch.inference_mode(),
                torch.autocast(device.type, amp_dtype or torch.bfloat16, enabled=amp_dtype is not None),
            ):
                logits = model(to_input(batch.images, device))
            yield batch, logits, taken.pop()
    finally:
        handle.remove()
        bar.close()
