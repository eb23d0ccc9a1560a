"""What each loss learns from partial labels, against the hidden truth: a linear head on features of a frozen network.

    python benchmarks/partial_labels.py --photos DIR --weights FILE           # about 50 minutes on two CPU cores; resumable
    python benchmarks/partial_labels.py --photos DIR --weights FILE --seeds 0 --protocols fpc_100 --results quick.json

Expected: the annotation loss is ahead of CSL where annotation depends on the label (FPC, one positive an image) and equal to it
where it does not (RPS), as long as both have the exponent that the data wants.

`--photos` is a fully annotated set, `--weights` a file for timm's `tf_efficientnet_lite0`, whose features (96 pixels) are made
once and kept in outputs/. Of the training photos, of which a protocol hides labels, a fifth is held out. On the rest a
head is trained for each method and each of its settings (weight of L2; exponent of known negatives where the method has one):
the same number of epochs, starting weights and order. The settings of a method are chosen by what a user has, the estimated
mAP on the held-out photos (`csl.metrics.estimated_average_precision`), never by hidden labels. What is reported is the mAP of
that choice on the validation photos, all labels known.

The prior, of the criterion and of the annotation loss, is `csl.prior.estimate_prior` by five heads of mode "ignore", each on
the fifth of the photos that it was not trained on. With one positive an image no negative is known: then it is the mean number
of labels an image (here from the truth; a person has it after looking at 30 photos) times the share of the class among them.
CSL has the published prior, the mean prediction.
The losses of other papers have their own defaults (docs/losses.md).
To add a method: a line in `METHODS`. Writes benchmarks/results/partial_labels.json and prints a table.
"""

import argparse
import json
import os
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from machine import describe_machine
from safetensors.torch import load_file

from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import EvalTransform
from csl.labels import LabelMatrix, read_annotations
from csl.labels.simulation import simulate
from csl.losses import AnnotationLoss, PartialSelectiveLoss, create_loss
from csl.machine.draws import generator
from csl.metrics import estimated_average_precision, mean_average_precision
from csl.predict.scoring import to_input
from csl.prior import estimate_prior

RESULTS = Path(__file__).parent / "results" / "partial_labels.json"
NETWORK, PIXELS = "tf_efficientnet_lite0", 96
EPOCHS, BATCH, RATE = 12, 512, 2e-3
L2 = (1e-3, 3e-3, 1e-2, 3e-2)
HELD_OUT = 0.2
FOLDS = 5  # of the prior
PROTOCOLS = {  # name: scheme of csl.labels.simulation, its parameter
    "fpc_100": ("fpc", 100),
    "fpc_30": ("fpc", 30),
    "rps_10": ("rps", 0.9),
    "rps_50": ("rps", 0.5),
    "single_positive": ("single_positive", None),
}


def annotation(gamma, priors, known):
    return AnnotationLoss(gamma, prior=priors["estimated"], known=known)


def csl(gamma, priors, known):
    return PartialSelectiveLoss(
        "selective", gamma_neg=gamma, gamma_unann=4, likelihood_topk=5, prior_threshold=0.5, prior=priors["published"]
    )


def mode(name, gamma, priors, known):
    return PartialSelectiveLoss(name, gamma_neg=gamma, gamma_unann=0)


def of_paper(name, gamma, priors, known, **options):
    return create_loss(name, **options)


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
    "all labels known": (partial(mode, "negative"), (0.0, 1.0)),
}
# Without a known negative these learn that every class is always there.
OF_KNOWN_NEGATIVES = {"ignore", "ignore, exponent chosen", "partial BCE"}


# ------------------------------------------------------------------------------------------------------------ features


@torch.inference_mode()
def features(annotations, weights):
    """float32 [N, D] pooled features of the frozen network, and int8 [N, C] all labels."""
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
        with torch.autocast("cpu", torch.bfloat16):
            rows.append(network(x).float())
    return torch.cat(rows), torch.from_numpy(annotations.labels.to_dense())


def load(args):
    """Features, standardised by the training photos, and labels of both splits; made once."""
    kept = Path("outputs", "partial_labels_features.pt")
    if not kept.exists():
        content = {
            split: features(read_annotations(args.photos, split=split), args.weights) for split in ("train", "val")
        }
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, kept)
    content = torch.load(kept)
    mean, deviation = content["train"][0].mean(0), content["train"][0].std(0) + 1e-3
    return {split: ((x - mean) / deviation, y) for split, (x, y) in content.items()}


# --------------------------------------------------------------------------------------------------------------- heads


def fit(x, y, criterion, l2, seed):
    """A linear head for features [N, D] and labels [N, C]: AdamW under a cosine, zero weights at first."""
    head = torch.nn.Linear(x.shape[1], y.shape[1])
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, -2.0)
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.0)
    batches = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=batches, pct_start=0.1)
    order = torch.Generator().manual_seed(seed)
    for epoch in range(EPOCHS):
        if hasattr(criterion, "begin_epoch"):
            criterion.begin_epoch(epoch + 1)
        for rows in torch.randperm(len(x), generator=order).split(BATCH):
            loss = criterion(head(x[rows]), y[rows]) / len(rows) + l2 * head.weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.eval()


@torch.no_grad()
def scores(head, x):
    return head(x)


def share_known(y):
    """[2, C] the shares of images in which each class is known to be there, and known not to be."""
    return torch.stack([(y == 1).double().mean(0), (y == 0).double().mean(0)])


def priors_of(x, y, truth, seed):
    """The estimated and the published prior, both [C]; the latter is None where no negative is known."""
    if not (y == 0).any():
        labels_an_image = (truth == 1).float().sum(1).mean()
        return {"estimated": (labels_an_image * share_known(y)[0]).clamp(1e-4, 0.95).float(), "published": None}
    fold = torch.from_numpy(generator("order", seed, 0).integers(0, FOLDS, len(x)))
    logits = torch.empty(y.shape)
    for number in range(FOLDS):
        part = fold == number
        logits[part] = scores(fit(x[~part], y[~part], PartialSelectiveLoss("ignore"), 3e-2, seed), x[part])
    published = torch.sigmoid(scores(fit(x, y, PartialSelectiveLoss("ignore"), 1e-2, seed), x)).mean(0)
    return {"estimated": estimate_prior(logits, y), "published": published}


def run(data, protocol, seed, method):
    """The row of one method: its settings by the criterion, and the mAP that they have."""
    (x, truth), (x_val, y_val) = data["train"], data["val"]
    scheme, param = PROTOCOLS[protocol]
    masked = simulate(LabelMatrix.from_dense(truth.numpy()), scheme, param, generator("mask", seed))
    held = torch.from_numpy(generator("held out", seed).random(len(x)) < HELD_OUT)
    # Once for all methods; that of all labels is chosen among with what the protocol leaves of them, too.
    kept, hidden = data.setdefault("priors", {}), torch.from_numpy(masked.to_dense())
    if (protocol, seed) not in kept:
        kept[protocol, seed] = priors_of(x[~held], hidden[~held], truth, seed)
    priors = kept[protocol, seed]
    y = truth if method == "all labels known" else hidden
    known, (create, exponents) = share_known(y[~held]), METHODS[method]
    candidates = []
    for gamma in exponents:
        for l2 in L2:
            head = fit(x[~held], y[~held], create(gamma, priors, known), l2, seed)
            by_class = estimated_average_precision(scores(head, x[held]), hidden[held], priors["estimated"])
            mAP = mean_average_precision(scores(head, x_val), y_val)
            candidates.append(
                {"gamma_neg": gamma, "l2": l2, "estimated_mAP": 100 * float(np.nanmean(by_class)), "mAP": mAP}
            )
    chosen = max(candidates, key=lambda c: c["estimated_mAP"])
    frequency = truth.double().mean(0)
    error = (torch.log(priors["estimated"]) - torch.log(frequency)).abs()[frequency > 0].mean().item()
    best = max(c["mAP"] for c in candidates)
    return {
        "protocol": protocol, "seed": seed, "method": method, **chosen, "regret": best - chosen["mAP"],
        "prior_log_ratio": error, "candidates": candidates,
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- tables


def show(rows):
    """mAP of each method by protocol: mean and standard deviation over seeds, and the difference to CSL, paired."""
    by = {(r["protocol"], r["method"], r["seed"]): r for r in rows}
    for protocol in dict.fromkeys(r["protocol"] for r in rows):
        print(f"\n{protocol}")
        for method in METHODS:
            seeds = [s for p, m, s in by if (p, m) == (protocol, method)]
            if not seeds:
                continue
            values = [by[protocol, method, seed]["mAP"] for seed in seeds]
            others = [by[protocol, "csl", seed]["mAP"] for seed in seeds if (protocol, "csl", seed) in by]
            pairs = (
                [ours - csls for ours, csls in zip(values, others, strict=True)] if len(others) == len(values) else []
            )
            spread = f"+- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            regret = max(by[protocol, method, seed]["regret"] for seed in seeds)
            against = f"{statistics.mean(pairs):+.2f} ({min(pairs):+.2f} to {max(pairs):+.2f})" if pairs else ""
            print(f"  {method:<26} {statistics.mean(values):6.2f} {spread:<8} against CSL {against:<28} "
                  f"choice loses at most {regret:.2f}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", required=True, help="folder of a fully annotated set, with the splits train and val"
    )
    parser.add_argument("--weights", required=True, help=f"safetensors file for timm's {NETWORK}")
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS, help="(default all)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="(default all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what to write, and to go on from")
    args = parser.parse_args()
    load_before, result = os.getloadavg()[0], {"rows": []}
    if args.results.exists():
        result = json.loads(args.results.read_text())
    data, done = load(args), {(r["protocol"], r["method"], r["seed"]) for r in result["rows"]}
    result.setdefault("machine", describe_machine(load_before, "torch", "timm"))
    for seed in args.seeds:
        for protocol in args.protocols:
            for method in args.methods:
                if (protocol, method, seed) in done or (protocol == "single_positive" and method in OF_KNOWN_NEGATIVES):
                    continue
                start = time.perf_counter()
                row = run(data, protocol, seed, method)
                result["rows"].append(row | {"seconds": time.perf_counter() - start})
                args.results.write_text(json.dumps(result, indent=1) + "\n")
                print(f"{protocol} seed {seed} {method}: mAP {row['mAP']:.2f}", flush=True)
    show(result["rows"])


if __name__ == "__main__":
    main()
