"""What the machine and the data do to a run, injected for real: a line that says so, and nothing that was saved is lost.

The table is `docs/reliability.md`.
"""

import json
import math
import os
import shutil
import signal
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import differing, outcome
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from csl import InputError
from csl.data.images import load_rgb
from csl.errors import MachineError
from csl.garments import make_garments
from csl.machine.faults import as_one_line
from csl.runs.config import TrainConfig
from csl.training import experiment

TINY = ["--model_name", "test_resnet", "--image_size", 32, "-b", 6, "--device", "cpu", "--save_every", 1]
SMALL = {
    "model_name": "test_resnet", "image_size": 32, "batch_size": 6, "epochs": 1, "workers": 0, "device": "cpu", "save_every": 1,
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def garments(drawn):
    return drawn(12, 4, 40)


@pytest.fixture(scope="module")
def halfway(garments, server, tmp_path_factory):
    """A function that copies a run stopped after its first step; and its flags."""
    folder = tmp_path_factory.mktemp("halfway")
    argv = ["--data", garments, *TINY, "--epochs", 2, "-j", 0, "--path_dest", folder / "run"]
    ended = server.run([*argv, "--max_steps", 1], folder / "log")
    assert ended["status"] == 0, (folder / "log").read_text()
    return folder / "run", argv


def contents(folder):
    """What is in a folder, but for the number of the process that was at work in it."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


def last_line(log):
    return log.read_text().strip().splitlines()[-1]


# ----------------------------------------------------------------------------------------------------------------- disk


def test_a_full_disk_and_a_read_only_folder_lose_nothing(halfway, server, tmp_path):
    run, argv = halfway
    whole = contents(run)
    last = run / "last.ckpt"
    log = tmp_path / "log"

    # Full: no file may grow over 1 MB, which cuts a checkpoint in its middle (EFBIG; to the writer the same as ENOSPC).
    ended = server.run([*argv, "--resume"], log, limits={"file_size": 1 << 20})
    assert ended["status"] == 3, log.read_text()
    assert f"error: {last}: cannot be written (File too large); the file that was there before is whole" in last_line(
        log
    )
    assert last.read_bytes() == whole[last]
    assert not list(run.rglob(".*.tmp"))

    # Read-only: for this process, and for root too.
    before = contents(run)
    os.chmod(run, 0o555)
    try:
        ended = server.run([*argv, "--resume"], log, limits={"no_override": True})
    finally:
        os.chmod(run, 0o755)
    if "capset failed" in log.read_text() or "capget failed" in log.read_text():
        pytest.skip("root without the right to give up CAP_DAC_OVERRIDE: no folder is read-only for it")
    assert ended["status"] == 3, log.read_text()
    assert "cannot be written (Permission denied)" in last_line(log)
    assert contents(run) == before

    # Turned read-only while it trains.
    ended = {}
    thread = threading.Thread(
        target=lambda: ended.update(server.run([*argv, "--resume", "--epochs", 2], log, limits={"no_override": True}))
    )
    length = len(log.read_text())
    thread.start()
    while "resumed" not in log.read_text()[length:] and thread.is_alive():
        time.sleep(0.001)
    os.chmod(run, 0o555)
    thread.join()
    os.chmod(run, 0o755)
    assert ended["status"] == 3, log.read_text()
    assert "Permission denied" in last_line(log)
    saved = torch.load(last, weights_only=True)  # whole, of whichever step was saved last
    assert saved["step"] >= 1

    assert server.run([*argv, "--resume"], log)["status"] == 0, log.read_text()
    finished = outcome(run)["last.ckpt"]
    assert server.run([*argv[:-1], tmp_path / "whole"], log)["status"] == 0
    expected = outcome(tmp_path / "whole")["last.ckpt"]
    for state in (finished, expected):  # the stop after the first step was evaluated, and may be the best
        for name in ("best", "best_weights", "log_lines"):
            del state[name]
    assert differing(expected, finished) == []


def test_a_killed_loader_worker_stops_the_run_in_one_line(garments, server, tmp_path):
    argv = ["--data", garments, *TINY, "--epochs", 4000, "-j", 1, "--print_freq", 1, "--path_dest", tmp_path / "run"]
    log, ended = tmp_path / "log", {}
    thread = threading.Thread(target=lambda: ended.update(server.run(argv, log)))
    thread.start()
    while thread.is_alive() and (not log.exists() or "step 2/" not in log.read_text()):
        time.sleep(0.01)
    pid = int(Path(f"{log}.pid").read_text())
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert workers, log.read_text()
    for worker in workers:
        os.kill(int(worker), signal.SIGKILL)
    thread.join(120)
    assert ended["status"] == 3, log.read_text()
    assert "a process that decodes images died" in last_line(log)
    assert f"the last good state is {tmp_path / 'run' / 'last.ckpt'}" in last_line(log)
    step = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["step"]
    assert server.run([*argv, "--resume", "--max_steps", step + 1], log)["status"] == 0, log.read_text()


def test_no_memory_is_one_line_that_names_flags(garments, server, tmp_path):
    argv = ["--data", garments, *TINY, "--image_size", 3000, "-b", 12, "-j", 0, "--path_dest", tmp_path / "run"]
    log = tmp_path / "log"
    ended = server.run(argv, log, limits={"more_memory": 1 << 30})
    assert ended["status"] == 3, log.read_text()
    assert "Traceback" not in log.read_text()
    for word in ("out of memory", "--batch_size", "--image_size", "--amp", "--grad_accum", "--workers"):
        assert word in last_line(log)


class Greedy(Dataset):
    """Raises what Python raises where there is no memory."""

    def __len__(self):
        return 1

    def __getitem__(self, _):
        return bytearray(1 << 62)


def test_errors_of_the_machine_in_words():
    with pytest.raises(MemoryError) as caught:
        next(iter(DataLoader(Greedy(), num_workers=1)))
    line = as_one_line(caught.value)
    assert isinstance(line, MachineError)
    assert "out of memory" in str(line)
    assert str(line).isprintable()
    line = as_one_line(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."))
    assert str(line).startswith("CUDA out of memory: a smaller --batch_size (with --grad_accum for the same step)")
    assert str(line).isprintable()
    assert as_one_line(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert as_one_line(KeyError("x")) is None


@pytest.mark.gpu
def test_cuda_out_of_memory_is_one_line():
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert "--batch_size" in str(as_one_line(caught.value))


# --------------------------------------------------------------------------------------------------------------- images


def bomb(path):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def jpeg_bomb(path):
    Image.new("RGB", (64, 64)).save(path, "JPEG")
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xc0")  # the frame's header: height and width stand behind its length and precision
    content[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    path.write_bytes(content)


PIXELS = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(path, "JPEG", exif=exif)


def animated(path):
    Image.fromarray(PIXELS).convert("P").save(path, "GIF", save_all=True, append_images=[Image.new("P", (48, 40))])


def cut(path):
    Image.fromarray(PIXELS).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-400])


BAD = {
    "truncated": cut,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no image"),
    "bomb": bomb,
    "jpeg bomb": jpeg_bomb,
    "missing": Path.unlink,
    "postscript": lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"),
}
GOOD = {
    "cmyk": lambda path: Image.fromarray(PIXELS).convert("CMYK").save(path, "JPEG"),
    "16 bit": lambda path: Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 256).save(path, "PNG"),
    "palette": lambda path: Image.fromarray(PIXELS).convert("P").save(path, "PNG", transparency=bytes(range(256))),
    "rotated": rotated,
    "animated": animated,
}


def test_every_kind_of_image_is_read_or_named(tmp_path):
    data = make_garments(tmp_path / "set", num_train=18, num_val=4, size=40, progress=False)
    paths = {}
    for number, (name, write) in enumerate({**BAD, **GOOD}.items(), start=2):
        paths[name] = data / "images" / f"{number:05}.jpg"
        write(paths[name])
    said = []
    config = TrainConfig(**{**SMALL, "data": str(data), "path_dest": str(tmp_path / "run"), "max_steps": 1})
    with pytest.raises(
        InputError, match=f"{len(BAD)} of the 18 train images cannot be read, the first is .*--on_bad_image"
    ):
        experiment.train(config, said.append)
    for name in BAD:
        assert sum(str(paths[name]) in line and line.isprintable() for line in said) == 1, name
    assert not any(str(paths[name]) in line for name in GOOD for line in said)

    config.on_bad_image = "skip"
    experiment.train(config, said.append)
    assert f"train: {len(BAD)} bad images left out, {18 - len(BAD)} left" in said
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["left_out"]
    assert kept == {"train": [int(paths[name].stem) - 1 for name in BAD], "val": []}
    assert load_rgb(paths["rotated"]).size == (40, 48)


def test_an_image_that_breaks_later_keeps_the_order_of_the_others(garments, tmp_path):
    """Under skip a broken image leaves its batches, and a resumed run draws the same batches."""
    data = shutil.copytree(garments, tmp_path / "set")
    photo = data / "images" / "00005.jpg"
    whole = photo.read_bytes()
    settings = {**SMALL, "data": str(data), "on_bad_image": "skip", "epochs": 3}

    def run(name, breaks, **more):
        photo.write_bytes(whole)

        def say(line):
            if breaks and line.startswith("epoch 1/"):
                photo.write_text("gone")

        experiment.train(TrainConfig(**{**settings, "path_dest": str(tmp_path / name), **more}), say)

    run("whole", breaks=True)
    run("stopped", breaks=True, max_steps=3)
    photo.write_text("gone")
    experiment.train(
        TrainConfig(**{**settings, "path_dest": str(tmp_path / "stopped"), "resume": True}), lambda _: None
    )
    states = [outcome(tmp_path / name)["last.ckpt"] for name in ("whole", "stopped")]
    assert states[0]["bad_images"]
    for state in states:
        for name in ("best", "best_weights", "log_lines"):
            del state[name]
    assert differing(*states) == []


def test_a_label_file_that_shrinks_under_a_running_job_changes_nothing(garments, tmp_path):
    data = shutil.copytree(garments, tmp_path / "set")
    csv, settings = data / "attributes.csv", {**SMALL, "data": str(data), "epochs": 2}
    experiment.train(TrainConfig(**settings, path_dest=str(tmp_path / "whole")), lambda _: None)

    def say(line):
        if line.startswith("epoch 1/"):
            csv.write_bytes(csv.read_bytes()[:200])

    experiment.train(TrainConfig(**settings, path_dest=str(tmp_path / "run")), say)
    assert csv.stat().st_size == 200
    assert differing(outcome(tmp_path / "whole"), outcome(tmp_path / "run")) == []
    with pytest.raises(InputError, match=r"attributes\.csv"):
        experiment.train(TrainConfig(**settings, path_dest=str(tmp_path / "run"), resume=True), lambda _: None)


# ------------------------------------------------------------------------------------------------------------------ NaN


class Poisoned(nn.Module):
    """A loss that is not a number in some of its calls, or whose gradient is infinite there."""

    def __init__(self, criterion, calls, kind):
        super().__init__()
        self.criterion, self.calls, self.kind, self.count = criterion, calls, kind, 0

    def forward(self, logits, targets):
        self.count += 1
        loss = self.criterion(logits, targets)
        if self.count not in self.calls:
            return loss
        if self.kind == "gradient":
            logits.register_hook(lambda gradient: gradient * math.inf)
            return loss
        return loss * float(self.kind)


@pytest.fixture
def poison(garments, tmp_path, monkeypatch):
    """poison(calls, kind, **settings) trains with a loss that is poisoned in these calls; what was said, and the run."""
    create = TrainConfig.create_loss

    def run(calls, kind="nan", **settings):
        monkeypatch.setattr(TrainConfig, "create_loss", lambda *a: Poisoned(create(*a), calls, kind))
        said = []
        config = TrainConfig(
            **{**SMALL, "data": str(garments), "epochs": 3, "path_dest": str(tmp_path / "run"), **settings}
        )
        try:
            experiment.train(config, said.append)
        finally:
            monkeypatch.setattr(TrainConfig, "create_loss", create)
        return said

    return run, tmp_path / "run"


@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_a_loss_that_is_no_number_stops_the_run(poison, kind):
    train, run = poison
    with pytest.raises(
        InputError, match=rf"loss is {kind} in epoch 2 at step 4 \(images .*\.jpg.* and 3 more\).*last\.ckpt"
    ):
        train({4}, kind)
    state = torch.load(run / "last.ckpt", weights_only=True)
    assert state["step"] == 3
    assert all(t.isfinite().all() for t in state["model"].values())


def test_weights_that_are_ruined_are_not_saved_over_good_ones(poison):
    train, run = poison
    with pytest.raises(
        InputError, match="weights are no longer finite in epoch 2 after step 4.*the last good state is"
    ):
        train({4}, "gradient")
    state = torch.load(run / "last.ckpt", weights_only=True)
    assert state["step"] == 3
    assert all(t.isfinite().all() for t in state["model"].values())


@pytest.mark.parametrize("kind", ["nan", "gradient"])
def test_skip_nonfinite_leaves_out_steps_and_counts_them(poison, kind):
    train, run = poison
    said = train({2, 5}, kind, skip_nonfinite=2)
    lines = [line for line in said if "step left out" in line]
    assert len(lines) == 2
    assert "in epoch 1 at step 2 (images " in lines[0]
    assert lines[1].endswith("2 of --skip_nonfinite 2")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [entry["skipped_steps"] for entry in log] == [1, 1, 2]
    state = torch.load(run / "last.ckpt", weights_only=True)
    assert (state["step"], state["skipped"], state["scheduler"]["last_epoch"]) == (6, 2, 4)
    assert all(t.isfinite().all() for t in [*state["model"].values(), *state["ema"]["state"].values()])
    with pytest.raises(
        InputError, match=r"in epoch 2 at step 4 .*: 2 steps were left out before \(--skip_nonfinite 2\)"
    ):
        train({1, 2, 4}, kind, skip_nonfinite=2)
    assert torch.load(run / "last.ckpt", weights_only=True)["skipped"] == 2
