"""How far the answers to a few hundred random questions tell what a network is worth, against the hidden truth.

    python benchmarks/audit.py --photos DIR --weights FILE                       # 15 minutes on two busy CPU cores
    python benchmarks/audit.py --photos DIR --weights FILE --repetitions 40 --results quick.json

Expected: intervals that hold the truth about 95 times in 100 however the labels became known, narrower than those of as many
questions that are drawn uniformly; and a class prior nearer to the truth than before.

`--photos` and `--weights` are those of partial_labels.py, whose features of a frozen network are used. A protocol hides labels
of both splits, a linear head is trained once on what is left (and kept: outputs/), and its scores of the validation photos are
audited, as `csl suggest --for audit` does it, `--repetitions` times by new samples, answered from the hidden labels:

    fpc_100          known are 100 positives and 100 negatives of each class (33 in validation); annotation loss with its prior
    single_positive  known is one positive an image; unknown ones are negatives to the loss; the mean scores are the prior
    proposed         known is what a first model put among the highest 5 % of its class, a biased choice; mode ignore, its prior
    large_objects    known are large objects alone: needs boxes, and is left out, by name, where there are none

Precision, recall and F1 are those at the threshold of the best F1; `sure` is the precision at the threshold where it truly
reaches 0.9. Writes benchmarks/results/audit.json and prints a table.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from partial_labels import load
from sklearn.metrics import average_precision_score

from csl.labels import LabelMatrix
from csl.labels.simulation import simulate
from csl.losses import AnnotationLoss, PartialSelectiveLoss
from csl.machine.draws import generator
from csl.machine.files import strict_json
from csl.metrics import mean_average_precision
from csl.metrics.sampled import BINS, EDGES, ScoreCounts, draw, estimate, shares, threshold_for
from csl.prior import estimate_prior
from csl.suggest.best import ranks
from csl.training.annotation import shares_of
from csl.training.linear import cross_fitted, fit_heads, folds_of

RESULTS = Path(__file__).parent / "results" / "audit.json"
PROTOCOLS = ("fpc_100", "single_positive", "proposed", "large_objects")
ANSWERS = (100, 300, 1000)
L2, FOLDS = 3e-2, 3
PROPOSED, FULLY_LABELLED = 0.95, 1000  # of the model that proposes: quantile of its scores, training photos
NUMBERS = ("labels_an_image", "mAP", "precision", "recall", "f1", "sure")
THRESHOLDS = ("best_f1", "precision_0.9")


def ignore():
    return PartialSelectiveLoss("ignore", gamma_neg=0.0, gamma_unann=0.0)


def negative():
    return PartialSelectiveLoss("negative", gamma_neg=0.0, gamma_unann=0.0)


def trained(data, protocol):
    """Scores [N, C] of the validation photos, what is known of them, and the class prior [C] or None."""
    x, y, x_val, y_val = data.x, data.y, data.x_val, data.y_val

    def hidden(labels, scheme, param, number):
        masked = simulate(LabelMatrix.from_dense(labels.numpy()), scheme, param, generator("mask", number))
        return torch.from_numpy(masked.to_dense())

    def prior_of(known):
        return estimate_prior(cross_fitted(x, known, lambda y: ignore(), [L2], 0, folds_of(len(x), FOLDS, 0))[0], known)

    if protocol == "fpc_100":
        known, known_val = hidden(y, "fpc", 100, 0), hidden(y_val, "fpc", 33, 1)
        prior = prior_of(known)
        loss = AnnotationLoss(prior=prior, known=shares_of(known))
    elif protocol == "single_positive":
        known, known_val = hidden(y, "single_positive", None, 0), hidden(y_val, "single_positive", None, 1)
        prior, loss = None, negative()
    else:
        some = generator("held out", 1).choice(len(x), FULLY_LABELLED, replace=False)
        (first,) = fit_heads(x[some], y[some], negative(), [L2], 0)

        def proposed(x, y):
            score = first(x).detach()
            return torch.where(score > score.quantile(PROPOSED, 0), y, -1)

        known, known_val = proposed(x, y), proposed(x_val, y_val)
        prior, loss = prior_of(known), ignore()
    (head,) = fit_heads(x, known, loss, [L2], 0)
    scores = torch.sigmoid(head(x_val)).detach().numpy()
    return scores, known_val.numpy(), None if prior is None else prior.double().numpy()


def audited(data, protocol):
    """`trained`, made once and kept."""
    kept = Path("outputs", f"audit_{protocol}.npz")
    if not kept.exists():
        scores, known, prior = trained(data, protocol)
        np.savez(kept, scores=scores, known=known, **({} if prior is None else {"prior": prior}))
    with np.load(kept) as content:
        return content["scores"], content["known"], content.get("prior")


def rows_of(scores, known, prior, y, protocol, repetitions):
    """A row for each design and number of answers: the truth, and over the repetitions how the estimates lie to it.

    Args:
        scores, known, prior: as `trained` returns them.
        y: int8 [N, C] the hidden truth of the same photos.
        protocol, repetitions: as the flags.
    """
    counts = ScoreCounts.empty(y.shape[1])
    bins = counts.add(scores, known)
    prior = counts.mean_scores() if prior is None else prior
    # The hidden labels, cell by cell, in a random order within each.
    rng = np.random.default_rng(0)
    images, classes = np.nonzero(known == -1)
    cells = classes * BINS + bins[images, classes]
    order = np.lexsort((rng.random(len(cells)), cells))
    hidden, starts = y[images[order], classes[order]], np.searchsorted(cells[order], np.arange(y.shape[1] * BINS + 1))

    least, hits = np.arange(0, BINS, 2), np.bincount(bins[y == 1], minlength=BINS)
    tp, taken = hits[::-1].cumsum()[::-1][least], np.bincount(bins.ravel(), minlength=BINS)[::-1].cumsum()[::-1][least]
    f1, precision = 2 * tp / (taken + y.sum()), tp / np.maximum(taken, 1)
    best, sure = int(f1.argmax()), int((precision >= 0.9).argmax())
    truth = {
        "labels_an_image": y.sum() / len(y),
        "mAP": np.mean([average_precision_score(y[:, c], scores[:, c]) for c in range(y.shape[1])]),
        "precision": precision[best], "recall": tp[best] / y.sum(), "f1": f1[best], "sure": precision[sure],
    }  # fmt: skip
    at, frequency = {"best_f1": least[best], "precision_0.9": least[sure]}, y.mean(0)

    def log_ratio(values):
        return float(np.abs(np.log(values / frequency)).mean())

    rows = []
    for design in ("stratified", "uniform"):
        for answers in ANSWERS:
            start, random = time.perf_counter(), np.random.default_rng(answers)
            share = shares(counts, prior, answers) if design == "stratified" else counts.unknown / counts.unknown.sum()
            found, held, errors = {name: [] for name in NUMBERS}, {name: [] for name in THRESHOLDS}, []
            for _ in range(repetitions):
                if design == "stratified":
                    c, b = draw(share, answers, random)
                else:
                    c, b = np.divmod(cells[order][random.choice(len(hidden), answers, replace=False)], BINS)
                cell = c * BINS + b
                size, (_, same) = starts[cell + 1] - starts[cell], np.unique(cell, return_inverse=True)
                first = (random.random(answers)[same] * size).astype(np.int64)
                told = hidden[starts[cell] + (first + ranks(cell)) % size]
                numbers = estimate(counts, prior, share, c, b, told.astype(float), least)
                for name in NUMBERS[:2]:
                    found[name].append(numbers[name])
                for name in NUMBERS[2:5]:
                    found[name].append(numbers[name][best])
                found["sure"].append(numbers["precision"][sure])
                held["best_f1"].append(numbers["best_f1"])
                held["precision_0.9"].append(np.append(least, BINS)[threshold_for(numbers["precision"], 0.9)])
                errors.append(log_ratio(numbers["prior"]))
            row = {"protocol": protocol, "design": design, "answers": answers, "repetitions": repetitions}
            for name, values in found.items():
                middle, low, high = np.array(values).T
                row[name] = {
                    "truth": float(truth[name]), "mean": float(middle.mean()), "deviation": float(middle.std()),
                    "width": float(np.median(high - low)),
                    "covers": float(((low <= truth[name]) & (truth[name] <= high)).mean()),
                }  # fmt: skip
            for name, values in held.items():
                _, low, high = np.array(values).T
                row[f"threshold of {name}"] = {
                    "truth": float(EDGES[at[name]]),
                    "low": float(EDGES[int(np.median(low))]), "high": float(np.append(EDGES, 1)[int(np.median(high))]),
                    "covers": float(((low <= at[name]) & (at[name] <= high)).mean()),
                }  # fmt: skip
            row |= {"prior_log_ratio_before": log_ratio(prior), "prior_log_ratio": float(np.mean(errors))}
            row |= {"seconds": time.perf_counter() - start}
            rows.append(row)
            covers = ", ".join(f"{name} {100 * row[name]['covers']:.1f}" for name in NUMBERS)
            print(f"{protocol} {design} {answers}: covers {covers}", flush=True)
    said = {  # what the known labels alone say
        "protocol": protocol, "known": float((known >= 0).mean()), "true_mAP": 100 * float(truth["mAP"]),
        "mAP_annotated": mean_average_precision(scores, known), "labels_an_image_known": float((known == 1).sum() / len(y)),
        "mean_scores": float(counts.mean_scores().sum()), "prior": float(prior.sum()),
        "precision_annotated": float(known[(bins >= least[best]) & (known >= 0)].mean()),
    }  # fmt: skip
    return rows, said


def show(result):
    for said in result["known_alone"]:
        print(f"\n{said['protocol']}: {100 * said['known']:.1f} % known; mAP {said['true_mAP']:.1f}, on known labels "
              f"{said['mAP_annotated']:.1f}; prior {said['prior']:.2f} labels an image")  # fmt: skip
        print(f"  {'':24}{'':>9}" + "".join(f"{name:>18}" for name in NUMBERS) + f"{'prior log ratio':>22}")
        for row in result["rows"]:
            if row["protocol"] == said["protocol"]:
                cells = "".join(f"{row[n]['width']:>9.3f} ({100 * row[n]['covers']:5.1f})" for n in NUMBERS)
                print(f"  {row['design']:<12}{row['answers']:>6} answers{'':9}{cells}"
                      f"{row['prior_log_ratio_before']:>12.2f} -> {row['prior_log_ratio']:.2f}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", required=True, help="folder of a fully annotated set, with the splits train and val"
    )
    parser.add_argument("--weights", required=True, help="safetensors file of the network that features are made by")
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS, help="(default all)")
    parser.add_argument("--repetitions", type=int, default=500, help="samples of each kind (default 500)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what to write, and to add to")
    args = parser.parse_args()
    load_before, data = os.getloadavg()[0], load("photos", args)
    result = {"rows": [], "known_alone": []}
    if args.results.exists():
        result = json.loads(args.results.read_text())
    result["machine"] = describe_machine(load_before, "torch", "numpy", "scipy")
    for protocol in args.protocols:
        if protocol == "large_objects":
            print(f"large_objects: left out, {args.photos} has no boxes", flush=True)
            continue
        rows, said = rows_of(*audited(data, protocol), data.y_val.numpy(), protocol, args.repetitions)
        for name, new in (("rows", rows), ("known_alone", [said])):
            result[name] = [row for row in result[name] if row["protocol"] != protocol] + new
        args.results.write_text(strict_json(result, indent=1) + "\n")
    show(result)


if __name__ == "__main__":
    main()
