"""bf16 against float32 on this processor, network by network: training and inference, and what `--amp auto` takes.

    python benchmarks/precision_speed.py              # about 5 minutes on two idle cores
    python benchmarks/precision_speed.py --repeats 1 --networks resnet18 --sizes 64 --batch 4   # a look: writes no file

Expected where the processor computes in bf16 (AVX512-BF16): 1.3 to 2 times the rate of float32, but less than 1 in training
networks of depthwise convolutions, which `csl.training.precision` leaves in float32; inference is faster for all.

Forward under autocast, binary cross-entropy in float32, backward; the two take turns, and a rate is the batch over the median.
Writes benchmarks/results/precision_speed.json.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import describe_machine

from csl.models import create_model
from csl.training.precision import training_precision

RESULTS = Path(__file__).parent / "results" / "precision_speed.json"
NETWORKS = (
    "tresnet_m", "resnet50", "densenet121", "regnety_008", "vit_small_patch16_224", "convnext_tiny", "tf_efficientnetv2_s",
    "tf_efficientnet_lite0", "efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100", "ghostnet_100",
)  # fmt: skip
PRECISIONS = ("bf16", "float32")
CLASSES = 80


def seconds_of(network, x, targets, precision):
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"), torch.set_grad_enabled(network.training):
        logits = network(x)
    if network.training:
        F.binary_cross_entropy_with_logits(logits.float(), targets).backward()
        network.zero_grad()
    return time.perf_counter() - start


def measure(name, size, batch, repeats):
    """Images a second of a network, by precision, in training and in inference."""
    network = create_model(name, num_classes=CLASSES, image_size=size).to(memory_format=torch.channels_last)
    x = torch.rand(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    targets = (torch.rand(batch, CLASSES) < 0.03).float()
    row = {"network": name, "size": size, "batch": batch}
    row["auto trains in"] = "bf16" if training_precision("auto", torch.device("cpu"), network, size)[0] else "float32"
    for what in ("training", "inference"):
        network.train(what == "training")
        times = {precision: [] for precision in PRECISIONS}
        for turn in range(repeats + 1):
            for precision in PRECISIONS if turn % 2 else PRECISIONS[::-1]:
                seconds = seconds_of(network, x, targets, precision)
                times[precision] += [seconds] * (turn > 0)
        row[what] = {precision: batch / statistics.median(values) for precision, values in times.items()}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names of csl and timm")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 96], help="pixels (224 96)")
    parser.add_argument("--batch", type=int, default=16, help="(16)")
    parser.add_argument("--repeats", type=int, default=5, help="steps in each precision (5)")
    args = parser.parse_args()
    load, rows = os.getloadavg()[0], []
    for name in args.networks:
        for size in args.sizes:
            if name.startswith("vit") and size != 224:
                continue
            row = measure(name, size, args.batch, args.repeats)
            rows.append(row)
            shown = [f"{what} {row[what]['bf16'] / row[what]['float32']:.2f} x ({row[what]['bf16']:.1f} images/s)"
                     for what in ("training", "inference")]  # fmt: skip
            print(f"{name} {size}: bf16 over float32 in {', in '.join(shown)}; auto trains in {row['auto trains in']}",
                  flush=True)  # fmt: skip
    if args.repeats >= 5:
        described = describe_machine(load, "torch", "timm", threads=torch.get_num_threads())
        RESULTS.write_text(json.dumps({"machine": described, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
