"""How well the estimated class prior ranks the classes: an ignore-mode run against a negative-mode run.

    python benchmarks/prior_ranking.py --data DIR                  # two runs of about 8 minutes each on two CPU cores
    python benchmarks/prior_ranking.py --data DIR --max_steps 100  # a quick look: writes no file

Expected with the 32,000 product photos (24,000 to train, 80 fully annotated classes): the prior of the ignore-mode run
has more of the ten truly most frequent classes than that of the negative-mode run, and a higher rank correlation.

FPC leaves `--param` positives and as many negatives of each class. Its default is below the number of positives of the
rarest class, so that every class has exactly as many labels as any other: 1.25 % of all labels stay known, and how
often a class is annotated says nothing of how frequent it is. Both runs have the same mask, starting weights, order
of images and cross-entropy (all gammas 0), and differ in `--partial_loss_mode` alone. The truth is the share of the
training photos that have the class before anything is left out. A run's estimate is its `train_avg_preds.csv`, the
mean prediction over its last epoch; the mean over the validation photos, by the network as it stands at the end, is
shown beside it.

The top-ten overlap counts ties for the last places as the mean over all ways to break them: a list that does not rank at
all has 10 * 10 / 80 = 1.25 of them. Writes benchmarks/results/prior_ranking.json and prints a table.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine

from csl.labels import LabelMatrix
from csl.labels.options import DataOptions
from csl.labels.read import read_split
from csl.metrics.agreement import rank_correlation, top_overlap
from csl.prior import read_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.training.experiment import train

RESULTS = Path(__file__).parent / "results" / "prior_ranking.json"
MODES = ("ignore", "negative")
TOP = 10


def run_mode(mode, args, folder):
    """Train in one mode; the estimates of its prior, its mask and how long it took."""
    config = TrainConfig(
        data=str(args.data), model_name=args.model_name, image_size=args.image_size, augment="none", batch_size=64,
        amp="bf16", lr=args.lr, epochs=args.epochs, max_steps=args.max_steps, simulate_partial_type="fpc",
        simulate_partial_param=args.param, partial_loss_mode=mode, gamma_pos=0, gamma_neg=0,
        gamma_unann=0 if mode == "negative" else None, seed=args.seed, path_dest=str(folder), workers=args.workers,
        device="cpu",
    )  # fmt: skip
    start = time.perf_counter()
    best = train(config, say=lambda line: print(f"  {line}", flush=True) if "\n" not in line else None)
    run = RunFolder(folder)
    found = {
        "seconds": time.perf_counter() - start,
        "mAP": best["mAP"],
        "priors": {"training": run.train_prior, "validation": run.val_prior},
    }
    return found, LabelMatrix.load(run.partial_labels)


def compare(name, values, truth, classes):
    """One row of the table: how a list of numbers ranks the classes beside the truth."""
    order = np.argsort(-values, kind="stable")[:TOP]
    return {
        "estimate": name,
        "top_ten_overlap": top_overlap(values, truth, TOP),
        "rank_correlation": rank_correlation(values, truth),
        "top_ten": [classes[c] for c in order] if np.ptp(values) else [],
    }


def show(rows, truth, classes):
    print(f"\n{'estimate of the frequency':<42}{'top ten shared':>16}{'rank correlation':>18}")
    for row in rows:
        correlation = row["rank_correlation"]
        text = "none: constant" if np.isnan(correlation) else f"{correlation:.3f}"
        print(f"{row['estimate']:<42}{row['top_ten_overlap']:>10.2f} of {TOP}{text:>18}")
    true_top = [classes[c] for c in np.argsort(-truth, kind="stable")[:TOP]]
    print(f"\ntruth: {', '.join(true_top)}")
    for row in rows:
        if row["top_ten"]:
            print(f"{row['estimate']}: {', '.join(('' if n in true_top else 'not ') + n for n in row['top_ten'])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="fully annotated data that train.py reads")
    parser.add_argument("--param", type=int, default=150, help="labels of each kind and class that stay (150)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max_steps", type=int, help="stop after so many, for a quick look: writes no file")
    parser.add_argument("--model_name", default="tresnet_m")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes that decode (one a core)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="for a quick look at one")
    args = parser.parse_args()
    args.data = args.data.resolve()
    load = os.getloadavg()[0]

    full = read_split(DataOptions(data=str(args.data)), "train")
    classes = list(full.classes)
    truth = full.labels.counts().positives / len(full)
    rows, masks, runs = [], [], {}
    # A run makes itself the last one of the working folder, and this one is gone when the benchmark is.
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for mode in args.modes:
            print(f"{mode} mode", flush=True)
            found, mask = run_mode(mode, args, Path(folder) / mode)
            masks.append(mask)
            for where, path in found.pop("priors").items():
                prior = read_prior(path, classes).numpy().astype(float)
                rows.append(compare(f"{mode} mode, mean over the {where} photos", prior, truth, classes))
                found[f"prior_{where}"] = prior.tolist()
            runs[mode] = found
            for name in ("last.ckpt", "best.ckpt"):  # half a gigabyte
                (Path(folder) / mode / name).unlink()
    if any(mask != masks[0] for mask in masks):
        raise SystemExit("the runs had different masks")
    counts = masks[0].counts()
    rows.append(compare("annotated positives", counts.positives / len(full), truth, classes))
    known = 1 - counts.unannotated.sum() / (len(full) * len(classes))
    print(f"\n{args.data.name}: FPC {args.param}, {100 * known:.2f} % of {len(full):,} x {len(classes)} labels known")
    show(rows, truth, classes)
    for mode, found in runs.items():
        print(f"{mode} mode: {found['seconds']:.0f} s, mAP {found['mAP']:.2f}")
    if args.max_steps or set(args.modes) != set(MODES):
        return
    settings = {k: v for k, v in vars(args).items() if k not in ("data", "max_steps", "modes", "workers")}
    for row in rows:
        row["rank_correlation"] = None if np.isnan(row["rank_correlation"]) else row["rank_correlation"]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                "machine": describe_machine(load, "torch", threads=torch.get_num_threads()),
                "data": args.data.name,
                "images": len(full),
                "settings": settings,
                "known_share": known,
                "rows": rows,
                "runs": runs,
                "classes": classes,
                "truth": truth.tolist(),
            },
            indent=1,
        )
        + "\n"
    )
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
