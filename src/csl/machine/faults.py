"""What the machine does to a program, in one line: no memory, a dead worker, no deterministic implementation."""

import torch

from csl.errors import InputError, MachineError

_LESS_MEMORY = "a smaller --batch_size (with --grad_accum for the same step) or --image_size, or --amp bf16, needs less"


def as_one_line(error: BaseException) -> InputError | None:
    """The InputError that says what an error means which is nobody's mistake in the code; None for any other.

    MachineError for a GPU or a host without memory, a loader worker that was killed, a file that cannot be written or
    read; InputError for an operation that `--deterministic` rules out.
    """
    text = " ".join(str(error).split())
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


def _is_allocation(text):
    return "can't allocate memory" in text or "not enough memory" in text or "Cannot allocate memory" in text


def _end(text, most=160):
    """The last words, where a worker's error says what it was."""
    return text if len(text) <= most else "... " + text[-most:]
