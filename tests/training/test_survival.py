"""kill -9 at random moments, and SIGTERM: the same command with --resume ends bit by bit where the undisturbed run does.

`benchmarks/kill_resume.py` does the same a hundred times.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from killing import differing, outcome, survive

from csl import InputError
from csl.labels import LabelMatrix, simulate
from csl.labels.options import DataOptions
from csl.labels.read import read_split
from csl.machine.files import remove_stale, replacing
from csl.prior import write_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.training.experiment import train
from csl.training.reproduction import reproduce

ROOT = Path(__file__).parents[2]
TINY = ["--model_name", "test_resnet", "--image_size", 32, "-b", 4, "--device", "cpu", "--save_every", 1]


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def garments(drawn):
    return drawn(12, 4, 40)


CASES = {
    # both stages, dropout's generator, mask, no workers
    "two stages": [
        *TINY, "--epochs", 2, "--prior_path", "auto", "--prior_epochs", 1, "--partial_loss_mode", "selective", "-j", 0,
        "--simulate_partial_type", "rps", "--dropout", 0.2, "--eval_every", 2,
    ],
    "loader workers": [*TINY, "--epochs", 3, "-j", 2, "--dropout", 0.2, "--on_bad_image", "skip"],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_moments(case, server, garments, tmp_path):
    argv = ["--data", garments, *CASES[case]]
    log = tmp_path / "log.txt"
    undisturbed = server.run([*argv, "--path_dest", tmp_path / "whole"], log)
    assert undisturbed["status"] == 0, log.read_text()[-3000:]
    expected = outcome(tmp_path / "whole")
    hits = survive(server, argv, tmp_path / "killed", log, np.random.default_rng(7), 3, undisturbed["seconds"])
    assert hits
    assert differing(expected, outcome(tmp_path / "killed")) == []


def test_tresnet_killed_while_it_writes(server, garments, tmp_path):
    """The real network, whose checkpoint of 350 MB takes long to write: killed in the middle of the second."""
    argv = [
        "--data",
        garments,
        "--image_size",
        32,
        "-b",
        6,
        "--device",
        "cpu",
        "-j",
        0,
        "--max_steps",
        2,
        "--save_every",
        1,
    ]
    argv += ["--ema_decay", 0]
    log, run = tmp_path / "log.txt", tmp_path / "run"
    ended = server.run([*argv, "--path_dest", run], log, half_written=run / "last.ckpt")
    assert ended["status"] == -signal.SIGKILL, log.read_text()[-3000:]
    assert list(run.glob(".last.ckpt.*.tmp"))
    saved = torch.load(run / "last.ckpt", weights_only=True)
    assert saved["step"] == 1
    assert server.run([*argv, "--path_dest", run, "--resume"], log)["status"] == 0, log.read_text()[-3000:]
    assert not list(run.glob(".*.tmp"))
    resumed = outcome(run)
    for path in run.glob("*.ckpt"):
        path.unlink()
    assert server.run([*argv, "--path_dest", tmp_path / "whole"], log)["status"] == 0
    assert differing(outcome(tmp_path / "whole"), resumed) == []


def test_sigterm_saves_and_leaves_with_143(server, garments, tmp_path):
    argv = ["--data", garments, *TINY, "--epochs", 400, "-j", 0, "--print_freq", 1, "--path_dest", tmp_path / "run"]
    log = tmp_path / "log.txt"
    ended = server.run(argv, log, kill_after=0.1, signal_number=signal.SIGTERM, when="epoch 2, step 1/")
    text = log.read_text()
    assert ended["status"] == 143, text[-2000:]
    assert "stopped by SIGTERM, state saved in" in text
    assert "Traceback" not in text
    step = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["step"]
    assert server.run([*argv, "--resume", "--max_steps", step + 1], log)["status"] == 0
    assert f"step {step}" in log.read_text()[len(text) :]
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["step"] == step + 1


def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(server, garments, tmp_path):
    argv = ["--data", garments, *TINY, "--epochs", 2, "-j", 0, "--save_every", 10**6, "--path_dest"]
    log, run = tmp_path / "log.txt", tmp_path / "run"
    ended = server.run([*argv, run], log, signal_number=signal.SIGTERM, at_image="00013.jpg")  # the first to validate
    assert ended["status"] == 143, log.read_text()[-3000:]
    state = torch.load(run / "last.ckpt", weights_only=True)
    assert (state["epoch"], state["step"], state["evaluated"]) == (0, 3, -1)
    assert not (run / "log.jsonl").exists()
    for path, options in ((run, ["--resume"]), (tmp_path / "whole", [])):
        assert server.run([*argv, path, *options], log)["status"] == 0, log.read_text()[-3000:]
    assert differing(outcome(tmp_path / "whole"), outcome(run)) == []


# ---------------------------------------------------------------------------------------------- moments that are not random


SMALL = {"model_name": "test_resnet", "image_size": 32, "batch_size": 6, "epochs": 1, "workers": 0, "device": "cpu"}


def run_of(garments, path, **settings):
    said = []
    train(TrainConfig(**{**SMALL, "data": str(garments), "path_dest": str(path), **settings}), said.append)
    return "\n".join(said)


def test_one_process_works_in_a_folder_at_a_time(garments, tmp_path):
    folder = tmp_path / "run"
    run_of(garments, folder, max_steps=1)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    holds = "from csl.runs.folder import RunFolder\nwith RunFolder(sys.argv[1]).locked(): print('yes'); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", f"import sys; {holds}", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "yes\n"
        for resume in (True, False):
            with pytest.raises(InputError, match=f"process {other.pid} is at work in this folder"):
                run_of(garments, folder, resume=resume)
        other.kill()
    assert {path: path.read_bytes() for path in before} == before
    run_of(garments, folder, resume=True)


def test_a_run_killed_before_its_first_checkpoint_starts_over(garments, tmp_path):
    said = run_of(garments, tmp_path / "run", resume=True)  # killed before there was a folder
    assert "--resume: no last.ckpt in" in said
    assert "starting from the beginning" in said
    expected = outcome(tmp_path / "run")
    for name in ("last.ckpt", "best.ckpt", "results.json"):
        (tmp_path / "run" / name).unlink()
    assert "starting from the beginning" in run_of(garments, tmp_path / "run", resume=True)
    assert not list((tmp_path / "run").glob("earlier-*"))
    assert differing(expected, outcome(tmp_path / "run")) == []
    # Another command's beginnings are not this run's.
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / "run" / name).unlink()
    assert "is now in" in run_of(garments, tmp_path / "run", resume=True, lr=1e-3)
    (aside,) = (tmp_path / "run").glob("earlier-*")
    assert json.loads((aside / "config.json").read_text())["lr"] == TrainConfig().lr


def test_other_settings_or_data_are_not_resumed(garments, tmp_path):
    data = shutil.copytree(garments, tmp_path / "set")
    run_of(data, tmp_path / "run", max_steps=1, epochs=2)
    with pytest.raises(InputError, match=r"other settings.*--lr 0\.1 \(was 0\.0002\), --seed 5 \(was 0\)"):
        run_of(data, tmp_path / "run", resume=True, epochs=2, lr=0.1, seed=5)
    csv = data / "attributes.csv"
    whole = csv.read_text()
    csv.write_text(whole.replace(",0,", ",1,", 1))
    with pytest.raises(InputError, match=r"attributes\.csv: not the train data .* was started with: the labels differ"):
        run_of(data, tmp_path / "run", resume=True, epochs=2)
    csv.write_text("".join(whole.splitlines(keepends=True)[1:2]).join(["", ""]) or whole)
    csv.write_text("\n".join(line for k, line in enumerate(whole.splitlines()) if k != 2) + "\n")
    with pytest.raises(InputError, match=r"11 images \(were 12\)"):
        run_of(data, tmp_path / "run", resume=True, epochs=2)
    csv.write_text(whole)
    run_of(data, tmp_path / "run", resume=True, epochs=2)
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["epoch"] == 2


@pytest.mark.parametrize("limit", ["max_steps", "stop_epoch"])
def test_a_run_that_ended_early_goes_on_with_the_prior_that_it_began_with(limit, garments, tmp_path):
    options = {
        "epochs": 2,
        "partial_loss_mode": "selective",
        "prior_path": "auto",
        "prior_epochs": 2,
        "prior_threshold": 0.5,
    }
    run_of(garments, tmp_path / "run", **{limit: 1}, **options)
    first = tmp_path / "run" / "prior"
    before = {path.name: path.read_bytes() for path in first.glob("*.c*")}
    assert {"last.ckpt", "train_avg_preds.csv"} <= before.keys()
    run_of(garments, tmp_path / "run", resume=True, **{limit: 2}, **options)
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["step"] > 1
    assert {path.name: path.read_bytes() for path in first.glob("*.c*")} == before
    with pytest.raises(InputError, match="other settings"):
        run_of(garments, tmp_path / "run", resume=True, **{limit: 2}, **options | {"gamma_neg": 3.0})
    assert {path.name: path.read_bytes() for path in first.glob("*.c*")} == before


def test_another_prior_or_other_weights_are_not_resumed(garments, tmp_path):
    data = shutil.copytree(garments, tmp_path / "set")
    table = pd.read_csv(data / "attributes.csv", dtype=str, keep_default_na=False)
    table.assign(weight=[1 + k % 3 for k in range(len(table))]).to_csv(data / "attributes.csv", index=False)
    prior = tmp_path / "p.csv"
    classes = read_split(DataOptions(data=str(data)), "train").classes
    write_prior(prior, classes, torch.full((len(classes),), 0.1))
    options = {"epochs": 2, "partial_loss_mode": "selective", "prior_path": str(prior)}
    run_of(data, tmp_path / "run", max_steps=1, **options)
    write_prior(prior, classes, torch.full((len(classes),), 0.9))
    with pytest.raises(InputError, match=r"a class prior of other values, expected the same \(--prior_path .*p\.csv\)"):
        run_of(data, tmp_path / "run", resume=True, **options)
    write_prior(tmp_path / "same.csv", classes, torch.full((len(classes),), 0.1))
    options["prior_path"] = str(tmp_path / "same.csv")
    table.assign(weight=[50 if k == 0 else 0.01 for k in range(len(table))]).to_csv(
        data / "attributes.csv", index=False
    )
    with pytest.raises(InputError, match=r"not the train data .*: the sampling weights differ"):
        run_of(data, tmp_path / "run", resume=True, **options)
    table.assign(weight=[1 + k % 3 for k in range(len(table))]).to_csv(data / "attributes.csv", index=False)
    run_of(data, tmp_path / "run", resume=True, **options)


def test_a_resumed_run_keeps_the_labels_that_it_began_with(garments, tmp_path, monkeypatch):
    options = {"epochs": 2, "simulate_partial_type": "rps"}
    run_of(garments, tmp_path / "whole", **options)
    run_of(garments, tmp_path / "run", max_steps=2, **options)
    began = (tmp_path / "run" / "partial_labels.npz").read_bytes()
    with monkeypatch.context() as patch:  # as another version of NumPy may draw
        patch.setattr("csl.training.data.simulate", lambda labels, *_: simulate(labels, "rps", 0.5))
        run_of(garments, tmp_path / "run", resume=True, **options)
    assert (tmp_path / "run" / "partial_labels.npz").read_bytes() == began
    whole, again = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "run"))
    assert differing(whole["model"], again["model"]) == []
    mask = LabelMatrix.load(tmp_path / "run" / "partial_labels.npz")
    simulate(mask, "rps", 0.5).save(tmp_path / "run" / "partial_labels.npz")
    with pytest.raises(InputError, match=r"partial_labels\.npz: not the labels that the run was started with"):
        run_of(garments, tmp_path / "run", resume=True, **options)
    (tmp_path / "run" / "partial_labels.npz").unlink()
    with pytest.raises(InputError, match=r"partial_labels\.npz: no such file"):
        run_of(garments, tmp_path / "run", resume=True, **options)


def test_meanings_of_settings_are_compared_and_not_spellings(garments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes = read_split(DataOptions(data=str(garments)), "train").classes
    write_prior("p.csv", classes, torch.full((len(classes),), 0.1))
    options = {"epochs": 2, "partial_loss_mode": "selective", "simulate_partial_type": "rps", "prior_path": "p.csv"}
    run_of(garments, tmp_path / "run", max_steps=2, **options)
    spelt = {
        **options, "prior_path": "./p.csv", "gamma_neg": 1.0, "likelihood_topk": 5, "image_size": (32, 32),
        "simulate_partial_type": "random_per_sample", "cache": str(tmp_path / "cache"),
    }  # fmt: skip
    run_of(garments, tmp_path / "run", resume=True, **spelt)
    run_of(garments, tmp_path / "whole", **options)
    whole, again = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "run"))
    assert differing(whole["model"], again["model"]) == []
    with pytest.raises(InputError, match=r"--gamma_neg 2 \(was 1\.0\)"):
        run_of(garments, tmp_path / "run", resume=True, **{**spelt, "gamma_neg": 2})


def test_what_stopped_a_run_stops_it_again(garments, tmp_path, monkeypatch):
    data = shutil.copytree(garments, tmp_path / "set")
    (data / "images" / "00005.jpg").write_text("no image")
    monkeypatch.setattr("csl.training.data.find_bad_images", lambda *_, **__: [])  # one that the first look cannot see
    for resume in (False, True, True):
        with pytest.raises(InputError, match=r"00005\.jpg.*--on_bad_image skip --resume goes on without it"):
            run_of(data, tmp_path / "run", resume=resume, epochs=2)
    said = run_of(data, tmp_path / "run", resume=True, epochs=2, on_bad_image="skip")
    assert "bad image 1, left out" in said


@pytest.mark.parametrize("every", [1, None])
def test_a_run_that_diverges_says_so_before_it_is_evaluated(garments, tmp_path, every):
    with pytest.raises(InputError, match=r"(in|at) .*step \d+.*training stopped.*lower --lr"):
        run_of(garments, tmp_path / "run", epochs=1, lr=1e30, batch_size=12, eval_every=every)


def test_a_resumed_run_scores_its_best_weights_from_the_cache(garments, tmp_path, monkeypatch):
    options = {"epochs": 1, "cache": str(tmp_path / "cache")}
    run_of(garments, tmp_path / "run", **options)
    opened = []
    monkeypatch.setattr("csl.data.transforms.load_pixels", lambda *a, **k: opened.append(a))
    expected = json.loads((tmp_path / "run" / "results.json").read_text())["best"]
    run_of(garments, tmp_path / "run", resume=True, **options)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["best"] == expected
    assert not opened


COUNTS = {
    "epoch": torch.zeros(2, dtype=torch.complex64),
    "step": 7,
    "evaluated": [1],
    "loss_samples": -1,
    "best": {"mAP": 0.5},
    "ema/updates": "1",
    "scheduler/last_epoch": None,
}


def test_a_state_whose_counts_are_none_is_not_resumed(garments, tmp_path):
    run_of(garments, tmp_path / "run", max_steps=1, epochs=2)
    path = tmp_path / "run" / "last.ckpt"
    for place, value in COUNTS.items():
        state = torch.load(path, weights_only=True)
        whole = path.read_bytes()
        *above, key = place.split("/")
        (state[above[0]] if above else state)[key] = value
        torch.save(state, path)
        with pytest.raises(InputError, match=rf"last\.ckpt: {place}: (found .*)?expected"):
            run_of(garments, tmp_path / "run", resume=True, epochs=2)
        path.write_bytes(whole)
    run_of(garments, tmp_path / "run", resume=True, epochs=2)


@pytest.mark.parametrize("moved", [0, 1, 3, 100])
def test_moving_an_earlier_run_aside_is_all_or_nothing(tmp_path, moved):
    run = RunFolder(tmp_path)
    names = ["config.json", "log.jsonl", "last.ckpt", "best.ckpt", "plots"]
    for name in names:
        (tmp_path / name).mkdir() if name == "plots" else (tmp_path / name).write_text(name)
    rename, done = Path.rename, []

    def killed(path, target):
        if len(done) == moved:
            raise KeyboardInterrupt
        done.append(path)
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        if moved < len(names):
            with pytest.raises(KeyboardInterrupt):
                run.archive_previous()
        else:
            run.archive_previous()
    aside = run.recover() if moved < len(names) else str(next(tmp_path.glob("earlier-*")))
    assert sorted(os.listdir(aside)) == sorted(names)
    assert os.listdir(tmp_path) == [Path(aside).name]
    assert run.recover() is None
    assert run.archive_previous() is None


def test_temporary_files_of_dead_processes_are_cleared_away(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        for pid in (dead.pid, alive.pid, os.getpid()):
            (tmp_path / f".last.ckpt.{pid}.tmp").write_text("half")
        (tmp_path / ".mine.tmp").write_text("not ours")
        removed = remove_stale(tmp_path)
        alive.communicate(b"\n")
    assert {p.name for p in removed} == {f".last.ckpt.{dead.pid}.tmp", f".last.ckpt.{os.getpid()}.tmp"}
    assert {p.name for p in tmp_path.iterdir()} == {f".last.ckpt.{alive.pid}.tmp", ".mine.tmp"}


def test_replacing_flushes_the_file_and_its_folder(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (flushed.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert flushed == [str(temporary), str(tmp_path)]


def test_the_log_is_rewound_by_lines_and_survives_a_cut_one(tmp_path):
    run = RunFolder(tmp_path)
    for step in (2, 4, 4):
        run.append_log({"step": step})
    with open(run.log, "a") as file:
        file.write('{"step": 6')
    assert run.log_lines() == 3
    os.utime(run.log, (1, 1))
    run.rewind_log(2)
    assert [json.loads(line)["step"] for line in run.log.read_text().splitlines()] == [2, 4]
    assert run.log.stat().st_mtime > 1  # written anew, and not dated back


# A run of the version before `prior_loss`, whose `asl` had a gradient through its weight and whose first stage had exponents.
OLDER = {
    "--loss asl_optimized": {"loss": "asl"},
    "--prior_loss focal": {"partial_loss_mode": "selective", "prior_path": "auto", "prior_threshold": 0.5},
}


@pytest.mark.parametrize("flag", OLDER)
def test_a_run_of_an_older_version_is_resumed_as_what_it_was(flag, garments, tmp_path):
    name, value = flag.removeprefix("--").split()
    options = {"epochs": 2, **OLDER[flag]}
    run_of(garments, tmp_path / "run", max_steps=1, **options | {name: value})
    folders = [folder for folder in (tmp_path / "run", tmp_path / "run" / "prior") if folder.exists()]
    if len(folders) == 2:  # the first stage is under way
        for file in ("last.ckpt", "best.ckpt"):
            (tmp_path / "run" / file).unlink()
    for folder in folders:
        older = json.loads((folder / "config.json").read_text())
        state = torch.load(folder / "last.ckpt", weights_only=True) if (folder / "last.ckpt").exists() else None
        for config in (older, *([state["config"]] if state else [])):
            del config["prior_loss"]
            config["loss"] = options.get("loss", "csl")
            if folder.name == "prior":  # which had what the flags said
                config.update(dict.fromkeys(("gamma_pos", "gamma_neg", "alpha_pos", "alpha_neg", "clip")))
        (folder / "config.json").write_text(json.dumps(older))
        if state:
            torch.save(state, folder / "last.ckpt")
    assert flag in reproduce(tmp_path / "run", look_at_data=False).command
    with pytest.raises(InputError, match=f"was started with {flag}, .* --resume {flag} goes on") as refusal:
        run_of(garments, tmp_path / "run", resume=True, **options)
    assert "\n" not in str(refusal.value)
    assert "gamma" not in str(refusal.value)
    run_of(garments, tmp_path / "run", resume=True, **options | {name: value})
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["epoch"] == 2
