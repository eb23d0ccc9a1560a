"""What `csl suggest` finds first, against the hidden truth: a linear head on features of a frozen network.

    python benchmarks/suggest.py --photos DIR --weights FILE       # about eight minutes of one CPU core; resumable
    python benchmarks/suggest.py --photos DIR --weights FILE --seeds 0 --protocols rps_50 --results quick.json

`--photos` is a fully annotated set, `--weights` a file for timm's `tf_efficientnet_lite0`, whose features are made once
(`benchmarks/partial_labels.py`); of these the first `--components` principal ones, and the first `--images` training photos,
are taken. A protocol hides labels. `csl.suggest.folds` scores each photo by heads that were not trained on it.

- precision: of the first 100, 1,000 and 10,000 unknown entries of an order, how many are there; and the average precision of
  a class among its unknown entries, mean over classes.
- training: mAP on the validation photos, all labels known, of a head trained on what is known and the answers to the first 1 %
  of unknown entries of an order.
- errors: 2 % of the known labels are turned round; how many of these are among as many first suggestions. cleanlab gets the
  same out-of-fold scores: its quality of each label of a class, by each of its three methods.

Writes benchmarks/results/suggest.json and prints tables.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from partial_labels import features

from csl.labels import LabelMatrix, read_annotations
from csl.labels.simulation import simulate
from csl.losses import PartialSelectiveLoss
from csl.machine.draws import generator
from csl.metrics import average_precision, mean_average_precision
from csl.suggest.folds import fit_folds
from csl.suggest.training import POOL, teaching
from csl.training.linear import Standardised, fit_heads

RESULTS = Path(__file__).parent / "results" / "suggest.json"
PROTOCOLS = {"rps_50": ("rps", 0.5), "fpc_100": ("fpc", 100)}  # name: scheme of csl.labels.simulation, its parameter
FIRST = (100, 1_000, 10_000)
ANSWERED = 0.01  # of the unknown entries
FLIPPED = 0.02  # of the known labels
FOLDS, L2 = 2, (1e-2,)  # of heads
CLEANLAB = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def load(args):
    """{split: (float32 [N, F] principal components, int8 [N, C] all labels)}; made once."""
    kept = Path("outputs", f"suggest_features_{args.components}.pt")
    if not kept.exists():
        data = {split: features(read_annotations(args.photos, split=split), args.weights) for split in ("train", "val")}
        standardised = Standardised(data["train"][0])
        x = standardised(data["train"][0])
        _, vectors = torch.linalg.eigh(x.T @ x / len(x))  # of the smallest eigenvalue first
        components = vectors[:, -args.components :]
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save({split: (standardised(x) @ components, y) for split, (x, y) in data.items()}, kept)
    data = torch.load(kept)
    return {split: (x[: args.images], y[: args.images]) for split, (x, y) in data.items()}


def partial(truth, protocol, seed):
    """int8 [N, C], what a protocol leaves of the labels."""
    scheme, param = PROTOCOLS[protocol]
    rng = generator("mask", seed)
    return torch.from_numpy(simulate(LabelMatrix.from_dense(truth.numpy()), scheme, param, rng).to_dense())


def scored(x, y, seed):
    """Logits z of heads among known entries, and t that `csl suggest` takes, among all, out of fold, [N, C] both; the folds."""
    rows = np.arange(len(x))
    folded = fit_folds(rows, x, y, FOLDS, seed, l2=L2)
    return folded.logits(rows, x, y)[0], folded.among_all(rows, x, y), folded


# ------------------------------------------------------------------------------------------------------ unknown entries


def orders(x, y, z, t, folded, seed):
    """{order: value of each entry [N, C]}, the highest first."""
    prior = folded.prior if folded.prior is not None else torch.sigmoid(z).mean(0)
    p = torch.sigmoid(t - folded.delta)
    positives = (y == 1).sum(0)
    rng = generator("photos shown", seed)
    return {
        "random": torch.from_numpy(rng.random(y.shape)),
        "raw score": z,
        "score over prior": torch.sigmoid(z) / prior,
        "--for positives": p,
        "uncertainty": p * (1 - p),
        "uncertainty over positives": p * (1 - p) / (1 + positives),
    }


def order_of(value, unknown, number):
    """The first `number` of the unknown entries: their places in the flattened labels."""
    return torch.where(unknown, value, -torch.inf).flatten().topk(number).indices


def teaching_order(value, p, y, x, number):
    """The first `number` of `--for training`, of the unknown entries of the highest value; with x 0 without likeness."""
    pool = order_of(value, y == -1, min(POOL * number, int((y == -1).sum())))
    row, classes = pool // y.shape[1], pool % y.shape[1]
    positives = (y == 1).sum(0).numpy()
    return pool[teaching(p.flatten()[pool].numpy(), classes.numpy(), x[row].numpy(), positives)[:number]]


def learned(data, ys, seed):
    """mAP on the validation photos of heads that are trained on labels ys, each [N, C].

    They are trained as one head of all their classes: no class of a linear head has a part in what another one learns.
    """
    loss = PartialSelectiveLoss("ignore", gamma_neg=0.0, gamma_unann=0.0)
    (head,) = fit_heads(data["train"][0], torch.cat(ys, 1), loss, L2, seed)
    x, truth = data["val"]
    with torch.no_grad():
        return [mean_average_precision(logits, truth) for logits in head(x).chunk(len(ys), 1)]


def unknown_rows(data, protocol, seed):
    """The rows of both tables about unknown entries."""
    x, truth = data["train"]
    y = partial(truth, protocol, seed)
    unknown = y == -1
    z, t, folded = scored(x, y, seed)
    among = torch.where(unknown, truth, torch.full_like(truth, -1)).numpy()
    rows = []
    number = round(ANSWERED * int(unknown.sum()))
    values = orders(x, y, z, t, folded, seed)
    for name, value in values.items():
        places = order_of(value, unknown, max(FIRST))
        there = (truth.flatten()[places] == 1).double()
        rows.append(
            {
                "part": "precision", "order": name, **{f"of {n}": 100 * there[:n].mean().item() for n in FIRST},
                "by_map": folded.by_map,
                "AP": 100 * float(np.nanmean(average_precision(value.numpy(), among))),
            }
        )  # fmt: skip
    answers = {name: order_of(value, unknown, number) for name, value in values.items()}
    value = values["uncertainty over positives"]
    answers["--for training, alike or not"] = teaching_order(
        value, values["--for positives"], y, torch.zeros_like(x), number
    )
    answers["--for training"] = teaching_order(value, values["--for positives"], y, x, number)
    ys = [y]
    for places in answers.values():
        more = y.clone().flatten()
        more[places] = truth.flatten()[places]
        ys.append(more.view_as(y))
    before, *after = learned(data, ys, seed)
    rows.append({"part": "training", "order": "no answers", "mAP": before})
    for (name, places), mAP in zip(answers.items(), after, strict=True):
        there = 100 * (truth.flatten()[places] == 1).double().mean().item()
        rows.append({"part": "training", "order": name, "mAP": mAP, "there": there, "answers": number})
    return rows


# -------------------------------------------------------------------------------------------------------- known entries


def error_rows(data, protocol, seed):
    """The rows of the table about labels that were turned round."""
    from cleanlab.internal.multilabel_scorer import ClassLabelScorer

    x, truth = data["train"]
    y = partial(truth, protocol, seed)
    known = (y != -1).flatten()
    wrong = torch.zeros_like(known)
    places = known.nonzero()[:, 0]
    turned = generator("bootstrap", seed).choice(len(places), round(FLIPPED * len(places)), replace=False)
    wrong[places[turned]] = True
    y = torch.where(wrong.view_as(y), 1 - y, y)
    z, t, folded = scored(x, y, seed)
    rows = []

    def add(name, value):
        first = torch.where(known, value.flatten(), -torch.inf).topk(len(turned)).indices
        found = wrong[first].double()
        rows.append(
            {
                "part": "errors", "order": name, "turned": len(turned), "found": 100 * found.mean().item(),
                "by_map": folded.by_map,
                **{f"of {n}": 100 * found[:n].mean().item() for n in FIRST if n <= len(turned)},
            }
        )  # fmt: skip

    for name, logits in (("--for errors", t + folded.odds), ("heads alone", z)):
        p = torch.sigmoid(logits)
        add(name, torch.where(y == 1, 1 - p, p))
    p = torch.sigmoid(z).double().numpy()
    for method in CLEANLAB:
        quality = np.ones(y.shape)
        for c in range(y.shape[1]):
            told = (y[:, c] != -1).numpy()
            two = np.stack([1 - p[told, c], p[told, c]], 1)
            quality[told, c] = ClassLabelScorer[method.upper()](y[told, c].long().numpy(), two)
        add(f"cleanlab, {method}", torch.from_numpy(-quality))
    return rows


JOBS = {"unknown": unknown_rows, "errors": error_rows}


# -------------------------------------------------------------------------------------------------------------- tables


def show(rows):
    """Mean and standard deviation over seeds of each number."""
    numbers = {
        "precision": [*(f"of {n}" for n in FIRST), "AP"],
        "training": ["mAP", "there"],
        "errors": ["found", "of 100", "of 1000"],
    }
    for part, names in numbers.items():
        for protocol in dict.fromkeys(row["protocol"] for row in rows if row["part"] == part):
            print(f"\n{part}, {protocol}\n  {'order':<34}" + "".join(f"{name:>16}" for name in names))
            mine = [row for row in rows if (row["part"], row["protocol"]) == (part, protocol)]
            for order in dict.fromkeys(row["order"] for row in mine):
                line = f"  {order:<34}"
                for name in names:
                    values = [row[name] for row in mine if row["order"] == order and name in row]
                    spread_ = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                    line += f"{f'{statistics.mean(values):.2f}{spread_}' if values else '':>16}"
                print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", required=True, help="folder of a fully annotated set, with the splits train and val"
    )
    parser.add_argument("--weights", required=True, help="safetensors file for timm's tf_efficientnet_lite0")
    parser.add_argument("--images", type=int, default=8000, help="training photos (8000)")
    parser.add_argument("--components", type=int, default=64, help="principal components of the features (64)")
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS, help="(all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what to write, and to go on from")
    args = parser.parse_args()
    load_before, result = os.getloadavg()[0], {"rows": []}
    if args.results.exists():
        result = json.loads(args.results.read_text())
    result.setdefault("machine", describe_machine(load_before, "torch", "cleanlab"))
    result.setdefault("settings", {"images": args.images, "components": args.components, "folds": FOLDS, "l2": L2[0]})
    data, done = load(args), {(r["job"], r["protocol"], r["seed"]) for r in result["rows"]}
    for protocol, seed, job in itertools.product(args.protocols, args.seeds, JOBS):
        if (job, protocol, seed) in done:
            continue
        start = time.process_time()
        rows = JOBS[job](data, protocol, seed)
        about = {"job": job, "protocol": protocol, "seed": seed, "cpu_seconds": round(time.process_time() - start, 1)}
        result["rows"] += [about | row for row in rows]
        args.results.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{job} {protocol} seed {seed}", flush=True)
    show(result["rows"])


if __name__ == "__main__":
    main()
