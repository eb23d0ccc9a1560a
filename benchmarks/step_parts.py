"""Where the time of training goes on this processor: the parts of a step, beside timm's, and those of a whole run.

    python benchmarks/step_parts.py             # about 6 minutes on two idle cores
    python benchmarks/step_parts.py --quick     # a minute, a small network; writes no file

Expected on a CPU that computes in bf16: four fifths of a step are oneDNN's convolutions, which both networks share; the parts
beside them are no larger than timm's; nine tenths of a training epoch are its steps.

A step is that of benchmarks/tresnet_speed.py: its time without the profiler, and with it the time inside the operators of each
part, of which the shares are. The run is the demo's, for two epochs of `train.py`, by a clock around the functions in `RUN`.
Writes benchmarks/results/step_parts.json.
"""

import argparse
import functools
import importlib
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

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


def parts_of_run(changes):
    """Seconds of a run of the demo's settings, in which a part called within another one counts for both."""
    from csl import TrainConfig, train
    from csl.garments import make_garments

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

    for place, part in RUN.items():
        module, names = place.split(":")
        *owners, name = names.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        setattr(owner, name, clocked(getattr(owner, name), part))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        data = make_garments(Path(folder) / "set", progress=False)
        seconds["drawing the set"] = time.perf_counter() - start
        settings = {"model_name": "tresnet_m", "image_size": 64, "epochs": 2, "batch_size": 32, "lr": 3e-3} | changes
        config = TrainConfig(
            data=str(data), path_dest=str(Path(folder) / "run"), loss="csl", group_loss="softmax", optimizer="adam",
            augment="none", device="cpu", **settings,
        )  # fmt: skip
        start = time.perf_counter()
        train(config, lambda _: None)
        seconds["whole run"] = time.perf_counter() - start
    seconds["waiting for batches"] = seconds.pop("epochs") - seconds["steps"]
    return dict(seconds)


def show(row):
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
    rows.append({"what": "run", "seconds": parts_of_run({"model_name": name, "epochs": 1} if args.quick else {})})
    show(rows[-1])
    if not args.quick:
        described = describe_machine(load, "torch", "timm", threads=torch.get_num_threads())
        RESULTS.write_text(json.dumps({"machine": described, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
