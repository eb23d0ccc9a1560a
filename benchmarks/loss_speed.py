"""Forward and backward of the selective loss: csl, its plain twin, and BCEWithLogitsLoss.

    python benchmarks/loss_speed.py              # a minute; more where the machine is busy
    python benchmarks/loss_speed.py --repeats 20

On a CPU the loss is plain tensor operations: 19 ms at 64 x 9,605 in mode "selective" and 7 ms in mode "negative", of the
least times on two cores of an AMD EPYC (Zen 5), which is about a thousandth of a training step. To reach on a GPU, with
Triton's kernels: 2 times BCEWithLogitsLoss at 256 x 9,605.

Every loss takes its turn in every round, in one process, so that a busy moment hits all of them; rounds are shuffled. BCE
has float targets and sums. A third of the entries are un-annotated, as many positive, as many negative: the
time does not depend on it. The ratio is that of the medians; the least times are in the file, too.
Writes benchmarks/results/loss_speed.json and prints a table.
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

import torch
from machine import describe_machine

from csl.losses import AsymmetricLoss, AsymmetricLossOptimized, PartialSelectiveLoss
from csl.ops import selective_loss_ref

RESULTS = Path(__file__).parent / "results" / "loss_speed.json"
ON_CPU = ((64, 9605), (64, 80))
ON_GPU = ((256, 9605),)
PEER = "BCEWithLogitsLoss"
OPENIMAGES = {"gamma_pos": 1, "gamma_neg": 2, "gamma_unann": 7, "likelihood_topk": 200}


def losses(classes, device):
    """Name -> (loss, which targets: "float", "binary" or "partial")."""
    generator = torch.Generator().manual_seed(1)
    prior = (torch.rand(classes, generator=generator) * 0.1).to(device)
    selective = PartialSelectiveLoss("selective", prior=prior, **OPENIMAGES).to(device)

    def twin(logits, targets):
        return selective_loss_ref(logits, targets, mode="selective", prior=prior, **OPENIMAGES)

    return {
        PEER: (torch.nn.BCEWithLogitsLoss(reduction="sum"), "float"),
        "csl negative": (PartialSelectiveLoss("negative"), "partial"),
        "csl ignore": (PartialSelectiveLoss("ignore"), "partial"),
        "csl ignore_normalize_classes": (PartialSelectiveLoss("ignore_normalize_classes"), "partial"),
        "csl selective": (selective, "partial"),
        "csl selective, per sample": (
            PartialSelectiveLoss("selective", prior=prior, topk_scope="sample", **OPENIMAGES).to(device),
            "partial",
        ),
        "csl ASL, gradient stopped": (AsymmetricLoss(), "binary"),
        "csl ASL": (AsymmetricLossOptimized(), "binary"),
        "plain twin, selective": (twin, "partial"),
    }


def seconds_of(loss, logits, targets):
    logits = logits.detach().requires_grad_()
    if logits.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss(logits, targets).backward()
    if logits.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(shape, device, repeats):
    """Rows of one shape, in the order of `losses`."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(shape, generator=generator)).to(device)
    partial = torch.randint(-1, 2, shape, generator=generator, dtype=torch.int8).to(device)
    targets = {"partial": partial, "binary": partial.clamp(min=0), "float": (partial == 1).float()}
    chosen = losses(shape[1], device)
    seconds = {name: [] for name in chosen}
    order, shuffle = list(chosen), random.Random(0)
    for turn in range(repeats + 3):
        shuffle.shuffle(order)
        for name in order:
            loss, kind = chosen[name]
            taken = seconds_of(loss, logits, targets[kind])
            if turn >= 3:
                seconds[name].append(taken)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        {
            "device": device,
            "batch": shape[0],
            "classes": shape[1],
            "loss": name,
            "seconds": median[name],
            "least_seconds": min(values),
            "rounds": repeats,
            "times_bce": median[name] / median[PEER],
            "least_times_bce": min(values) / min(seconds[PEER]),
        }
        for name, values in seconds.items()
    ]


def print_row(row):
    shape = f"{row['batch']} x {row['classes']}"
    if "seconds" not in row:
        print(f"{row['device']:<5}{shape:<11}{row['note']}", flush=True)
        return
    print(
        f"{row['device']:<5}{shape:<11}{row['loss']:<30}{1e3 * row['seconds']:>9.3f} ms{row['times_bce']:>8.2f} x"
        f"{1e3 * row['least_seconds']:>9.3f} ms{row['least_times_bce']:>8.2f} x",
        flush=True,
    )


def machine(load):
    """What the numbers belong to."""
    return describe_machine(
        load,
        "numpy",
        "torch",
        threads=torch.get_num_threads(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats", type=int, default=100, help="rounds of the larger shape, five times as many of the smaller"
    )
    args = parser.parse_args()
    load = os.getloadavg()[0]

    print(f"{'':<16}{'loss':<30}{'median':>12}{'/ BCE':>10}{'least':>12}{'/ BCE':>10}")
    rows = []
    for shape in ON_CPU:
        rows += measure(shape, "cpu", args.repeats * (5 if shape[1] < 1000 else 1))
        for row in rows[-len(losses(1, "cpu")) :]:
            print_row(row)
    for batch, classes in ON_GPU:
        if torch.cuda.is_available():
            found = measure((batch, classes), "cuda", args.repeats)
        else:
            found = [{"device": "cuda", "batch": batch, "classes": classes, "note": "not measured"}]
        rows += found
        for row in found:
            print_row(row)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine(load), "rows": rows}, indent=1) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
