"""The file of answers while people answer: each is on the disk before it is confirmed, and a killed process loses none."""

import csv
import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from csl.errors import InputError, MachineError
from csl.labels.reviews import COLUMNS, Review, is_reviews, read_reviews
from csl.labels.trust import escape_cell
from csl.machine.files import locked, replacing


class Answers:
    """The answers in a file, which other processes may write to as well.

    Args:
        file: of answers (`csl.labels.reviews`); it is made with the first one.

    Attributes:
        version: rises whenever the file is found changed by somebody else.

    Raises:
        InputError: the file holds something else.
        MachineError: it cannot be written.
    """

    def __init__(self, file: Path):
        self.file, self.version = file, 0
        self._lock = threading.RLock()  # of this process; `locked` keeps out others
        self._seen: tuple[int, ...] | None = None
        self._reviews: list[Review] = []
        with self._alone():
            self._mend()

    def all(self) -> list[Review]:
        """All answers in the file as it is now, the oldest first."""
        with self._lock:
            if (now := self._status()) != self._seen:
                self._reviews, self._seen = read_reviews(self.file) if now else [], now
                self.version += 1
            return self._reviews

    def add(self, answers: Sequence[tuple[str, str, str, str]]) -> None:
        """Append answers, each an image, a class, an answer and a score, and flush them to the disk.

        Raises:
            MachineError: the disk is full, or the file cannot be written; it is as it was before.
        """
        with self._alone():
            before = self.all()
            # A clock may have been set back, or another one gone ahead, and the newest counts.
            now = datetime.now(UTC)
            when = max(now, before[-1].when) if before else now
            new = [Review(*answer, when) for answer in answers]
            self._append(new)
            before += new
            self._seen = self._status()

    def undo(self, image: str, name: str) -> str | None:
        """Take the newest answer of a question out again; returns the one before it, which counts again, if there is one."""
        with self._alone():
            reviews = self.all()
            *before, last = [None, *(k for k, review in enumerate(reviews) if review[:2] == (image, name))]
            earlier = reviews[before[-1]].answer if before and before[-1] is not None else None
            if last is None:
                return None
            del reviews[last]
            with replacing(self.file) as temporary:
                temporary.write_text(_text([COLUMNS, *map(_row, reviews)]), encoding="utf-8", newline="")
            self._seen = self._status()
            return earlier

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and processes out."""
        try:
            with self._lock, locked(self.file.with_name(f".{self.file.name}.lock"), wait=True):
                yield
        except OSError as error:
            raise MachineError(
                f"{self.file}: cannot be written ({error.strerror}); --reviews FILE names another"
            ) from error

    def _status(self):
        """What changes when the file does; None where there is none."""
        try:
            status = self.file.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _append(self, reviews):
        data = _text([*([] if self._status() else [COLUMNS]), *map(_row, reviews)])
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size, left = os.fstat(descriptor).st_size, memoryview(data.encode())
            try:
                while left:
                    left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # no half of an answer stays
                raise
        finally:
            os.close(descriptor)

    def _mend(self):
        """Check that the file is one of answers, and end its last line: a power cut may have left a part of one."""
        if not self._status():
            return
        data = self.file.read_bytes()
        if data and not is_reviews(self.file):
            raise InputError(
                f"{self.file}: holds no answers, expected {','.join(COLUMNS)}; --reviews FILE names another"
            )
        if not data or data.endswith(b"\n"):
            read_reviews(self.file)
            return
        whole, _, last = data.rpartition(b"\n")
        cells = next(csv.reader([last.decode(errors="replace")]), [])
        kept = data + b"\n" if len(cells) == len(COLUMNS) else whole + b"\n"
        with replacing(self.file) as temporary:
            temporary.write_bytes(kept)
        read_reviews(self.file)


def _row(review):
    when = review.when.astimezone(UTC).isoformat(timespec="milliseconds")
    return [*map(escape_cell, review[:2]), review.answer, review.score, when]


def _text(rows):
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
