"""Networks exported for an engine, kept beside their checkpoint with what was proved of them."""

import glob
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from csl.engines.exported import NotInstalled
from csl.errors import InputError, MachineError
from csl.machine.files import parse_json, replacing, write_json
from csl.runs.folder import ENGINES

FORM = 1  # goes up when the same checkpoint is exported in another way


class KeptExport:
    """The exported file of a checkpoint, made once: NAME.HEIGHTxWIDTH.KEY.onnx and what is known of it, .json.

    KEY is a hash of the network's tensors, as they were loaded, and of all else that the file depends on, so that the file of
    another network is never taken for this one's; such a file is removed when this one is written. Where the folder cannot
    be written, a temporary one holds the file for as long as this object is open.

    Args:
        checkpoint: its file, which may have changed since.
        model: the network, as it was loaded.
        height_width: (H, W) of the images.
        settings: what else the network depends on, as plain values.
        write: writes the exported file.

    Attributes:
        file: the exported file.
        proofs: engine -> its difference from PyTorch, or why it will not do.

    Raises:
        InputError: `write` said so, now or before.
    """

    def __init__(
        self,
        checkpoint: Path,
        model: nn.Module,
        height_width: tuple[int, int],
        settings: Mapping[str, object],
        write: Callable[[Path], None],
    ):
        self._scratch = ExitStack()
        depends_on = [FORM, version("csl"), version("timm"), torch.__version__, height_width, dict(settings)]
        digest = hashlib.sha256(json.dumps(depends_on).encode())
        for place, tensor in model.state_dict().items():
            digest.update(f"{place} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        size = "x".join(map(str, height_width))
        name = f"{checkpoint.name}.{size}.{digest.hexdigest()[:16]}"
        self.file = checkpoint.parent / ENGINES / f"{name}.onnx"
        self.proofs: dict[str, float | str] = {}
        self._failure: str | None = None
        self._read()
        if self._failure is not None:
            raise InputError(self._failure)
        if self._is_whole:
            return
        try:
            self._write(write)
            for other in self.file.parent.glob(f"{glob.escape(f'{checkpoint.name}.{size}.')}*"):
                if not other.name.startswith(f"{name}."):
                    other.unlink(missing_ok=True)
        except (OSError, InputError) as error:
            if not isinstance(error.__cause__ or error, OSError):
                raise
            scratch = self._scratch.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            self.file = Path(scratch, self.file.name)
            self._write(write)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._scratch.close()

    @property
    def place(self) -> str:
        """Where the file is kept, in words."""
        folder = self.file.parent
        return f"kept in {folder}" if folder.name == ENGINES else f"not kept: {ENGINES}/ beside it cannot be written"

    def add_proof(self, engine: str, found: float | str) -> None:
        """Keep what was found of an engine."""
        self.proofs[engine] = found
        self._write_record()

    def _write(self, write):
        self.proofs = {}
        try:
            with replacing(self.file) as temporary:
                write(temporary)
        except InputError as error:
            if not isinstance(error, NotInstalled | MachineError):
                self._failure = str(error)
                self._write_record()
            raise
        self._write_record()

    def _write_record(self):
        record = {"sha256": _digest(self.file), "proofs": self.proofs, "failure": self._failure}
        with suppress(OSError, InputError):  # a folder that cannot be written: it is found out again next time
            write_json(self.file.with_suffix(".json"), record)

    def _read(self):
        """Read what is known of the file, if that is there as it was written."""
        record, self._is_whole = self.file.with_suffix(".json"), False
        try:
            content = parse_json(record.read_bytes(), record)
            self._is_whole = content["sha256"] == _digest(self.file) is not None
            self._failure = content["failure"]
            self.proofs = {how: f if isinstance(f, str) else float(f) for how, f in content["proofs"].items()}
        except (OSError, InputError, KeyError, TypeError, ValueError, AttributeError):  # none, or none of ours
            self._is_whole = False


def _digest(file):
    """Of the file's content; None where there is no file."""
    try:
        with open(file, "rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return None
