"""One-line messages for machine faults: no memory, a dead worker, a full disk, no deterministic implementation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from csl.errors import InputError, MachineError, in_words

_LESS_MEMORY = "a smaller --batch_size (with --grad_accum for the same step) or --image_size, or --amp bf16, needs less"


def as_one_line(error: BaseException) -> InputError | None:
    """Translate an error that is not a bug into a one-line InputError; None for any other error.

    MachineError for a GPU or a host without memory, a loader worker that was killed, a file that cannot be written or
    read; InputError for an operation that `--deterministic` rules out.
    """
    text = in_words(error, 10_000)
    if isinstance(error, torch.OutOfMemoryError):
        return MachineError(f"CUDA out of memory: {_LESS_MEMORY} ({text[:160]})")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_allocation(text)):
        return MachineError(f"out of memory: {_LESS_MEMORY}; fewer --workers, too ({_end(text) or 'MemoryError'})")
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return MachineError(
            f"a process that decodes images died; where memory is short fewer --workers help ({text[:200]})"
        )
    if isinstance(error, RuntimeError) and "deterministic" in text and "CUBLAS" not in text:
        return InputError(f"--deterministic: {text[:200]}")
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return MachineError(f"{place}{error.strerror or text}")
    return None


@contextmanager
def in_one_line(where: Callable[[], str]) -> Iterator[None]:
    """Raise the machine faults of the block as the errors of `as_one_line`, each with `where()` at its end.

    Args:
        where: says how far the work had come and where its last saved state is.
    """
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        line = as_one_line(error)
        if line is None:
            raise
        raise type(line)(f"{line}; {where()}") from error


def _is_allocation(text):
    return "can't allocate memory" in text or "not enough memory" in text or "Cannot allocate memory" in text


def _end(text, most=160):
    """The last `most` characters: the end of a worker's traceback names the error."""
    return text if len(text) <= most else "... " + text[-most:]
