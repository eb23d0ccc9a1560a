"""Tables of results that are written image by image; a job that is killed goes on where it stopped.

While a job runs, each process appends to a file of its own, `.NAME.PLAN.progress/RANK.jsonl` beside the output NAME. PLAN is a
hash of all that the rows depend on, and the number of processes if there are several: other jobs have other folders. The first
line is the plan. Each further line holds the rows of one image, table -> rows, in the order of the images. The same job goes
on after the last whole line. At the end the files of all processes are joined into tables in the folder, these are moved to
their places, and the folder goes. `.STEM.plan`, one of NAME.csv and NAME.parquet, which share their other files, tells of
which plan the files there are, and how each was written last: those of another one, or changed since, are not overwritten but
moved aside.
"""

import csv
import glob
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from csl.errors import InputError, MachineError
from csl.machine import distributed
from csl.machine.files import flush_folder, locked, replacing, set_aside, write_json

SUFFIXES = (".csv", ".parquet")
SMALL = 12
"""Images of a table that is replaced by that of another job: nobody waited for it."""

PREDICTIONS, BAD = "predictions", "bad_images"
SCORE = "score"
"""The column of numbers; all others are text."""


class Results:
    """The tables of one job over N images, in their order; each process of the job has a part of the images.

    Args:
        output: the table of predictions, `.csv` or `.parquet`.
        plan: all that the rows depend on, as plain values; a job with another plan starts afresh.
        num_images: N.
        columns: of each table by name; "predictions" goes to `output`, any other NAME to `path(NAME.csv)`.
        others: names of other files of the job beside the output, such as pictures, which it writes to their `draft`.
        say: told where tables of another plan are moved.

    Attributes:
        images: the range of images that are this process's.
        done: how many of these were done before, by a job that was stopped.
        named: how many of this process's images so far could be read.

    Raises:
        InputError: another ending, or another process that is at work on the same output.
    """

    def __init__(
        self,
        output: str | Path,
        plan: Mapping[str, Any],
        num_images: int,
        columns: Mapping[str, Sequence[str]],
        others: Sequence[str] = (),
        say: Callable[[str], None] = print,
    ):
        self.output = Path(output)
        if self.output.suffix not in SUFFIXES:
            raise InputError(f"--output {output}: expected a name that ends in .csv or .parquet")
        rank, world = distributed.rank(), distributed.world_size()
        self.images = range(rank * num_images // world, (rank + 1) * num_images // world)
        plan = {**plan, "num_images": num_images, "columns": dict(columns)}
        self._plan = {"plan": hashlib.sha256(_line(plan)).hexdigest()[:16], "images": num_images}
        self.folder = self._folder_of(world)
        self._columns, self._say = columns, say
        self._tables = {name: self.output if name == PREDICTIONS else self.path(f"{name}.csv") for name in columns}
        self._others = [self.path(name) for name in others]
        self._lock = self.output.with_name(f".{self.output.stem}.lock")
        self._open = ExitStack()
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock, wait=True):  # else the folder may go before its lock is held
            before = len(list(self._folder_of(1).glob("*.jsonl")))
            if before > 1 and not self._folder_of(before).exists():  # an earlier version had one folder for all numbers
                self._folder_of(1).rename(self._folder_of(before))
            for other in self.output.parent.glob(f".{glob.escape(self.output.name)}.{self._plan['plan']}*.progress"):
                if other != self.folder:
                    say(f"{other}: unfinished, by another number of processes; that number would go on with it")
            self.folder.mkdir(exist_ok=True)
            self._open.enter_context(locked(self.folder / f"{rank}.lock"))
        self._file = self._open.enter_context(open(self._part(rank), "a+b"))  # noqa: SIM115 (closed by the stack)
        self.done, self.named = self._go_on({**plan, "world_size": world})
        self._waiting: list[bytes] = []

    def path(self, name: str) -> Path:
        """Where a file called `name` goes: beside the output, with its name before it unless that is predictions.csv."""
        stem = self.output.stem
        return self.output.parent / (name if stem == PREDICTIONS else f"{stem}_{name}")

    def draft(self, name: str) -> Path:
        """Where the job writes the file that goes to `path(name)` at the end."""
        return self.folder / self.path(name).name

    def add(self, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Add the rows of the next image by table. An image without rows of predictions could not be read."""
        self._waiting.append(_line(rows))
        self.named += bool(rows.get(PREDICTIONS))

    def write(self) -> None:
        """Write the rows that were added; a later job goes on behind them.

        Raises:
            MachineError: the disk is full, or the folder is gone.
        """
        try:
            self._file.write(b"".join(self._waiting))
            self._file.flush()
        except OSError as error:
            self._file.raw.close()  # else what is left in the buffer is tried again, and fails without a name
            raise MachineError(
                f"{self.output}: cannot be written ({error.strerror}); the same command goes on where it stopped"
            ) from error
        self._waiting.clear()

    def finish(self) -> int:
        """Join the parts of all processes into the tables; returns how many images could be read, of all processes.

        Every process calls it. If no image could be read, no table is written; the folder goes in any case.
        """
        self.write()
        self._file.close()
        if not distributed.is_main():
            self.close()
        named = sum(distributed.gather_objects(self.named))
        if distributed.is_main():
            for name, path in self._tables.items() if named else ():
                self._join(name, self.folder / path.name)
            with locked(self._lock, wait=True):
                if named:
                    self._place()
                self.close()
                shutil.rmtree(self.folder)
        distributed.barrier()
        return named

    def close(self) -> None:
        """Let another process work on the output."""
        self._open.close()

    def _folder_of(self, world):
        plan = self._plan["plan"] + (f".{world}" if world > 1 else "")
        return self.output.parent / f".{self.output.name}.{plan}.progress"

    def _part(self, rank):
        return self.folder / f"{rank}.jsonl"

    def _go_on(self, plan):
        """(images done, images that could be read) of an earlier job of this plan; what else the file holds is cut."""
        self._file.seek(0)
        plan, end, done, named = _line(plan), 0, 0, 0
        if self._file.readline() == plan:
            end = len(plan)
            for line in self._file:
                rows = _rows(line)
                if rows is None:  # torn: the process was killed while it wrote this line
                    break
                end, done, named = end + len(line), done + 1, named + bool(rows.get(PREDICTIONS))
        self._file.truncate(end)
        if not end:
            self._file.write(plan)
        return done, named

    def _place(self):
        """Move the files of the job to their places. What is there is replaced if it is a table of the same plan, or one of
        up to `SMALL` images, which took seconds, with no file that would stay beside the new ones; else it is moved aside.
        """
        ours = [*self._tables.values(), *self._others]
        written = {path.name: _stamp(self.folder / path.name) for path in ours if (self.folder / path.name).exists()}
        record = self.output.with_name(f".{self.output.stem}.plan")
        before = (_rows(record.read_bytes()) if record.is_file() else None) or {}
        known = before.get("files")
        known = (
            {n: s for n, s in known.items() if Path(n).name == n and Path(n).suffix} if isinstance(known, dict) else {}
        )
        names = dict.fromkeys([*known, *(path.name for path in ours)])
        here = [path for name in names if (path := self.output.with_name(name)).exists()]
        untouched = all(known.get(path.name) == _stamp(path) for path in here)
        images, same = before.get("images"), before.get("plan") == self._plan["plan"]
        replaced = {*written} | ({f"{self.output.stem}{suffix}" for suffix in SUFFIXES} if same else set())
        small = isinstance(images, int) and images <= SMALL
        what = "the table of the same images and settings" if same else "the table of other images"
        if untouched and (same or small) and {path.name for path in here} <= replaced:
            if self.output in here:
                self._say(f"{self.output}: replaces {what if same else f'the table of {images:,} other images'}")
        elif here:
            what = what if untouched else "what others or an earlier version wrote"
            self._say(f"{what} that was {here[0]} is now in {set_aside(here)}")
        kept = {path.name: known[path.name] for path in here if path.exists()}
        write_json(record, {**self._plan, "files": kept | written})  # before they move: a kill between loses nothing
        for name in written:
            (self.folder / name).replace(self.output.with_name(name))
        flush_folder(self.output.parent)

    def _join(self, name, target):
        if name == BAD and not any(self._all_rows(name)):
            return
        with replacing(target) as temporary:
            as_csv = temporary if target.suffix == ".csv" else self.folder / "table.csv"
            with open(as_csv, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(self._columns[name])
                writer.writerows(self._all_rows(name))
            if target.suffix == ".parquet":
                _convert(as_csv, temporary, self._columns[name])

    def _all_rows(self, name) -> Iterator[Sequence[Any]]:
        for rank in range(distributed.world_size()):
            with open(self._part(rank), "rb") as file:
                next(file)  # the plan
                for line in file:
                    yield from json.loads(line).get(name, ())


def _stamp(file):
    """Size and time of change of a file."""
    return [file.stat().st_size, file.stat().st_mtime_ns]


def _line(content):
    return json.dumps(content, sort_keys=True).encode() + b"\n"


def _rows(line):
    """Table -> rows of one image; None if the line is torn, or a block that a power cut left empty."""
    try:
        rows = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return rows if isinstance(rows, dict) else None


def _convert(source, target, columns):
    """Convert a CSV file to Parquet; empty cells become nulls."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    reader = pyarrow.csv.open_csv(
        source,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={column: pa.float64() if column == SCORE else pa.string() for column in columns},
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    with reader, pq.ParquetWriter(target, reader.schema) as out:
        for batch in reader:
            out.write_batch(batch)
