"""Tables of infer.py in one folder: jobs at once and one after another; what a person waited for is not replaced unsaid."""

import json
import multiprocessing
import subprocess
import sys
from contextlib import closing

import pytest

from csl import InputError
from csl.inference.tables import BAD, PREDICTIONS, Results

COLUMNS = {PREDICTIONS: ("filename", "class", "score"), BAD: ("filename", "reason")}
SIDE = "attributes_val_inference"
WIDE = COLUMNS | {SIDE: ("filename", "neck")}


def begin(output, plan, count, said, columns=COLUMNS, rows=None):
    """A job that has written `rows` of its rows, all of them by default, and has drawn its picture."""
    job = Results(output, {"of": plan}, count, columns, ["predictions.png"], said.append)
    for i in list(job.images)[job.done : rows]:
        job.add({PREDICTIONS: [(f"{plan}{i}.jpg", "a", 0.5)], **({SIDE: [(plan, i)]} if SIDE in columns else {})})
    job.write()
    job.draft("predictions.png").write_text(f"picture of {plan}")
    return job


def files(folder):
    """{name: first letter of the job that wrote it} of what can be seen in a folder."""
    return {
        path.name: path.read_text().replace("picture of ", "").replace("filename,", "").partition("\n")[2][:1]
        or path.read_text()[-1:]
        for path in folder.iterdir()
        if path.is_file() and path.name[0] != "."
    }


@pytest.mark.parametrize("count", [1000, 5])
def test_the_slower_of_two_jobs_moves_the_table_of_the_faster_aside(tmp_path, count):
    said, output = [], tmp_path / "predictions.csv"
    slow = begin(output, "B", count, said, rows=count // 2)
    begin(output, "C", 2000, said).finish()
    assert files(tmp_path) == {"predictions.csv": "C", "predictions.png": "C"}
    for i in range(count // 2, count):
        slow.add({PREDICTIONS: [(f"B{i}.jpg", "a", 0.5)]})
    slow.finish()
    (aside,) = tmp_path.glob("earlier-*")
    assert said == [f"the table of other images that was {output} is now in {aside}"]
    assert files(tmp_path) == {"predictions.csv": "B", "predictions.png": "B"}
    assert files(aside) == {"predictions.csv": "C", "predictions.png": "C"}
    assert json.loads((tmp_path / ".predictions.plan").read_text())["images"] == count
    assert not list(tmp_path.glob(".*.progress"))


def test_jobs_that_end_at_once_keep_every_table(tmp_path):
    def end(plan):
        job = begin(tmp_path / "out.csv", plan, 20, said := [])
        barrier.wait()
        job.finish()
        tell.put("".join(said))

    fork = multiprocessing.get_context("fork")
    barrier, tell = fork.Barrier(4), fork.SimpleQueue()
    jobs = [fork.Process(target=end, args=plan) for plan in "ABCD"]
    for job in jobs:
        job.start()
    said = sorted(tell.get() for _ in jobs)
    for job in jobs:
        job.join()
    assert [line.count(" is now in ") for line in said] == [0, 1, 1, 1]
    places = [tmp_path, *tmp_path.glob("earlier-*")]
    assert sorted(files(place)["out.csv"] for place in places) == ["A", "B", "C", "D"]
    assert all(len({*files(place).values()}) == 1 for place in places)  # each with its own picture


def test_all_files_of_a_job_move_aside_also_those_that_the_next_one_has_not(tmp_path):
    said, output = [], tmp_path / "predictions.csv"
    begin(output, "A", 1000, said, WIDE).finish()
    begin(output, "S", 1, said).finish()
    begin(output, "D", 1000, said, WIDE).finish()
    (aside,) = tmp_path.glob("earlier-*")
    assert files(aside) == dict.fromkeys(("predictions.csv", f"{SIDE}.csv", "predictions.png"), "A")
    assert files(tmp_path) == dict.fromkeys(("predictions.csv", f"{SIDE}.csv", "predictions.png"), "D")
    assert len(said) == 2


def test_a_side_file_that_somebody_changed_is_kept(tmp_path):
    said, output = [], tmp_path / "predictions.csv"
    for _ in range(2):
        begin(output, "A", 5, said, WIDE).finish()
        (tmp_path / f"{SIDE}.csv").write_text("corrected")
    (aside,) = tmp_path.glob("earlier-*")
    assert (aside / f"{SIDE}.csv").read_text() == "corrected"
    assert said == [f"what others or an earlier version wrote that was {output} is now in {aside}"]


@pytest.mark.parametrize("name", ["predictions", "foo"])
def test_csv_and_parquet_of_one_name_share_their_side_files(tmp_path, name):
    said = []
    table, other = tmp_path / f"{name}.csv", tmp_path / f"{name}.parquet"
    begin(table, "A", 1000, said, WIDE).finish()
    begin(other, "A", 1000, said, WIDE).finish()  # the same rows: the files beside are those of both
    assert {table.name, other.name} <= {path.name for path in tmp_path.iterdir()}
    assert said == []
    begin(other, "D", 1000, said, WIDE).finish()
    (aside,) = tmp_path.glob("earlier-*")
    assert said == [f"the table of other images that was {table} is now in {aside}"]
    prefix = "" if name == "predictions" else f"{name}_"
    beside = {f"{prefix}{SIDE}.csv", f"{prefix}predictions.png"}
    assert {path.name for path in aside.iterdir()} == {table.name, other.name} | beside
    assert {path.name for path in tmp_path.iterdir() if path.is_file() and path.name[0] != "."} == {other.name} | beside
    assert (aside / table.name).read_text().splitlines()[1].startswith("A")


def test_the_same_command_is_refused_while_the_first_joins_its_parts(tmp_path):
    output, answers = tmp_path / "predictions.csv", []
    fork = multiprocessing.get_context("fork")
    tell = fork.SimpleQueue()

    def again():
        try:
            Results(output, {"of": "A"}, 50, COLUMNS)
        except InputError as error:
            tell.put(str(error))
        else:
            tell.put("started")

    class Slow(Results):
        def _join(self, name, target):
            super()._join(name, target)
            second = fork.Process(target=again)
            second.start()
            answers.append(tell.get())
            second.join()

    job = Slow(output, {"of": "A"}, 50, COLUMNS)
    for i in range(50):
        job.add({PREDICTIONS: [(f"{i}.jpg", "a", 0.5)]})
    assert job.finish() == 50
    assert len(answers) == 2
    assert all("is at work in this folder" in answer for answer in answers)
    assert len(output.read_text().splitlines()) == 51
    assert not list(tmp_path.glob(".*.progress"))


@pytest.mark.parametrize(
    "record",
    [
        '{"plan": "0123456789abcdef", "images": 1, "table": [1, 2]}\n',  # of an earlier version
        '{"plan": 1, "images": "x", "files": [1]}\n',
        '{"plan": 1, "images": 1, "files": {"../own.csv": [1, 2], "..": 1, "predictions.csv": 3}}\n',
        "\0\0",
    ],
)
def test_tables_whose_record_is_old_or_broken_are_moved_aside(tmp_path, record):
    folder, said = tmp_path / "results", []
    folder.mkdir()
    (tmp_path / "own.csv").write_text("own")
    (folder / "predictions.csv").write_text("x")
    (folder / ".predictions.csv.plan").write_text(record)
    (folder / ".predictions.plan").write_text(record)
    begin(folder / "predictions.csv", "A", 3, said).finish()
    (aside,) = folder.glob("earlier-*")
    assert [path.name for path in aside.iterdir()] == ["predictions.csv"]
    assert (tmp_path / "own.csv").read_text() == "own"
    assert said[0].startswith("what others or an earlier version wrote that was ")


@pytest.mark.parametrize("of_earlier_version", [False, True])
def test_an_unfinished_table_survives_another_number_of_processes(tmp_path, monkeypatch, of_earlier_version):
    said, output = [], tmp_path / "predictions.csv"

    def start(rank, world, rows=None):
        monkeypatch.setattr("csl.machine.distributed.rank", lambda: rank)
        monkeypatch.setattr("csl.machine.distributed.world_size", lambda: world)
        with closing(begin(output, "A", 1000, said, rows=rows)) as job:
            return job.folder, job.done

    folder, _ = start(0, 2, 400)
    start(1, 2, 400)
    if of_earlier_version:
        folder.rename(tmp_path / folder.name.replace(".2.progress", ".progress"))
    assert start(0, 1, 5)[1] == 0
    assert said == [f"{folder}: unfinished, by another number of processes; that number would go on with it"]
    assert [start(rank, 2, 400)[1] for rank in (0, 1)] == [400, 400]
    assert start(0, 1, 5)[1] == 5


def test_a_disk_that_is_full_is_named_and_the_job_goes_on_later(tmp_path):
    output = tmp_path / "predictions.csv"
    code = """
import resource, signal, sys
from contextlib import closing
from csl.inference.tables import PREDICTIONS, Results
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit raises then
with closing(Results(sys.argv[1], {"of": "A"}, 3, {PREDICTIONS: ("filename", "class", "score")})) as job:
    for i in range(3):
        job.add({PREDICTIONS: [(f"A{i}.jpg", "a", 0.5)]})
        job.write()
        limit = sum(part.stat().st_size for part in job.folder.iterdir()) + 9
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
"""
    done = subprocess.run([sys.executable, "-c", code, output], capture_output=True, text=True)
    line = f"MachineError: {output}: cannot be written (File too large); the same command goes on where it stopped"
    assert done.stderr.splitlines()[-1] == f"csl.errors.{line}"
    with closing(Results(output, {"of": "A"}, 3, {PREDICTIONS: COLUMNS[PREDICTIONS]})) as job:
        assert 0 < job.done < 3
