"""Several processes of torchrun are one run: its gradients, its prior, its numbers, its errors; nothing twice."""

import contextlib
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing as mp
from killing import free_port
from torch import nn

from csl import InputError, checkpoint
from csl.cli import parsing
from csl.cli import validate as validate_cli
from csl.data.dataset import ImageDataset
from csl.data.loader import EpochBatches, StridedBatches, create_loader
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import Stopped
from csl.labels import read_annotations
from csl.losses import PartialSelectiveLoss
from csl.machine import distributed
from csl.machine.precision import cpu_bf16
from csl.models import create_model
from csl.models.abn import InPlaceABN, synchronise_abn
from csl.models.tresnet import TResNet, TResNetConfig
from csl.runs.config import TrainConfig, TrainOptions
from csl.runs.folder import RunFolder
from csl.training.experiment import train
from csl.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not available")

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
NETWORK = TResNetConfig((1, 1, 1, 1), width=0.25)  # every kind of block of a TResNet, none of its size

# name -> (mode, samples of the set, batch of all processes, batches of a process in a step)
STEPS = {
    "negative": ("negative", 20, 8, 1),
    "ignore": ("ignore", 20, 8, 1),
    "selective": ("selective", 20, 8, 1),
    "uneven": ("selective", 19, 24, 1),  # 10 and 9 samples
    "accumulated": ("selective", 20, 8, 2),
    "halves": ("negative", 20, 8, 2),
}


# ------------------------------------------------------------------------- one step of the trainer, in 1 or 2 processes


def a_trainer(data, name, network=None):
    mode, samples, batch, grad_accum = STEPS[name]
    train_set, val_set = (read_annotations(data, split=split) for split in ("train", "val"))
    train_set = train_set.select(np.arange(samples))
    torch.manual_seed(0)
    network = network or TResNet(NETWORK, len(train_set.classes))
    for module in network.modules():
        if isinstance(module, InPlaceABN):  # no block is its shortcut alone
            nn.init.uniform_(module.weight, 0.5, 1.5)
    prior = torch.linspace(0, 1, len(train_set.classes))
    options = {"topk_scope": "sample", "likelihood_topk": 2, "prior": prior, "prior_threshold": 0.9, "clip": 0.01}
    return Trainer(
        synchronise_abn(network.double()),
        PartialSelectiveLoss(mode, **options if mode == "selective" else {}),
        create_loader(
            ImageDataset(train_set, TrainTransform(32, "original"), seed=0),
            batch // grad_accum // distributed.world_size(),
            workers=0,
            shuffle_seed=0,
            grad_accum=grad_accum,
            shared=True,
        ),
        create_loader(ImageDataset(val_set, EvalTransform(32)), 4, workers=0, shared=True),
        val_set,
        RunFolder("unused"),
        CPU,
        TrainOptions(epochs=2, amp="off", grad_accum=grad_accum),
        lambda _: None,
    )


def step_of(trainer):
    """One step by the trainer's own code: what it leaves behind."""
    trainer.model.train()
    trainer.train_loader.batch_sampler.set_epoch(0)
    batches = next(trainer.steps())
    trainer.train_step(batches)
    return {
        "gradients": {name: p.grad.clone() for name, p in trainer.model.named_parameters()},
        "weights": {name: value.clone() for name, value in trainer.model.state_dict().items()},
        "average": {name: value.clone() for name, value in trainer.ema.module.state_dict().items()},
        "prior": trainer.sums.prior.over_processes().value(),
        "loss": trainer.sums.mean_loss(),
        "samples": [batch.indices for batch in batches],
    }


# --------------------------------------------------------------------------------------- what the two processes of a job do


def in_job(rank, folder, ports, data, run):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0]),
    }  # fmt: skip
    os.chdir(folder)
    with distributed.process_group("cpu"):
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (rank, 2, rank == 0)
        assert distributed.all_reduce_max(rank, -rank) == [1, 0]
        assert distributed.gather_objects({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
        assert distributed.gather_objects_on_rank0(rank) == ([0, 1] if rank == 0 else None)
        assert distributed.broadcast_object("a" if rank == 0 else "b") == "a"

        found = {name: step_of(a_trainer(data, name)) for name in STEPS}
        found["not a number"] = stop_at_nan(data, rank)
        torch.save(found, f"{rank}.pt")

        with open(f"{rank}.txt", "w") as out, contextlib.redirect_stdout(out):
            argv = [str(data), "--model_path", str(run / "best.ckpt"), "--path_dest", "two", "-b", "4", "-j", "0"]
            parser = validate_cli.parser()
            assert parsing.run(validate_cli.main, parser, argv) == 0
    assert distributed.world_size() == 1

    signal.alarm(90)  # nobody waits for ever: this process would be ended, and that be an error
    os.environ["MASTER_PORT"] = str(ports[1])
    with open(f"ending-{rank}.txt", "w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = parsing.run(fail_on_one, parsing.create_parser("an example"), [])
    Path(f"status-{rank}.txt").write_text(str(status))
    # The end of this process is what the other one notices.


def fail_on_one(flags):
    distributed.barrier()
    if distributed.rank() == 1:
        raise InputError("a.jpg: found nothing, expected an image")
    distributed.barrier()


def stop_at_nan(data, rank):
    """Rank 1 alone meets a loss that is not a number."""
    trainer = a_trainer(data, "negative")
    plain = trainer.criterion
    trainer.criterion = lambda logits, targets: plain(logits, targets) * (torch.nan if rank else 1.0)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    try:
        step_of(trainer)
    except (InputError, Stopped) as error:
        assert all(torch.equal(before[name], value) for name, value in trainer.model.named_parameters())
        return type(error).__name__, str(error)
    return None


# ----------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="module")
def data(drawn):
    return drawn(20, 14, 40)


def children():
    """process id -> those of its children, of all processes."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            found.setdefault(parent, []).append(int(entry.name))
    return found


def descendants(pid):
    """Process ids of the children of a process, theirs, and so on."""
    of, found = children(), [pid]
    for one in found:
        found += of.get(one, [])
    return found[1:]


def workers_of(pid):
    """rank -> process id, of torchrun's children."""
    found = {}
    for child in children().get(pid, []):
        with contextlib.suppress(OSError):
            if rank := re.search(rb"\0RANK=(\d+)\0", Path(f"/proc/{child}/environ").read_bytes()):
                found[int(rank[1])] = child
    return found


def started(data, folder, loaders, *flags, restarts=0):
    """torchrun with two processes of a run that takes long, which prints every step into a pipe."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}",
        f"--master-port={free_port()}", str(ROOT / "train.py"), "--data", str(data), "--path_dest", str(folder),
        "--model_name=test_resnet", "--image_size=32", "-b4", f"-j{loaders}", "--device=cpu", "--epochs=400",
        "--print-freq=1", *flags,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run by torchrun: rank 1 is killed, torchrun starts both anew, they go on; then the job is told to leave."""
    folder = tmp_path_factory.mktemp("torchrun") / "run"
    process = started(data, folder, 0, "--save_every=1", restarts=1)
    lines, killed = [], False
    for line in process.stdout:
        lines.append(line)
        if re.search(r"epoch 2, step 1/", line) and not killed:
            os.kill(workers_of(process.pid)[1], signal.SIGKILL)
            killed = True
        if "resumed" in "".join(lines) and "img/s" in line:  # both processes are in their loops
            process.send_signal(signal.SIGTERM)
            break
    rest, _ = process.communicate(timeout=300)
    return folder, "".join(lines) + rest


@pytest.fixture(scope="module")
def pair(data, run, tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("pair")
    # A broken file in the validation set, counted once like the others; beside the set, as that is shared.
    broken = shutil.copytree(data, folder / "set")
    (broken / "images" / "00025.jpg").write_text("not an image")
    mp.spawn(in_job, (str(folder), (free_port(), free_port()), broken, run[0]), nprocs=2)
    return folder, [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


# -------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("name", STEPS)
def test_two_processes_with_half_the_batch_equal_one_with_all_of_it(pair, data, name):
    ranks = [found[name] for found in pair[1]]
    whole = step_of(a_trainer(data, name))
    largest = max(g.abs().max() for g in whole["gradients"].values())
    for rank in ranks:
        for parameter, expected in whole["gradients"].items():
            assert (rank["gradients"][parameter] - expected).abs().max() <= 1e-5 * largest, parameter
        torch.testing.assert_close(rank["prior"], whole["prior"], rtol=1e-6, atol=0)
        assert rank["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    for part in ("gradients", "weights", "average"):  # to the last bit: nothing pulls them together again
        for key, value in ranks[0][part].items():
            assert torch.equal(value, ranks[1][part][key]), key
    for here, parts in zip(whole["samples"], zip(*(r["samples"] for r in ranks), strict=True), strict=True):
        assert torch.equal(here, torch.cat(parts))


def test_a_loss_that_is_no_number_on_one_process_stops_both_before_the_step(pair):
    (other, silence), (kind, message) = (found["not a number"] for found in pair[1])
    assert (other, silence, kind) == ("Stopped", "", "InputError")
    assert re.search(r"loss is nan in epoch 1 at step 1 \(images .*\.jpg", message)


def test_validation_by_two_processes_gives_the_numbers_of_one(pair, run, capsys, tmp_path):
    folder = pair[0]
    argv = [folder / "set", "--model_path", run[0] / "best.ckpt", "--path_dest", tmp_path, "-b", 4, "-j", 0]
    assert parsing.run(validate_cli.main, validate_cli.parser(), list(map(str, argv))) == 0
    said = capsys.readouterr().out
    for name in ("validation.json", "validation.csv"):
        assert (folder / "two" / name).read_text() == (tmp_path / name).read_text()
    two = (folder / "0.txt").read_text()
    assert two.replace("two/", "") == said.replace(f"{tmp_path}/", "")
    assert "00025.jpg" in two
    assert "13 images of" in two
    assert (folder / "1.txt").read_text() == ""


def test_a_timm_network_with_a_head_of_ours_trains_on_two_processes(data, tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}",
        str(ROOT / "train.py"), "--data", str(data), "--path_dest", str(tmp_path / "run"), "--model_name=test_convnext",
        "--head=ml_decoder", "--image_size=64", "-b4", "-j0", "--device=cpu", "--epochs=1", "--max_steps=3", "--augment=none",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "best.ckpt").exists()


def test_a_killed_worker_is_replaced_and_the_run_goes_on(run):
    folder, said = run
    assert "restart 1 by torchrun: resuming" in said
    precision = "float32" if cpu_bf16() is None else "bfloat16"
    assert re.search(rf"training on cpu, {precision}, .* batch 8 \(2 processes x 4; --lr 0\.001 as given\)", said)
    resumed = re.search(r"resumed .*last\.ckpt at epoch (\d+), step (\d+)", said)
    assert int(resumed[2]) >= 2
    assert len(re.findall("lost another process of the job", said)) <= 1  # torchrun may be quicker to end the other
    assert said.count("epoch 1/400") == 1  # one writer, which did not begin again
    assert len(re.findall(r"stopped by SIGTERM, state saved in .*last\.ckpt", said)) == 1
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(3, 3 * len(steps) + 1, 3))  # each epoch once


TOLD_TO_LEAVE = """
import os, runpy, signal, sys
from csl.data.dataset import ImageDataset
resized = ImageDataset.resized

def read(self, index):
    if self.transform.__class__.__name__ == "EvalTransform":
        os.kill(os.getpid(), signal.SIGTERM)
    return resized(self, index)

ImageDataset.resized = read
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def test_two_processes_leave_an_evaluation_and_keep_the_epoch_before_it(data, tmp_path):
    script = tmp_path / "told_to_leave.py"
    script.write_text(TOLD_TO_LEAVE)
    ended = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}",
            str(script), str(ROOT / "train.py"), "--data", str(data), "--path_dest", str(tmp_path / "run"),
            "--model_name=test_resnet", "--image_size=32", "-b4", "-j0", "--device=cpu", "--epochs=2",
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode != 0
    assert not (tmp_path / "run" / "log.jsonl").exists()
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert (state["epoch"], state["step"], state["evaluated"]) == (0, 3, -1), ended.stderr[-3000:]
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["launch"]["processes"] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_signal_to_all_processes_of_a_job_saves_the_step(data, tmp_path):
    process = started(data, tmp_path / "run", 2)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epoch 2, step 1/" in line:
            # As Slurm and systemd do; torchrun tells its own again.
            for pid in [*descendants(process.pid), process.pid]:
                os.kill(pid, signal.SIGTERM)
            break
    rest, _ = process.communicate(timeout=120)
    assert "stopped by SIGTERM, state saved in" in rest, "".join(lines) + rest
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["step"] >= 4


@pytest.mark.skipif(sys.platform != "linux", reason="a process learns of its parent's death on Linux alone")
def test_processes_leave_with_a_torchrun_that_is_killed(data, tmp_path):
    process = started(data, tmp_path / "run", 0)
    for line in process.stdout:
        if "img/s" in line:
            break
    workers = workers_of(process.pid)
    process.kill()
    process.communicate(timeout=120)  # their output is open until the last of them has left
    assert len(workers) == 2
    time.sleep(1)
    for worker in workers.values():
        status = Path(f"/proc/{worker}/status")
        assert not status.exists() or "State:\tZ" in status.read_text()


def test_one_process_goes_on_with_the_run_of_two(run, data):
    folder, _ = run
    state = checkpoint.read(folder / "last.ckpt").extra
    assert len(state["other_processes"]) == 1
    settings = state["config"] | {"resume": True, "max_steps": state["step"] + 2, "save_every": None}
    with pytest.raises(InputError, match=r"8 images a step, this command has 4 \(1 processes"):
        train(TrainConfig(**settings), lambda _: None)
    said = []
    train(TrainConfig(**settings | {"batch_size": 2, "grad_accum": 4}), said.append)
    assert any(f"step {state['step']}" in line and "resumed" in line for line in said)
    after = checkpoint.read(folder / "last.ckpt").extra
    assert after["step"] == state["step"] + 2
    assert after["other_processes"] == []


def test_an_error_on_one_process_ends_both_with_one_line(pair):
    folder = pair[0]
    assert [(folder / f"status-{rank}.txt").read_text() for rank in (0, 1)] == ["1", "2"]
    said = "".join((folder / f"ending-{rank}.txt").read_text() for rank in (0, 1))
    assert re.fullmatch(r".*: error: a\.jpg: found nothing, expected an image\n", said)
    seconds = (folder / "status-0.txt").stat().st_mtime - (folder / "status-1.txt").stat().st_mtime
    assert seconds < 30


def test_the_samples_of_a_step_do_not_depend_on_who_has_them():
    def steps(batch_size, grad_accum, world_size):
        parts = [list(EpochBatches(56, batch_size, 7, grad_accum, rank, world_size)) for rank in range(world_size)]
        in_turn = [row for turn in zip(*parts, strict=True) for part in turn for row in part]
        return [in_turn[i : i + 12] for i in range(0, len(in_turn), 12)]

    whole = steps(12, 1, 1)
    assert list(map(len, whole)) == [12, 12, 12, 12, 8]
    for other in ((6, 1, 2), (3, 2, 2), (4, 3, 1), (3, 1, 4)):
        assert steps(*other) == whole
    assert steps(1, 3, 4) == whole  # one image a batch, as asked for
    resumed = EpochBatches(56, 3, 7, 2, 1, 2)
    resumed.set_epoch(0, 3)
    assert list(resumed) == list(EpochBatches(56, 3, 7, 2, 1, 2))[6:]
    assert len(resumed) == 4
    with pytest.raises(InputError, match="5 images in an epoch, expected one or more for each of 3 processes x 2"):
        EpochBatches(5, 4, 0, grad_accum=2, world_size=3)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_each_image_is_dealt_once_in_the_batches_of_one_process(world_size):
    whole = list(StridedBatches(23, 4))
    parts = [list(StridedBatches(23, 4, rank, world_size)) for rank in range(world_size)]
    assert sorted(batch for part in parts for batch in part) == whole
    assert [key.row for batch in whole for key in batch] == list(range(23))


def test_accumulated_batches_are_the_whole_batch_of_a_network_without_batch_statistics(data):
    def gradients(name):
        torch.manual_seed(0)
        return step_of(a_trainer(data, name, create_model("test_convnext", num_classes=21)))["gradients"]

    whole, halves = gradients("negative"), gradients("halves")
    largest = max(g.abs().max() for g in whole.values())
    for parameter, expected in whole.items():
        assert (halves[parameter] - expected).abs().max() <= 1e-5 * largest, parameter


def test_a_trainer_goes_when_nobody_wants_it(data):
    trainer = a_trainer(data, "negative")  # its loaders' workers end with it, and the memory of its network
    gone = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert gone() is None
    finally:
        gc.enable()
