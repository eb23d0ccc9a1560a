"""The commands that messages tell a person to run: each works as it is printed."""

import shlex
import sys
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from test_readme_data import attributes, nuswide

from csl.__main__ import main
from csl.machine.invocation import command
from csl.models import create_model
from csl.runs.config import TrainConfig
from csl.training.experiment import train

ROOT = Path(__file__).parents[2]
TINY = {
    "model_name": "test_resnet",
    "image_size": 32,
    "batch_size": 8,
    "workers": 0,
    "device": "cpu",
    "augment": "none",
}


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        ("train.py", "python train.py --data 'my photos'"),
        (f"{ROOT}/train.py", f"python {ROOT}/train.py --data 'my photos'"),
        (f"{ROOT}/infer.py", f"python {ROOT}/train.py --data 'my photos'"),
        ("/usr/bin/csl", "csl train --data 'my photos'"),
        (f"{ROOT}/src/csl/__main__.py", "python train.py --data 'my photos'"),
    ],
)
def test_a_command_is_written_as_the_program_was_started(started, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [started])
    with chdir(ROOT):
        assert command("train", "--data", "my photos") == expected
    with chdir(ROOT / "tests"):  # where there is no script
        if not Path(started).is_absolute() or "__main__" in started:
            assert command("train") == "python -m csl train"


def run_printed(text, more=()):
    """Run a command as it was printed, `python -m csl NAME ...`, in this process."""
    words = shlex.split(text)
    assert words[:3] == ["python", "-m", "csl"]
    assert main([*words[3:], *more]) == 0


@pytest.mark.parametrize("path_dest", ["outputs", "runs/my first", "-dash", "outputs/blank "])
def test_what_a_run_prints_next_works(garments, tmp_path, path_dest, no_pictures):
    flags = ["-j", "0", "--device", "cpu"]
    said = []
    with chdir(tmp_path):
        Path(path_dest).parent.mkdir(exist_ok=True)
        train(TrainConfig(**TINY, data=str(garments), path_dest=path_dest, epochs=1), said.append)
        line = next(line for line in said if line.startswith("next: "))
        validate, infer, board = line.removeprefix("next: ").split("    ")
        run_printed(validate, flags)
        run_printed(infer, flags)
        assert shlex.split(board) == ["tensorboard", "--logdir", "./-dash" if path_dest == "-dash" else path_dest]
        assert (tmp_path / path_dest / "validation.json").exists()
        assert (tmp_path / path_dest / "results" / "predictions.csv").exists()


def test_another_run_that_is_the_latest_is_not_measured_instead(garments, tmp_path, no_pictures):
    with chdir(tmp_path):
        Path("outputs").mkdir()
        for name in ("a", "b"):
            said = []
            train(TrainConfig(**TINY, data=str(garments), path_dest=f"runs/{name}", epochs=1), said.append)
        run_printed(said[-1].removeprefix("next: ").split("    ")[0], ["-j", "0", "--device", "cpu"])
        assert not Path("runs/a/validation.json").exists()
        assert Path("runs/b/validation.json").exists()


@pytest.mark.parametrize(
    ("make", "prepare"),
    [
        (attributes, ["prepare", "attributes"]),
        (nuswide, ["prepare", "nuswide", "--num_labels", "3", "--num_images", "9", "--out", "out of it"]),
        (attributes, ["prepare", "shards", "--out", "out of it"]),
    ],
    ids=["attributes", "nuswide", "shards"],
)
def test_what_prepare_prints_next_works(make, prepare, tmp_path, capsys, no_pictures):
    with chdir(tmp_path):
        make(Path("my data"))
        if "shards" in prepare:
            assert main(["prepare", "attributes", "--data", "my data"]) == 0
        assert main([*prepare, "--data", "my data"]) == 0
        (line,) = [one for one in capsys.readouterr().out.splitlines() if "next: " in one][-1:]
        weights = {"model": create_model("test_resnet", num_classes=2).state_dict(), "model_name": "test_resnet"}
        torch.save(weights, "w.pth")  # not those of a recipe, which are downloaded
        flags = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
        run_printed(line.partition("next: ")[2], [*flags, "--epochs", "1", "--max_steps", "1", "--model_path", "w.pth"])
