"""Copy batches to the device; on a GPU the next copy overlaps the work on the present batch."""

from collections.abc import Iterable, Iterator

import torch

from csl.data.dataset import Batch


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches of a loader, in order, with images, targets and draws on `device`; `indices` stay on the host.

    On a CPU they pass through. On a GPU a batch is fetched from the loader, and its copy begins on a stream of its own,
    once the work on the batch before has been issued: with page-locked batches (`Batch.pin_memory`), the copy and that
    work overlap as long as the caller does not wait for its results before it asks for the next batch.

    A caller may stop at any time; at most one batch has been taken from the loader that was not handed out.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(copies):
            batch = batch.to(device)
        present = torch.cuda.current_stream(device)
        present.wait_stream(copies)
        batch.record_stream(present)  # else its memory could be given to the next copy before this stream is done
        yield batch
