"""Where the time of training goes on this processor: the parts of a step, beside timm's, those of a whole run, and of its loop.

    python benchmarks/step_parts.py             # about 10 minutes on two idle cores
    python benchmarks/step_parts.py --quick     # a minute, a small network; writes no file

Expected on a CPU that computes in bf16: four fifths of a step are oneDNN's convolutions, which both networks share; the parts
beside them are no larger than timm's; nine tenths of a training epoch are its steps; the loop has 0.9 of the bare step's rate.

A step is that of benchmarks/tresnet_speed.py: its time without the profiler, and with it the time inside the operators of each
part, of which the shares are. The run is the demo's, for two epochs of `train.py`, by a clock around the functions in `RUN`.
The loop is that of four epochs, with all that it does: decoding, moving average, checks. After each, as many bare steps of the
same network are timed: forward, loss, backward and optimizer, on one batch.
Writes benchmarks/results/step_parts.json.
"""

import argparse
import contextlib
import functools
import importlib
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest import mock

import torch
from machine import describe_machine
from torch.profiler import ProfilerActivity, profile
from tresnet_speed import stepper

RESULTS = Path(__file__).parent / "results" / "step_parts.json"
CASES = [(what, size, batch) for size, batch in ((224, 16), (64, 32)) for what in ("training", "training bf16")]
PARTS = {  # of a step: words in the names of its operators, the first part that fits
    "convolutions": ("convolution",),
    "normalisation and activation": ("batch_norm", "InPlaceABN", "relu", "threshold", "clamp_min", "var_mean", "Convolved",
                                     "Covariance", "addcmul"),
    "copies and casts": ("copy", "contiguous", "cat"),
    "squeeze-excite, blur, pooling": ("SqueezeExcite", "Blur", "pool", "sigmoid", "mean", "pad"),
    "optimizer": ("adam", "lerp", "sgd", "zero_grad"),
}  # fmt: skip
OTHER = "matrix products, other operators"
RUN = {  # of a run: a function, and the part that it is all or most of
    "csl.training.experiment:load_data": "reading labels",
    "csl.training.trainer:Trainer.train_step": "steps",
    "csl.training.trainer:Trainer._train_epoch": "epochs",
    "csl.training.trainer:Trainer._evaluate": "evaluations",
    "csl.training.trainer:Trainer._finish_epoch": "log, checkpoints",
    "csl.training.experiment:summarise": "pictures and page",
}


def parts_of_step(peer, what, name, size, batch, repeats):
    """Milliseconds of each part of a step, and of the whole of it without the profiler."""
    step = stepper(peer, what, name, size, batch, "cpu")
    for _ in range(2):
        step()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    whole = (time.perf_counter() - start) / repeats
    with profile(activities=[ProfilerActivity.CPU]) as traced:
        for _ in range(repeats):
            step()
    parts = Counter()
    for event in traced.key_averages():
        part = next((part for part, words in PARTS.items() if any(word in event.key for word in words)), OTHER)
        parts[part] += event.self_cpu_time_total / 1e3 / repeats
    return {"milliseconds": 1e3 * whole, "parts": dict(parts)}


def demo_config(folder, changes):
    """The demo's settings, on a set that is drawn first."""
    from csl import TrainConfig
    from csl.garments import make_garments

    data = make_garments(Path(folder) / "set", progress=False)
    settings = {"model_name": "tresnet_m", "image_size": 64, "epochs": 2, "batch_size": 32, "lr": 3e-3} | changes
    return TrainConfig(
        data=str(data), path_dest=str(Path(folder) / "run"), loss="csl", group_loss="softmax", optimizer="adam",
        augment="none", device="cpu", **settings,
    )  # fmt: skip


def parts_of_run(changes):
    """Seconds of a run of the demo's settings, in which a part called within another one counts for both."""
    from csl import train

    seconds = Counter()

    def clocked(function, part):
        @functools.wraps(function)
        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - start

        return timed

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for place, part in RUN.items():
            module, names = place.split(":")
            *owners, name = names.split(".")
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            stack.enter_context(mock.patch.object(owner, name, clocked(getattr(owner, name), part)))
        start = time.perf_counter()
        config = demo_config(folder, changes)
        seconds["drawing the set"] = time.perf_counter() - start
        start = time.perf_counter()
        train(config, lambda _: None)
        seconds["whole run"] = time.perf_counter() - start
    seconds["waiting for batches"] = seconds.pop("epochs") - seconds["steps"]
    return dict(seconds)


def loop_beside_bare_steps(changes):
    """Images per second of each epoch's loop, and of as many bare steps after it."""
    from csl import train
    from csl.training.trainer import Trainer

    rates, held = {"loop": [], "bare": []}, []
    epoch_of, step_of = Trainer._train_epoch, Trainer.train_step

    def step(trainer, batches):
        if not held and len(batches[0]) == trainer.global_batch:
            held.extend(batches)
        step_of(trainer, batches)

    def epoch(trainer):
        start = time.perf_counter()
        rate = epoch_of(trainer)
        rates["loop"].append(len(trainer.train_loader.dataset) / (time.perf_counter() - start))
        x, targets = trainer._inputs(held[0])
        start = time.perf_counter()
        for _ in range(trainer.steps_per_epoch):
            trainer.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", trainer.amp_dtype or torch.bfloat16, trainer.amp_dtype is not None):
                logits = trainer.model(x)
            trainer._loss(logits, targets, held[0]).backward()
            trainer.optimizer.step()
        rates["bare"].append(trainer.steps_per_epoch * len(x) / (time.perf_counter() - start))
        return rate

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(Trainer, "_train_epoch", epoch),
        mock.patch.object(Trainer, "train_step", step),
    ):
        train(demo_config(folder, {"epochs": 4, "schedule": "constant"} | changes), lambda _: None)
    return rates | {"ratio": statistics.median(rates["loop"]) / statistics.median(rates["bare"])}


def show(row):
    if row["what"] == "loop":
        print(f"loop over bare steps: {row['ratio']:.2f} x ({row['loop']} and {row['bare']} images/s)", flush=True)
        return
    if row["what"] == "run":
        print("run, seconds: " + ", ".join(f"{part} {value:.1f}" for part, value in row["seconds"].items()), flush=True)
        return
    total = sum(row["parts"].values())
    shares = ", ".join(f"{part} {value:.0f} ({100 * value / total:.0f} %)" for part, value in row["parts"].items())
    print(
        f"{row['what']} {row['size']} batch {row['batch']} {row['peer']}: {row['milliseconds']:.0f} ms: {shares}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=8, help="steps of each peer (8)")
    parser.add_argument("--quick", action="store_true", help="a small network, and one step; writes no file")
    args = parser.parse_args()
    load, rows = os.getloadavg()[0], []
    name, repeats = ("test_resnet", 1) if args.quick else ("tresnet_m", args.repeats)
    for what, size, batch in CASES[2 if args.quick else 0 :]:
        for peer in ("csl", "timm"):
            row = {"what": what, "model": name, "size": size, "batch": batch, "peer": peer}
            rows.append(row | parts_of_step(peer, what, name, size, batch, repeats))
            show(rows[-1])
    small = {"model_name": name, "epochs": 1} if args.quick else {}
    rows.append({"what": "run", "seconds": parts_of_run(small)})
    show(rows[-1])
    rows.append({"what": "loop"} | loop_beside_bare_steps(small))
    show(rows[-1])
    if not args.quick:
        described = describe_machine(load, "torch", "timm", threads=torch.get_num_threads())
        RESULTS.write_text(json.dumps({"machine": described, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
