"""Tables of results that are written as they come, and go on where a killed job stopped.

While a job is under way everything it has found lies in a folder beside its output, `.NAME.progress`:

    plan.json          what the job is: other images, weights or settings are another job
    0.predictions.csv  rows of rank 0, appended; of Parquet a file for each part, 0.predictions.000000.parquet
    0.bad_images.csv
    0.journal          a line for each point from which it can go on: images done, length of each table

A line of the journal is written once the rows before it are on the disk. A job that starts again cuts every table to what
the last whole line says, which takes away torn lines and rows of images that were under way. At the end the parts of all
ranks are joined into the output, whole or not at all, and the folder goes.
"""

import csv
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from csl.errors import InputError
from csl.machine import distributed
from csl.machine.files import replacing

SECONDS = {".csv": 1.0, ".parquet": 5.0}
"""How long rows wait to be written: a job that is killed does the images of that time again."""

MOST_ROWS = 50_000
"""Rows that wait, at most."""

PREDICTIONS, BAD = "predictions", "bad_images"
SCORE = "score"
"""The column of numbers; all others are text."""


class Results:
    """The tables of one job over N images, in their order; each process of the job has a part of the images.

    Args:
        output: the table of predictions, `.csv` or `.parquet`.
        plan: what the rows depend on, as plain values; a job with another plan starts afresh.
        num_images: N.
        columns: of each table by name; "predictions" goes to `output`, any other NAME to NAME.csv beside it.

    Attributes:
        images: the range of images that are this process's.
        done: how many of these were done before, by a job that was stopped.
        named: how many of the images done could be read.

    Raises:
        InputError: another ending, or another process that is at work on the same output.
    """

    def __init__(
        self, output: str | Path, plan: Mapping[str, Any], num_images: int, columns: Mapping[str, Sequence[str]]
    ):
        self.output = Path(output)
        if self.output.suffix not in SECONDS:
            raise InputError(f"--output {output}: expected a name that ends in .csv or .parquet")
        rank, world = distributed.rank(), distributed.world_size()
        self.images = range(rank * num_images // world, (rank + 1) * num_images // world)
        self.folder = self.output.parent / f".{self.output.name}.progress"
        plan = json.dumps(
            {**plan, "num_images": num_images, "world_size": world, "columns": dict(columns)}, sort_keys=True
        )
        with distributed.main_first():
            if distributed.is_main():
                self._start(plan)
        self._columns = columns
        self._journal = _Journal(self.folder / f"{rank}.journal")
        entry = self._journal.last(lambda entry: self._fits(entry, rank))
        self.done, self.named = (entry["images"], entry["named"]) if entry else (0, 0)
        sizes = entry["sizes"] if entry else {}
        self._tables = {name: self._table(name, rank, sizes.get(name)) for name in columns}
        self._images, self._written = self.done, time.monotonic()

    def path(self, name: str) -> Path:
        """Where a file called `name` goes in the end: beside the output."""
        return self.output.parent / name

    def add(self, rows: Mapping[str, Iterable[Sequence[Any]]], images: int, named: int) -> None:
        """Rows of the next `images` images, of which `named` could be read, by table; they are on the disk soon."""
        for name, some in rows.items():
            self._tables[name].add(some)
        self._images += images
        self.named += named

    def write_if_due(self) -> None:
        """Write what waits if it has waited long enough, or is much, or is the first."""
        waited = time.monotonic() - self._written
        if (
            waited >= SECONDS[self.output.suffix]
            or self._images == len(self.images)
            or self._journal.is_empty
            or any(table.waiting >= MOST_ROWS for table in self._tables.values())
        ):
            self.write()

    def write(self) -> None:
        """Write what waits, and the line from which a later job goes on."""
        sizes = {name: table.write() for name, table in self._tables.items()}
        self._journal.append({"images": self._images, "named": self.named, "sizes": sizes})
        self._written = time.monotonic()

    def finish(self) -> int:
        """Join the parts of all processes into the output; returns how many images could be read, of all processes.

        Every process calls it. Where none could be read nothing is written; the folder goes in any case.
        """
        self.write()
        for table in self._tables.values():
            table.close()
        self._journal.close()
        counts = distributed.gather_objects((self.named, {name: table.rows for name, table in self._tables.items()}))
        named = sum(count for count, _ in counts)
        if distributed.is_main():
            if named:
                for name in self._columns:
                    target = self.output if name == PREDICTIONS else self.path(f"{name}.csv")
                    if name == BAD and not any(rows[name] for _, rows in counts):
                        target.unlink(missing_ok=True)  # of an earlier job
                        continue
                    self._join(name, target, len(counts))
            shutil.rmtree(self.folder)
        distributed.barrier()
        return named

    def _start(self, plan):
        known = self.folder / "plan.json"
        if self.folder.exists() and not (known.is_file() and known.read_text() == plan):
            _Journal(self.folder / "0.journal").close()  # not while another job is at work on it
            shutil.rmtree(self.folder)
        with replacing(known) as temporary:
            temporary.write_text(plan)

    def _kind(self, name):
        return _Parquet if name == PREDICTIONS and self.output.suffix == ".parquet" else _Csv

    def _table(self, name, rank, size):
        return self._kind(name)(self.folder, f"{rank}.{name}", self._columns[name], size)

    def _fits(self, entry, rank):
        """Whether all that a line of the journal speaks of is there."""
        return set(entry["sizes"]) == set(self._columns) and all(
            self._kind(name).length(self.folder, f"{rank}.{name}") >= size[0] for name, size in entry["sizes"].items()
        )

    def _join(self, name, target, world):
        with replacing(target) as temporary:
            self._kind(name).join(
                temporary, self.folder, [f"{rank}.{name}" for rank in range(world)], self._columns[name]
            )


class _Journal:
    """Lines of JSON, of which the last may be torn."""

    def __init__(self, path):
        self._file = open(path, "a+b")  # noqa: SIM115 (closed by `close`)
        _lock(self._file, path)
        self.is_empty = self._file.tell() == 0

    def last(self, fits):
        """The last entry that `fits`, None where there is none; what lies behind it is cut off."""
        self._file.seek(0)
        found, end, position = None, 0, 0
        for line in self._file:
            position += len(line)
            entry = _entry(line)
            if entry is not None and fits(entry):
                found, end = entry, position
        self._file.truncate(end)
        self.is_empty = end == 0
        return found

    def append(self, entry):
        self._file.write(json.dumps(entry).encode() + b"\n")
        _flush(self._file)
        self.is_empty = False

    def close(self):
        self._file.close()


def _entry(line):
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # a block of the file that a power cut left empty, or a stranger's
        return None
    return entry if isinstance(entry, dict) and {"images", "named", "sizes"} <= entry.keys() else None


class _Csv:
    """A CSV file that grows. Its size is (bytes, rows)."""

    def __init__(self, folder, name, columns, size):
        self._file = open(folder / f"{name}.csv", "ab")  # noqa: SIM115 (closed by `close`)
        length, self.rows = size or (0, 0)
        self._file.truncate(length)
        self._file.seek(0, os.SEEK_END)
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self.waiting = 0
        if not length:
            self._writer.writerow(columns)

    def add(self, rows):
        before = self.waiting
        for row in rows:
            self._writer.writerow(row)
            self.waiting += 1
        self.rows += self.waiting - before

    def write(self):
        self._file.write(self._text.getvalue().encode())
        _flush(self._file)
        self._text.seek(0)
        self._text.truncate()
        self.waiting = 0
        return self._file.tell(), self.rows

    def close(self):
        self._file.close()

    @staticmethod
    def length(folder, name):
        path = folder / f"{name}.csv"
        return path.stat().st_size if path.exists() else -1

    @staticmethod
    def join(target, folder, names, columns):
        with open(target, "wb") as out:
            for number, name in enumerate(names):
                with open(folder / f"{name}.csv", "rb") as part:
                    if number:
                        part.readline()  # the header
                    shutil.copyfileobj(part, out, 1 << 20)


class _Parquet:
    """Finished Parquet files, one for each time that rows were written. Its size is (files, rows)."""

    def __init__(self, folder, name, columns, size):
        self._folder, self._name, self._columns = folder, name, columns
        self._parts, self.rows = size or (0, 0)
        for path in self.parts(folder, name)[self._parts :]:
            path.unlink()
        self._rows = []

    @property
    def waiting(self):
        return len(self._rows)

    def add(self, rows):
        before = len(self._rows)
        self._rows.extend(rows)
        self.rows += len(self._rows) - before

    def write(self):
        if self._rows:
            import pyarrow as pa
            import pyarrow.parquet as pq

            schema, columns = self.schema(self._columns), list(zip(*self._rows, strict=True))
            arrays = [
                pa.array([None if value == "" else value for value in column], kind)
                for column, kind in zip(columns, schema.types, strict=True)
            ]
            with replacing(self._folder / f"{self._name}.{self._parts:06d}.parquet") as temporary:
                pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary)
            self._parts += 1
            self._rows = []
        return self._parts, self.rows

    def close(self):
        pass

    @staticmethod
    def schema(columns):
        import pyarrow as pa

        return pa.schema([(column, pa.float64() if column == SCORE else pa.string()) for column in columns])

    @staticmethod
    def parts(folder, name):
        return sorted(folder.glob(f"{name}.*.parquet"))

    @classmethod
    def length(cls, folder, name):
        return len(cls.parts(folder, name))

    @classmethod
    def join(cls, target, folder, names, columns):
        import pyarrow.parquet as pq

        with pq.ParquetWriter(target, cls.schema(columns)) as out:
            for path in (path for name in names for path in cls.parts(folder, name)):
                for batch in pq.ParquetFile(path).iter_batches():
                    out.write_batch(batch)


def fingerprint(texts: Iterable[str]) -> str:
    """A short name of a sequence of texts, whatever its length."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()[:32]


def _flush(file):
    file.flush()
    os.fsync(file.fileno())


def _lock(file, path):
    """Two processes that append to the same tables would ruin them. Where files cannot be locked nothing happens."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{path.parent}: another process is writing there, expected one at a time") from None
    except OSError:  # some network file systems have no locks
        return
