"""What thresholds and calibration of each class are worth under partial labels, against the hidden truth.

    python benchmarks/calibration.py --features FILE            # about ten minutes on one CPU core; resumable
    python benchmarks/calibration.py --sets garments --seeds 0 --results quick.json

Expected: the class thresholds are ahead of 0.5 and of one tuned threshold for all classes, and the calibration error falls to
a fraction, most where annotation is random; where it is not (FPC), what is left is the error of the estimated prior.

`--features` holds features of a frozen network of a fully annotated set: a file of torch.save with {"train": (float [N, D],
int8 [N, C]), "val": (...)}, such as `benchmarks/partial_labels.py` keeps in outputs/. A linear head is trained on four fifths
of the training photos, of which a protocol hides labels (`csl.training.linear`): with the loss that such labels ask for, and
with un-annotated labels as negatives. The drawn garments have a small network, trained for a few epochs of 48 pixels.

The last fifth, with what the protocol leaves of its labels, is what thresholds are decided on (`csl.decisions`), and what one
threshold for all classes is tuned on: the raw score with the best mean F1, estimated by the same prior. All numbers are of the
validation photos with all labels known: macro F1, and the expected calibration error (15 bins of equal width, mean over
classes). "Counted" takes the threshold of the best F1 by the known positives of a class alone (`csl.metrics.estimated_f1`).
Writes benchmarks/results/calibration.json and prints a table.
"""

import argparse
import json
import os
import statistics
import time
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from machine import describe_machine

import csl
from csl.decisions import decide
from csl.decisions.calibration import logits
from csl.labels import LabelMatrix
from csl.labels.simulation import simulate
from csl.losses import AnnotationLoss, PartialSelectiveLoss
from csl.machine.draws import generator
from csl.metrics import estimated_f1, precision_recall_f1
from csl.prior import estimate_prior
from csl.training.annotation import shares_of
from csl.training.linear import Standardised, fit_heads

RESULTS = Path(__file__).parent / "results" / "calibration.json"
HELD_OUT, L2, BINS = 0.2, 1e-2, 15
PROTOCOLS = {  # name: scheme of csl.labels.simulation, its parameter
    "fpc_100": ("fpc", 100),
    "fpc_30": ("fpc", 30),
    "rps_10": ("rps", 0.9),
    "rps_50": ("rps", 0.5),
}
CASES = [  # set, protocol, loss of the training
    ("heads", "fpc_100", "annotation"),
    ("heads", "fpc_30", "annotation"),
    ("heads", "rps_10", "ignore"),
    ("heads", "rps_50", "ignore"),
    ("garments", "fpc_30", "ignore"),
    ("garments", "rps_50", "ignore"),
    ("heads", "fpc_100", "negative"),
    ("heads", "rps_10", "negative"),
]
GARMENTS = {"num_train": 600, "num_val": 600, "size": 48}
NETWORK = {
    "model_name": "test_resnet", "image_size": 48, "batch_size": 32, "epochs": 4, "lr": 2e-3, "workers": 0, "augment": "none",
    "device": "cpu",
}  # fmt: skip
TRIED = np.concatenate([np.geomspace(1e-4, 0.02, 10, endpoint=False), np.linspace(0.02, 0.98, 49)])  # thresholds


def hidden(truth, protocol, seed):
    """What the protocol leaves of labels [N, C]."""
    scheme, param = PROTOCOLS[protocol]
    masked = simulate(LabelMatrix.from_dense(truth), scheme, param, generator("mask", seed))
    return torch.from_numpy(masked.to_dense())


# ------------------------------------------------------------------------------------------------------------- scores


def of_head(data, protocol, seed, method):
    """Scores and labels of the held-out photos, scores and truth of the others: a linear head."""
    (x, truth), (x_val, truth_val) = data["train"], data["val"]
    y = hidden(truth.numpy(), protocol, seed)
    held = torch.from_numpy(generator("held out", seed).random(len(x)) < HELD_OUT)
    standardised = Standardised(x[~held])
    x, x_held, x_val = (standardised(part) for part in (x[~held], x[held], x_val))
    known_alone = PartialSelectiveLoss("ignore", gamma_neg=0.0, gamma_unann=0.0)
    loss = PartialSelectiveLoss("negative", gamma_neg=0.0, gamma_unann=0.0) if method == "negative" else known_alone
    if method == "annotation":
        (first,) = fit_heads(x, y[~held], known_alone, [L2], seed)
        prior = estimate_prior(first(x_held).detach(), y[held])
        loss = AnnotationLoss(0.0, prior=prior, known=shares_of(y[~held]))
    (head,) = fit_heads(x, y[~held], loss, [L2], seed)
    with torch.no_grad():
        scores = [torch.sigmoid(head(part)).numpy() for part in (x_held, x_val)]
    return scores[0], y[held].numpy(), scores[1], truth_val.numpy()


def of_network(data, protocol, seed, method):
    """The same of a small network on drawn garments: the first half of their validation photos is held out."""
    scheme, param = PROTOCOLS[protocol]
    config = csl.TrainConfig(
        data=str(data), simulate_partial_type=scheme, simulate_partial_param=param, partial_loss_mode=method, gamma_neg=0,
        gamma_unann=0 if method == "negative" else None, seed=seed, path_dest="run", **NETWORK,
    )  # fmt: skip
    with TemporaryDirectory() as folder, chdir(folder):
        csl.train(config, say=lambda line: None)
        val = csl.read_annotations(str(data), split="val")
        scores = csl.Predictor.load("run/best.ckpt", device="cpu").score(val.images, workers=0).probabilities[0]
    truth, half = val.labels.to_dense(), len(val) // 2
    return scores[:half], hidden(truth[:half], protocol, seed).numpy(), scores[half:], truth[half:]


# ------------------------------------------------------------------------------------------------------------ numbers


def calibration_error(p, truth):
    """Expected calibration error in percent, the mean over classes of p [N, C]."""
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [np.abs(np.bincount(b, q - y, minlength=BINS)).sum() for b, q, y in zip(bins.T, p.T, truth.T, strict=True)]
    return 100 * float(np.mean(gaps)) / len(p)


def measure(held, y, scores, truth):
    """The numbers of one network: thresholds decided on `held` and labels y, measured on scores and truth."""
    start = time.perf_counter()
    found = decide(held, LabelMatrix.from_dense(y))
    seconds = time.perf_counter() - start
    prior, (q_held, q) = np.array(found.prior), map(found.calibrated, (held, scores))
    common = TRIED[np.nanargmax([np.nanmean(estimated_f1(held, y, prior, t)) for t in TRIED])]
    counted = TRIED[np.nan_to_num([estimated_f1(q_held, y, prior, t) for t in TRIED]).argmax(0)]  # [C]
    few = np.array(found.classes.basis) != "own"

    def f1(p, thresholds):
        return precision_recall_f1(p, truth, thresholds)["F_C"]

    def error(pi):
        return float(np.abs(np.log(np.asarray(pi, float)[shows] / truth.mean(0)[shows])).mean())

    shows = (y == 1).any(0) & (y == 0).any(0) & (truth == 1).any(0)
    hits = ((q > found.thresholds) & (truth == 1)).sum(0)
    each = 2 * hits / np.maximum((q > found.thresholds).sum(0) + (truth == 1).sum(0), 1)
    inside = (np.array(found.classes.low) <= each) & (each <= np.array(found.classes.high))
    return {
        "f1_half": f1(scores, 0.5),
        "f1_common": f1(scores, common),
        "f1_common_calibrated": f1(q, found.common),
        "f1_class": f1(q, found.thresholds),
        "f1_class_few_common": f1(q, np.where(few, found.common, found.thresholds)),
        "f1_class_counted": f1(q, counted),
        "ece_before": calibration_error(scores, truth),
        "ece_after": calibration_error(q, truth),
        "in_interval": 100 * float(inside.mean()),
        "few": int(few.sum()),
        "prior_log_ratio": error(prior),
        "prior_log_ratio_uncalibrated": error(estimate_prior(logits(held), y)),
        "known_positives": float(np.median((y == 1).sum(0))),
        "shown": found.shown,
        "decide_seconds": seconds,
    }


# -------------------------------------------------------------------------------------------------------------- table


def show(rows):
    """Means over seeds, and the least that the class thresholds are ahead by, over seeds."""
    names = ("F1 at 0.5", "one tuned", "class", "counted", "ahead of 0.5", "of one", "ECE", "after", "in interval")
    print(f"{'':34}" + "".join(f"{name:>13}" for name in names))
    for key in dict.fromkeys((r["set"], r["protocol"], r["method"]) for r in rows):
        of = [r for r in rows if (r["set"], r["protocol"], r["method"]) == key]
        mean = {name: statistics.mean(r[name] for r in of) for name, value in of[0].items() if type(value) is float}
        ahead = [min(r["f1_class"] - r[name] for r in of) for name in ("f1_half", "f1_common")]
        numbers = [mean[name] for name in ("f1_half", "f1_common", "f1_class", "f1_class_counted")]
        numbers += [*ahead, mean["ece_before"], mean["ece_after"], mean["in_interval"]]
        print(f"{' '.join(key):34}" + "".join(f"{number:13.2f}" for number in numbers))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="features and labels of a fully annotated set, for heads")
    parser.add_argument("--sets", nargs="+", default=["heads", "garments"], choices=["heads", "garments"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what to write, and to go on from")
    args = parser.parse_args()
    if "heads" in args.sets and args.features is None:
        parser.error("--features: needed for heads")
    load, result = os.getloadavg()[0], {"rows": []}
    if args.results.exists():
        result = json.loads(args.results.read_text())
    result.setdefault("machine", describe_machine(load, "torch", "numpy", "scipy"))
    done = {(r["set"], r["protocol"], r["method"], r["seed"]) for r in result["rows"]}
    features = None
    with TemporaryDirectory() as folder:
        for seed in args.seeds:
            for name, protocol, method in [each for each in CASES if each[0] in args.sets]:
                if (name, protocol, method, seed) in done:
                    continue
                start = time.perf_counter()
                if name == "heads":
                    features = features or torch.load(args.features)
                    row = measure(*of_head(features, protocol, seed, method))
                else:
                    csl.make_garments(Path(folder, "set"), **GARMENTS, progress=False, workers=1)
                    row = measure(*of_network(Path(folder, "set", "truth.csv"), protocol, seed, method))
                row = {"set": name, "protocol": protocol, "method": method, "seed": seed, **row}
                result["rows"].append(row | {"seconds": time.perf_counter() - start})
                args.results.write_text(json.dumps(result, indent=1) + "\n")
                print(f"{name} {protocol} {method} seed {seed}: F1 {row['f1_half']:.2f} at 0.5, {row['f1_common']:.2f} at "
                      f"one, {row['f1_class']:.2f} at the class thresholds", flush=True)  # fmt: skip
    show(result["rows"])


if __name__ == "__main__":
    main()
