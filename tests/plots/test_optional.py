"""A picture or an event file that cannot be made is a warning: what it shows is there without it."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from csl.labels import Annotations, LabelMatrix
from csl.plots.optional import drawn, tried
from csl.plots.style import Page
from csl.training.board import Board

COMMANDS = """
import sys
from csl.__main__ import main as run
data, folder, photo = sys.argv[1:]
train = "--model_name test_resnet --image_size 32 --batch_size 8 --epochs 2 --partial_loss_mode selective --prior_path auto "
train += "--prior_epochs 1 --workers 0 --device cpu --augment none --eval_every 1"
assert run(["train", *train.split(), "--data", data, "--path_dest", folder]) == 0
assert run(["validate", "--model_path", folder, "--plots", "--workers", "0"]) == 0
assert run(["infer", "--model_path", folder, "--pic_path", photo, "--workers", "0"]) == 0
"""


def process(code, *args, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.fixture
def data():
    return Annotations([""] * 4, LabelMatrix.from_dense(np.eye(4, dtype=int)), list("abcd"))


def test_every_command_goes_on_without_matplotlib_and_tensorboard(garments, tmp_path):
    for library in ("matplotlib", "tensorboard"):
        (tmp_path / f"{library}.py").write_text("raise ImportError('broken here')")
    run, photo = tmp_path / "run", next((garments / "images").iterdir())
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = process(COMMANDS, garments, run, photo, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    for name in ("last.ckpt", "best.ckpt", "results.json", "validation.csv", "results/predictions.csv"):
        assert (run / name).is_file()
    assert len((run / "log.jsonl").read_text().splitlines()) == 6
    assert not list(run.rglob("*.png"))
    warned = sorted(line.partition(" (")[0] for line in done.stderr.splitlines())
    names = ["labels", "precision_recall", "predictions", "prior", "training"]
    names = [*names, *(f"val_{name}" for name in names[:-1])]
    board = [f"warning: {what}: left out" for what in ("prior of TensorBoard", "predictions of TensorBoard")]
    expected = [f"warning: {run}/plots/{name}.png: left out" for name in names] + 2 * board  # of both stages
    expected += [f"warning: {run}/{folder}: left out" for folder in ("tensorboard", "prior/tensorboard")]
    expected += [f"warning: {run}/{file}.png: left out" for file in ("prior/plots/prior", "results/predictions")]
    expected.append(f"warning: {run}/report.html: left out")  # whose curves it draws
    assert warned == sorted(expected)
    assert "best.ckpt, log.jsonl\n" in done.stdout


def test_tensorboard_on_a_full_disk_warns_once_and_the_backend_of_a_notebook_draws(tmp_path):
    code = """
import os, resource, signal, sys
import numpy as np
from csl.labels import Annotations, LabelMatrix
from csl.training.board import Board
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit raises then
data = Annotations([""] * 4, LabelMatrix.from_dense(np.eye(4, dtype=int)), list("abcd"))
board = Board(sys.argv[1], data, data)
for epoch in (1, 2, 3):
    board.write(epoch, {"loss": 0.5}, np.full(4, 0.1))
    board.write_step(epoch, {"loss": 0.5})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
board.close()
print(os.environ["MPLBACKEND"], file=sys.stderr)
"""
    inline = "module://matplotlib_inline.backend_inline"  # which Jupyter names in all that it starts
    done = process(code, tmp_path / "board", MPLBACKEND=inline)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning:") == 1
    assert f"{tmp_path / 'board'}: left out (OSError: [Errno 27] File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(f"\n{inline}\n")


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path, data):
    (tmp_path / "plots").write_text("")
    board = Board(tmp_path / "plots", data, data)
    with pytest.warns(UserWarning, match="plots: left out"):
        board.write(1, {"loss": 0.5}, np.full(4, 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        board.write(2, {"loss": 0.5}, np.full(4, 0.1))
        board.close()


def test_pictures_fail_one_by_one(tmp_path):
    with pytest.warns(UserWarning, match="b.png: left out .ZeroDivisionError: division by zero.") as warned:
        made = drawn(tmp_path, {"a.png": lambda: Page(1, 1), "b.png": lambda: 1 / 0, "c.png": lambda: Page(1, 1)})
    assert made == [tmp_path / "a.png", tmp_path / "c.png"]
    assert len(warned) == 1


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_the_block(leaving):
    with pytest.raises(leaving), tried("picture"):
        raise leaving
