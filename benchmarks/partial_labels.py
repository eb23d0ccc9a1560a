"""What each loss learns from partial labels, against the hidden truth: linear heads on features of a frozen network.

    python benchmarks/partial_labels.py --photos DIR --weights FILE      # an hour of one CPU core a seed; resumable
    python benchmarks/partial_labels.py --photos DIR --weights FILE --seeds 0 --protocols fpc_100 --results quick.json
    python benchmarks/partial_labels.py --show [--criteria]                                     # the table of the results

Expected: the annotation loss is ahead of CSL where annotation depends on the label (FPC, one positive an image) and equal to it
where it does not (RPS), as long as both have the exponent that the data wants; "auto" is never far from the best.

`--photos` is a fully annotated set, `--clothing` one with attributes of which some are really unknown, the garments are drawn.
`--weights` is a file for timm's `tf_efficientnet_lite0`, whose features (96 pixels) are made once and kept in outputs/. A
protocol hides labels of the training photos, of which a fifth is held out. On the rest heads are trained for each method and
each of its settings (weight of L2; exponent of known negatives where the method has one): the same number of epochs, starting
weights and order. The settings are chosen by what a user has, the estimated mAP on the held-out photos
(`csl.metrics.estimated_average_precision`), never by hidden labels; "auto" is the choice among the methods of `AUTO` and
their settings by the same number; "auto, hidden layer" is that or, where the number is higher, the same loss with a hidden
layer in place of the linear head, as `train.py --probe` chooses. What is reported is the mAP of that choice on the validation
photos, by all labels that are known there.

The prior, of the criterion and of the annotation loss, is that of `train.py --probe` (`csl.training.probe.priors_by_heads`).
With one positive an image no negative is known: then it is the mean number of labels an image (here from the truth; a person
has it after looking at 30 photos) times the share of the class among them.
CSL has the published prior, the mean prediction.
The losses of other papers have their own defaults (docs/losses.md).
To add a method: a line in `METHODS`. Writes benchmarks/results/partial_labels.json and prints a table.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import scipy.stats
import timm
import torch
from machine import describe_machine
from safetensors.torch import load_file

from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import EvalTransform
from csl.garments import make_garments
from csl.labels import LabelMatrix, read_annotations
from csl.labels.options import DataOptions
from csl.labels.read import read_truth
from csl.labels.simulation import simulate
from csl.losses import AnnotationLoss, PartialSelectiveLoss, create_loss, options_of
from csl.losses.groups import GroupLoss, outside
from csl.machine.draws import generator
from csl.metrics import estimated_average_precision, mean_average_precision
from csl.models.exclusive import exclusive_groups
from csl.predict.scoring import to_input
from csl.prior import prior_by_count
from csl.training.annotation import shares_of
from csl.training.hidden import fit_hidden
from csl.training.linear import fit_heads, folds_of
from csl.training.probe import FOLDS, HIDDEN_L2, L2, priors_by_heads

RESULTS = Path(__file__).parent / "results" / "partial_labels.json"
NETWORK, PIXELS = "tf_efficientnet_lite0", 96
HELD_OUT = 0.2
PROTOCOLS = {  # name: data, scheme of csl.labels.simulation, its parameter
    "fpc_100": ("photos", "fpc", 100),
    "fpc_30": ("photos", "fpc", 30),
    "rps_10": ("photos", "rps", 0.9),
    "rps_50": ("photos", "rps", 0.5),
    "single_positive": ("photos", "single_positive", None),
    "garments": ("garments", "as they come", None),  # attributes of which 40 % are #N/A
    "clothing": ("clothing", "attributes", 0.5),  # besides those that are unknown, half of the others are hidden
}


def annotation(gamma, priors, known):
    return AnnotationLoss(gamma, prior=priors["estimated"], known=known)


def annotation_by_count(times, gamma, priors, known):
    """With a prior by `times` as many labels an image as there are."""
    counted = prior_by_count(known[0].numpy(), 1, times * float(priors["estimated"].sum()))  # shares: of one image
    return annotation(gamma, {"estimated": counted}, known)


def csl(gamma, priors, known):
    return PartialSelectiveLoss(
        "selective", gamma_neg=gamma, gamma_unann=4, likelihood_topk=5, prior_threshold=0.5, prior=priors["published"]
    )


def softmax(gamma, priors, known, groups):
    """Softmax over the values of an attribute; the other classes have the annotation loss."""
    rest = outside(groups, len(priors["estimated"]))
    other = AnnotationLoss(gamma, prior=priors["estimated"][rest], known=known[:, rest]) if rest else None
    return GroupLoss(groups, len(priors["estimated"]), other)


def mode(name, gamma, priors, known):
    return PartialSelectiveLoss(name, gamma_neg=gamma, gamma_unann=0)


def of_paper(name, gamma, priors, known):
    found_out = {"k": float(priors["estimated"].sum()), "shape": (priors["images"], len(priors["estimated"]))}
    return create_loss(name, **{option: found_out[option] for option in found_out.keys() & options_of(name).keys()})


# name: (loss of (exponent of known negatives, priors, shares known), exponents to choose from)
METHODS = {
    "annotation": (annotation, (0.0, 1.0)),
    "csl": (csl, (0.0, 1.0)),
    "ignore": (partial(mode, "ignore"), (0.0,)),
    "ignore, exponent chosen": (partial(mode, "ignore"), (0.0, 1.0)),
    "negative": (partial(mode, "negative"), (0.0,)),
    "AN-LS": (partial(of_paper, "label_smoothing"), (0.0,)),
    "WAN": (partial(of_paper, "wan"), (0.0,)),
    "partial BCE": (partial(of_paper, "partial_bce"), (0.0,)),
    "Hill": (partial(of_paper, "hill"), (0.0,)),
    "SPLC": (partial(of_paper, "splc"), (0.0,)),
    "EM": (partial(of_paper, "em"), (0.0,)),
    "GR": (partial(of_paper, "gr"), (0.0,)),
    "LL-R": (partial(of_paper, "ll_r"), (0.0,)),
    "LL-Ct": (partial(of_paper, "ll_ct"), (0.0,)),
    "LL-Cp": (partial(of_paper, "ll_cp"), (0.0,)),
    "EM + APL": (partial(of_paper, "em_apl"), (0.0,)),
    "EPR": (partial(of_paper, "epr"), (0.0,)),
    "ROLE": (partial(of_paper, "role"), (0.0,)),
    "CRISP": (partial(of_paper, "crisp"), (0.0,)),
    "ASL": (partial(of_paper, "asl"), (0.0,)),
    "SPA": (partial(of_paper, "spa"), (0.0,)),
    "all labels known": (partial(mode, "negative"), (0.0, 1.0)),
}
WITH_GROUPS = {"softmax of attributes": (softmax, (0.0, 1.0))}  # for data that has attributes of several values
HIDDEN = {
    f"{name}, hidden layer": name for name in ("annotation", "csl", "WAN", "EPR")
}  # in place of the linear head; the same exponent
WITH_COUNT = {  # for one positive an image, whose prior is a person's count: what a wrong one costs
    f"annotation, {word} as many labels": (partial(annotation_by_count, times), (0.0,))
    for word, times in (("a third", 1 / 3), ("half", 0.5), ("twice", 2.0))
}
AUTO = ("annotation", "csl", "ignore, exponent chosen", "negative", *WITH_GROUPS)
# Without a known negative these learn that every class is always there.
OF_KNOWN_NEGATIVES = {"ignore", "ignore, exponent chosen", "partial BCE", "SPA"}


# ------------------------------------------------------------------------------------------------------------ features


@torch.inference_mode()
def features(annotations, weights):
    """float32 [N, D] pooled features of the frozen network, and int8 [N, C] what is known."""
    network = timm.create_model(NETWORK, num_classes=0)
    missing, unexpected = network.load_state_dict(load_file(weights), strict=False)
    if missing or {name.split(".")[0] for name in unexpected} - {"classifier"}:
        raise SystemExit(f"{weights}: not weights of {NETWORK}")
    network = network.eval().to(memory_format=torch.channels_last)
    loader = create_loader(ImageDataset(annotations, EvalTransform(PIXELS)), 128, 2)
    rows = []
    for batch in loader:
        if batch.bad:
            raise SystemExit(batch.bad[0].reason)
        x = to_input(batch.images, torch.device("cpu")) * 2 - 1  # [B, 3, H, W], mean and deviation 0.5
        rows.append(network(x))
    return torch.cat(rows), torch.from_numpy(annotations.labels.to_dense())


@dataclass
class Data:
    """Standardised features [N, D] and labels [N, C] in {1, 0, -1} of the photos to train on and of those to measure on.

    Attributes:
        hidden: labels to train on that came with the data; None where a protocol hides them.
        groups: the classes of each attribute of several values.
        priors: {(protocol, seed): priors}, made once for all methods.
    """

    x: torch.Tensor
    y: torch.Tensor
    x_val: torch.Tensor
    y_val: torch.Tensor
    hidden: torch.Tensor | None
    groups: dict[str, slice]
    priors: dict = field(default_factory=dict)


def load(name, args):
    """The data set of that name; features are made once."""
    kept = Path("outputs", f"partial_labels_{name}.pt")
    folder = make_garments("outputs/partial_labels_garments", 4000, 1000, PIXELS) if name == "garments" else None
    folder = folder or getattr(args, name)
    if folder is None:
        raise SystemExit(f"--{name}: not given, expected its folder, or --protocols without it")
    splits = {split: read_annotations(folder, split=split) for split in ("train", "val")}
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save({split: features(annotations, args.weights) for split, annotations in splits.items()}, kept)
    (x, y), (x_val, y_val) = torch.load(kept).values()
    hidden, train = None, splits["train"]
    if name == "garments":
        truths = [read_truth(DataOptions(data=str(folder)), split, read) for split, read in splits.items()]
        hidden, (y, y_val) = y, (torch.from_numpy(truth.to_dense()) for truth in truths)
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    return Data((x - mean) / deviation, y, (x_val - mean) / deviation, y_val, hidden, train.groups or {})


def hide(data, scheme, param, seed):
    """int8 [N, C] the labels that the protocol leaves."""
    if scheme == "as they come":
        return data.hidden
    rng = generator("mask", seed)
    if scheme != "attributes":
        return torch.from_numpy(simulate(LabelMatrix.from_dense(data.y.numpy()), scheme, param, rng).to_dense())
    hidden = data.y.clone()
    for group in data.groups.values():
        hidden[torch.from_numpy(rng.random(len(hidden)) < param), group] = -1
    return hidden


# --------------------------------------------------------------------------------------------------------------- heads


def priors_of(x, y, truth, seed):
    """The estimated and the published prior, both [C], the latter None where no negative is known; and the number of images."""
    if not (y == 0).any():
        labels_an_image = (truth == 1).float().sum(1).mean()
        estimated = prior_by_count((y == 1).sum(0).numpy(), len(y), float(labels_an_image))
        return {"estimated": estimated, "published": None, "images": len(x)}
    estimated, published, _ = priors_by_heads(x, y, seed, folds_of(len(x), FOLDS, seed))
    return {"estimated": estimated.prior, "published": published, "images": len(x)}


def run(data, protocol, seed, method, rows=()):
    """The row of one method: its settings by the criterion, and the mAP that they have.

    With a hidden layer the exponent is that of the linear head, whose row is among `rows`.
    """
    held = torch.from_numpy(generator("held out", seed).random(len(data.x)) < HELD_OUT)
    hidden = hide(data, *PROTOCOLS[protocol][1:], seed)
    # Once for all methods; that of all labels is chosen among with what the protocol leaves of them, too.
    if (protocol, seed) not in data.priors:
        data.priors[protocol, seed] = priors_of(data.x[~held], hidden[~held], data.y, seed)
    priors, known = data.priors[protocol, seed], shares_of(hidden[~held])
    y, groups = data.y if method == "all labels known" else hidden, ()
    linear = HIDDEN.get(method, method)
    create, exponents = (METHODS | WITH_GROUPS | WITH_COUNT)[linear]
    fit, weights = (fit_heads, L2) if method == linear else (fit_hidden, HIDDEN_L2)
    if method in HIDDEN:
        key = (protocol, linear, seed)
        exponents = [row["gamma_neg"] for row in rows if (row["protocol"], row["method"], row["seed"]) == key]
        if not exponents:
            raise SystemExit(f"{protocol}, seed {seed}: {method} needs the row of {linear}")
    if method in WITH_GROUPS:
        groups = exclusive_groups(data.groups)
        create = partial(create, groups=groups)
    candidates = []
    for gamma in exponents:
        heads = fit(data.x[~held], y[~held], create(gamma, priors, known), weights, seed, groups)
        for l2, head in zip(weights, heads, strict=True):
            with torch.no_grad():
                held_out, measured = head(data.x[held]), head(data.x_val)
            estimates = estimated_average_precision(held_out, hidden[held], priors["estimated"])
            of_known = mean_average_precision(held_out, hidden[held]) if (hidden[held] == 0).any() else None
            candidates.append({
                "gamma_neg": gamma, "l2": l2, "mAP": mean_average_precision(measured, data.y_val),
                "estimated_mAP": 100 * float(np.nanmean(estimates)), "annotated_mAP": of_known,
                "negative_mAP": mean_average_precision(held_out, hidden[held], unannotated="negative"),
            })  # fmt: skip
    chosen = max(candidates, key=lambda c: c["estimated_mAP"])
    frequency = (data.y == 1).double().sum(0) / (data.y != -1).double().sum(0)
    error = (torch.log(priors["estimated"]) - torch.log(frequency)).abs()[frequency > 0].mean().item()
    best = max(c["mAP"] for c in candidates)
    return {
        "protocol": protocol, "seed": seed, "method": method, **chosen, "regret": best - chosen["mAP"],
        "prior_log_ratio": error, "candidates": candidates,
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- tables


def with_auto(rows):
    """The rows, and those of "auto": of each protocol and seed the candidate that the criterion ranks first."""
    rows = list(rows)
    for protocol, seed in dict.fromkeys((r["protocol"], r["seed"]) for r in rows):
        among = [r for r in rows if (r["protocol"], r["seed"]) == (protocol, seed) and r["method"] in AUTO]
        if len(among) < 2:
            continue
        chosen = max(among, key=lambda r: r["estimated_mAP"])
        best = max(c["mAP"] for r in among for c in r["candidates"])
        rows.append(chosen | {"method": "auto", "regret": best - chosen["mAP"]})
        for hidden in [r for r in rows if (r["protocol"], r["seed"]) == (protocol, seed)]:
            if HIDDEN.get(hidden["method"]) == chosen["method"]:
                taken = max(chosen, hidden, key=lambda r: r["estimated_mAP"])
                rows.append(taken | {"method": "auto, hidden layer", "regret": max(best, hidden["mAP"]) - taken["mAP"]})
    return rows


def show(rows):
    """mAP of each method by protocol: mean and standard deviation over seeds, and the difference to CSL, paired."""
    by = {(r["protocol"], r["method"], r["seed"]): r for r in with_auto(rows)}
    for protocol in PROTOCOLS:
        print(f"\n{protocol}")
        for method in ("auto", "auto, hidden layer", *HIDDEN, *WITH_GROUPS, *WITH_COUNT, *METHODS):
            seeds = [s for p, m, s in by if (p, m) == (protocol, method)]
            if not seeds:
                continue
            values = [by[protocol, method, seed]["mAP"] for seed in seeds]
            pairs = [
                by[protocol, method, seed]["mAP"] - by[protocol, "csl", seed]["mAP"]
                for seed in seeds
                if (protocol, "csl", seed) in by
            ]
            spread = f"+- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            regret = max(by[protocol, method, seed]["regret"] for seed in seeds)
            print(f"  {method:<26} {statistics.mean(values):6.2f} {spread:<8} against CSL {_interval(pairs):<28} "
                  f"choice loses at most {regret:.2f}")  # fmt: skip


CRITERIA = {
    "estimated_mAP": "estimated mAP",
    "annotated_mAP": "mAP on known entries",
    "negative_mAP": "unknown as negative",
}


def show_criteria(rows):
    """What each criterion on held-out photos chooses among all settings of `AUTO`, and the mAP that the best one has more."""
    for protocol, seed in dict.fromkeys((r["protocol"], r["seed"]) for r in rows):
        among = [
            c | {"method": r["method"]} for r in rows if (r["protocol"], r["seed"]) == (protocol, seed)
            for c in r["candidates"] if r["method"] in AUTO and "annotated_mAP" in c
        ]  # fmt: skip
        if not among:
            continue
        best = max(among, key=lambda c: c["mAP"])
        print(f"\n{protocol}, seed {seed}: best {_setting(best)} {best['mAP']:.2f}")
        for criterion, name in CRITERIA.items():
            if best[criterion] is not None:
                chosen = max(among, key=lambda c: c[criterion])
                print(
                    f"  {name:<22} {_setting(chosen):<46} {chosen['mAP']:6.2f}  costs {best['mAP'] - chosen['mAP']:5.2f}"
                )


def _setting(candidate):
    return f"{candidate['method']}, exponent {candidate['gamma_neg']:g}, L2 {candidate['l2']:g}"


SHOWN = {"auto, hidden layer": ("*", "#009e73"), "auto": ("o", "#0072b2"), "csl": ("D", "#e69f00"), "ignore": ("v", "#56b4e9"),
         "negative": ("^", "#cc79a7"), "all labels known": ("|", "#222222")}  # fmt: skip
NAMES = {
    "fpc_100": "100 + 100 labels a class", "fpc_30": "30 + 30 labels a class", "single_positive": "one positive a photo",
    "rps_10": "10 % known at random", "rps_50": "50 % known at random", "garments": "drawn garments, 60 % known",
    "clothing": "clothing, half known",
}  # fmt: skip


def draw(rows, path):
    """A picture of the means over seeds, a row a protocol."""
    from matplotlib import pyplot

    by = {}
    for r in with_auto(rows):
        by.setdefault((r["protocol"], r["method"]), []).append(r["mAP"])
    protocols = [protocol for protocol in NAMES if (protocol, "auto") in by]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(protocols) + 1.1), layout="constrained")
    for method, (marker, colour) in SHOWN.items():
        rows_of = [row for row, protocol in enumerate(protocols) if (protocol, method) in by]
        axes.plot([statistics.mean(by[protocols[row], method]) for row in rows_of], rows_of, ls="", marker=marker,
                  ms=13 if method == "auto" else 9,  # which is seen behind an equal one
                  mew=2 if marker == "|" else 0, color=colour, label=method, zorder=3)  # fmt: skip
    axes.set_yticks(range(len(protocols)), [NAMES[protocol] for protocol in protocols])
    axes.set_ylim(len(protocols) - 0.5, -0.5)
    axes.grid(color="#dddddd")
    axes.set_xlabel("mAP, all labels known, of heads on a frozen network, linear if nothing else is said")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside upper center", ncols=len(SHOWN), frameon=False)
    figure.savefig(path, dpi=110)


def _interval(differences):
    """Their mean, and its 95 % interval by Student's t."""
    if not differences:
        return ""
    mean = statistics.mean(differences)
    if len(differences) < 2 or not statistics.stdev(differences):
        return f"{mean:+.2f}"
    low, high = scipy.stats.t.interval(
        0.95, len(differences) - 1, mean, statistics.stdev(differences) / len(differences) ** 0.5
    )
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of a fully annotated set, with the splits train and val")
    parser.add_argument("--clothing", help="folder of a set with attributes, for the protocol of that name")
    parser.add_argument("--weights", help=f"safetensors file for timm's {NETWORK}")
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS, help="(default all)")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[*WITH_GROUPS, *WITH_COUNT, *METHODS, *HIDDEN],
        choices=[*WITH_GROUPS, *WITH_COUNT, *METHODS, *HIDDEN],
        help="(default all)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what to write, and to go on from")
    parser.add_argument("--show", action="store_true", help="print the table of the results, and run nothing")
    parser.add_argument(
        "--criteria", action="store_true", help="with --show: what each criterion chooses, and its cost"
    )
    parser.add_argument("--picture", type=Path, help="with --show: draw it as well, into this file")
    args = parser.parse_args()
    load_before, result = os.getloadavg()[0], {"rows": []}
    if args.results.exists():
        result = json.loads(args.results.read_text())
    if args.show:
        (show_criteria if args.criteria else show)(result["rows"])
        if args.picture:
            draw(result["rows"], args.picture)
        return
    done, loaded = {(r["protocol"], r["method"], r["seed"]) for r in result["rows"]}, {}
    result.setdefault("machine", describe_machine(load_before, "torch", "timm"))
    for seed in args.seeds:
        for protocol in args.protocols:
            for method in args.methods:
                name = PROTOCOLS[protocol][0]
                if (protocol, method, seed) in done or (protocol == "single_positive" and method in OF_KNOWN_NEGATIVES):
                    continue
                if (method in WITH_GROUPS and name == "photos") or (
                    method in WITH_COUNT and protocol != "single_positive"
                ):
                    continue
                data = loaded[name] = loaded.get(name) or load(name, args)
                start = time.perf_counter()
                row = run(data, protocol, seed, method, result["rows"])
                result["rows"].append(row | {"seconds": time.perf_counter() - start})
                args.results.write_text(json.dumps(result, indent=1) + "\n")
                print(f"{protocol} seed {seed} {method}: mAP {row['mAP']:.2f}", flush=True)
    show(result["rows"])


if __name__ == "__main__":
    main()
