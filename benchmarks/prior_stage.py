"""How far the estimated class prior is from the truth, by the loss of stage 1 and by what is annotated.

    python benchmarks/prior_stage.py --garments DIR --photos DIR    # 10 runs, about 16 minutes on two CPU cores
    python benchmarks/prior_stage.py --garments DIR --max_steps 20  # a quick look: writes no file

Expected: `--prior_loss bce` is nearer to the truth than `focal` in every row, the more so the higher the exponents are,
as a focal loss has its minimum at a larger probability than the frequency. Under FPC both are too high: half of what is
annotated of a class is positive there, which plain cross-entropy takes for its frequency.

`--garments` is a drawn set (`python train.py` makes data/garments), whose attributes are 40 % unknown; `--photos` is a
fully annotated set, of which schemes hide labels. In each pair of rows the mask, the starting weights, the order of
images and the network are the same, and `--prior_loss` alone differs; "focal" has the exponents of a recipe. The error
is the mean over classes of |log(estimate / truth)|, where the truth is the share of the training images that have the
class: 0.69 is a factor of two. Beside it stand the classes over the recipe's `prior_threshold` by each estimate and by
the truth. Writes benchmarks/results/prior_stage.json and prints a table.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine

from csl.labels.options import DataOptions
from csl.labels.read import read_split, read_truth
from csl.metrics.agreement import rank_correlation
from csl.prior import read_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.training.experiment import train
from csl.training.recipes import RECIPES

RESULTS = Path(__file__).parent / "results" / "prior_stage.json"
ROWS = (  # data, scheme, its parameter, recipe whose exponents and threshold are taken
    ("garments", None, None, "demo_csl"),
    ("garments", None, None, "csl_coco_fpc"),
    ("garments", None, None, "csl_openimages"),
    ("photos", "fpc", 150, "csl_coco_fpc"),
    ("photos", "rps", 0.5, "csl_coco_rps"),
)
LOSSES = ("bce", "focal")


def estimate(data, scheme, param, recipe, prior_loss, args, folder):
    """Train stage 1; (class names, its prior [C])."""
    exponents = {name: value for name, value in RECIPES[recipe].items() if name.startswith("gamma")}
    config = TrainConfig(
        data=str(data), model_name=args.model_name, model_path=None, image_size=args.image_size, augment="none",
        batch_size=args.batch_size, lr=args.lr, epochs=args.epochs, max_steps=args.max_steps, seed=args.seed, device="cpu",
        simulate_partial_type=scheme, simulate_partial_param=param, prior_loss=prior_loss, path_dest=str(folder),
        **exponents,
    )  # fmt: skip
    config = dataclasses.replace(config, **config.prior_loss_settings())
    train(config, say=lambda line: print(f"  {line}", flush=True) if line.startswith("epoch") else None)
    return read_prior(RunFolder(folder).train_prior, read_split(DataOptions(data=str(data)), "train").classes).numpy()


def frequencies(data):
    """[C] the share of the training images that have each class, all labels known."""
    options = DataOptions(data=str(data))
    train = read_split(options, "train")
    labels = read_truth(options, "train", train) or train.labels
    counts = labels.counts()
    if counts.unannotated.any():
        raise SystemExit(f"{data}: labels are unknown and no truth.csv is beside them")
    return counts.positives / len(train)


def compare(prior, truth, threshold):
    """The numbers of a row."""
    prior, known = prior.astype(float), truth > 0
    log_ratio = np.log(prior[known] / truth[known])
    return {
        "mean_absolute_log_ratio": float(np.abs(log_ratio).mean()),
        "mean_ratio": float(np.exp(log_ratio.mean())),
        "rank_correlation": rank_correlation(prior, truth),
        "classes_over_threshold": int((prior > threshold).sum()),
    }


def show(row):
    scheme = "as given" if row["scheme"] is None else f"{row['scheme']} {row['param']:g}"
    print(
        f"{row['data']:<10}{scheme:<10}{row['recipe']:<16}{row['prior_loss']:<7}"
        f"|log ratio| {row['mean_absolute_log_ratio']:.2f}   ratio {row['mean_ratio']:.2f}   "
        f"over {row['threshold']:g}: {row['classes_over_threshold']} (truth {row['truth_over_threshold']} of {row['classes']})",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--garments", type=Path, help="a drawn set")
    parser.add_argument("--photos", type=Path, help="fully annotated data that train.py reads")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max_steps", type=int, help="stop after so many, for a quick look: writes no file")
    parser.add_argument("--model_name", default="resnet18")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    load, rows = os.getloadavg()[0], []
    folders = {name: path.resolve() for name in ("garments", "photos") if (path := getattr(args, name)) is not None}
    for name, scheme, param, recipe in ROWS:
        if name not in folders:
            continue
        truth, threshold = frequencies(folders[name]), RECIPES[recipe]["prior_threshold"]
        for prior_loss in LOSSES:
            start = time.perf_counter()
            # A run makes itself the last one of the working folder, and this one is gone when the row is.
            with tempfile.TemporaryDirectory() as folder, chdir(folder):
                prior = estimate(folders[name], scheme, param, recipe, prior_loss, args, Path(folder) / "run")
            row = {"data": name, "scheme": scheme, "param": param, "recipe": recipe, "prior_loss": prior_loss}
            row |= {
                "threshold": threshold,
                "classes": len(truth),
                "truth_over_threshold": int((truth > threshold).sum()),
            }
            row |= compare(prior, truth, threshold) | {"seconds": round(time.perf_counter() - start)}
            show(row)
            rows.append(row | {"prior": prior.tolist(), "truth": truth.tolist()})
    if args.max_steps or len(folders) < 2:
        return
    settings = {k: v for k, v in vars(args).items() if k not in ("garments", "photos", "max_steps")}
    machine = describe_machine(load, "torch", threads=torch.get_num_threads())
    RESULTS.write_text(json.dumps({"machine": machine, "settings": settings, "rows": rows}, indent=1) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
