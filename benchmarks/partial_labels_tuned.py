"""What each loss learns from partial labels when the whole network is trained, against the hidden truth.

    python benchmarks/partial_labels_tuned.py --photos DIR --weights FILE     # about ten minutes a row of one core; resumable
    python benchmarks/partial_labels_tuned.py --clothing DIR --weights FILE --protocols clothing
    python benchmarks/partial_labels_tuned.py --protocols garments            # needs neither photos nor weights
    python benchmarks/partial_labels_tuned.py --show                          # the table of the results

Expected: what the annotation loss gains on frozen features grows, and is nothing where annotation is random.

Each row is a run of `train.py` on 4,000 photos of a fully annotated COCO-like set at 64 pixels: `tf_efficientnet_lite0` from
ImageNet's weights (`--weights`, a file for timm), 5 epochs. Labels of the training photos are hidden by the protocol. Every
method has the same start: a probe of the frozen network gives the prior and a first head for the loss (`--prior_estimator
probe`); "auto" is `--loss auto`, which chooses its loss by that probe. With one positive an image all are told how many labels
an image has on average. Weight decay, steps and augmentation are the same for all. The learning rate of "auto" is 1e-3; every
other method runs the first seed with each of `RATES` and the other seeds with the better one, by the mAP that is reported,
which favours it. CSL has the exponent 1 on known negatives, and under FPC 3 as well, each as in its published commands.
What is reported is the mAP on 1,500 other photos, all labels known, of the moving average after the last epoch.
`fpc_100_long` and `rps_10_long` are the same in 30 epochs at the rate 2e-4, as `train.py` does without a flag.
With `--clothing`, a folder of a table of attributes of which some are `#N/A`, half of the known cells of its training photos
are made so as well; 15 epochs; mAP on what is known of its validation photos.
`--protocols garments` draws its photos and trains TResNet-M from scratch, without a probe, by the settings of the demo, in 6
epochs of the whole network, CSL by `--recipe demo_csl` in as many; mAP with all labels known of best.ckpt, which is chosen on
annotated entries.
Writes benchmarks/results/partial_labels_tuned.json. To add a method: a line in `METHODS`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from machine import describe_machine
from photos import first_photos

from csl.garments import make_garments
from csl.training.recipes import RECIPES

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "partial_labels_tuned.json"
NETWORK, PIXELS = "tf_efficientnet_lite0", 64
EPOCHS, EPOCHS_OF_CLOTHING = 5, 15
LONG_EPOCHS, LONG_RATE = 30, 2e-4  # what train.py takes for these photos by itself
RATES = (1e-3, 3e-3)  # of Adam under one cycle; with 3e-4 all learn less in so few steps
PHOTOS = {"train": 4000, "val": 1500}
PROTOCOLS = {
    "fpc_100": ("fpc", "100"),
    "fpc_30": ("fpc", "30"),
    "single_positive": ("single_positive", None),
    "rps_10": ("rps", "0.9"),
    "rps_50": ("rps", "0.5"),
    "clothing": ("attributes", "0.5"),
    "garments": ("drawn", None),
    "fpc_100_long": ("fpc", "100"),
    "rps_10_long": ("rps", "0.9"),
}
LONG = ("fpc_100_long", "rps_10_long")
PROBED = ["--prior_path=auto", "--prior_estimator=probe"]
CSL = ["--loss=csl", "--partial_loss_mode=selective", "--gamma_unann=4", "--likelihood_topk=5", "--prior_threshold=0.5",
       *PROBED]  # fmt: skip
METHODS = {  # name: flags of train.py
    "auto": ["--loss=auto"],
    "csl": [*CSL, "--gamma_neg=1"],
    "csl, exponent 3": [*CSL, "--gamma_neg=3"],
    "ignore": ["--loss=csl", "--partial_loss_mode=ignore", "--gamma_neg=0", *PROBED],
    "negative": ["--loss=csl", "--partial_loss_mode=negative", "--gamma_neg=0", "--gamma_unann=0", *PROBED],
    "all labels known": ["--loss=csl", "--partial_loss_mode=negative", "--gamma_neg=0", *PROBED],
}  # fmt: skip
WHOLE = ["--recipe=demo", "--epochs=6", "--shallow_epochs=0"]
DEMO = {  # the same from scratch
    "auto": WHOLE,
    "csl": ["--recipe=demo_csl"],
    "ignore": [*WHOLE, "--loss=csl", "--partial_loss_mode=ignore", "--gamma_neg=0"],
    "negative": [*WHOLE, "--loss=csl", "--partial_loss_mode=negative", "--gamma_neg=0", "--gamma_unann=0"],
}
WITHOUT = {  # which are without what the method needs
    "single_positive": ("ignore",),
    "clothing": ("all labels known",),
    "garments": ("all labels known",),
}
ONLY = {"csl, exponent 3": ("fpc_100", "fpc_30", "fpc_100_long")}  # which a method is published for


def subset(photos, folder):
    """The first photos of each split, linked, and their annotations."""
    if folder.exists():
        return folder
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    (making / "images").mkdir(parents=True)
    for name in first_photos(photos, making, PHOTOS):
        shutil.copyfile(photos / "images" / name, making / "images" / name)
    making.rename(folder)
    return folder


def half_hidden(clothing, folder, seed):
    """The set with each known attribute of a training photo as `#N/A` with the probability of the protocol."""
    if (folder / "attributes.csv").exists():
        return folder
    table = pd.read_csv(clothing / "attributes.csv", dtype=str, keep_default_na=False)
    attributes = [name for name in table.columns if name not in ("filename", "split")]
    drawn = np.random.default_rng(seed).random((len(table), len(attributes)))
    hidden = (drawn < float(PROTOCOLS["clothing"][1])) & (table["split"] == "train").to_numpy()[:, None]
    table[attributes] = table[attributes].mask(hidden, "#N/A")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "images").symlink_to(clothing.resolve() / "images")
    table.to_csv(folder / "attributes.csv", index=False)
    return folder


def rates(rows, protocol, seed, method):
    """The learning rates to run: of "auto" and of the demo's settings one, of a peer both, and the better one of seed 0."""
    if protocol in LONG:
        return (LONG_RATE,)
    if protocol == "garments":
        return (RECIPES["demo"]["lr"],)
    if method == "auto":
        return RATES[:1]
    first = {r["lr"]: r["mAP"] for r in rows if (r["protocol"], r["method"], r["seed"]) == (protocol, method, 0)}
    return RATES if seed == 0 or not first else (max(first, key=first.get),)


def run(args, protocol, seed, method, rate):
    """The row of one run of train.py."""
    scheme, param = PROTOCOLS[protocol]
    epochs, everything = LONG_EPOCHS if protocol in LONG else EPOCHS, method == "all labels known"
    if scheme == "drawn":
        data, hiding = make_garments(args.work / "garments"), []
    elif scheme == "attributes":
        epochs = EPOCHS_OF_CLOTHING
        data, hiding = half_hidden(args.clothing, args.work / f"clothing_{seed}", seed), []
    else:
        data = subset(args.photos, args.work / "photos")
        hiding = [f"--simulate_partial_type={scheme}", *([f"--simulate_partial_param={param}"] if param else [])]
    folder = args.work / f"{protocol}_{seed}_{method.replace(' ', '_')}_{rate:g}"
    if scheme == "single_positive":
        hiding.append(f"--labels_per_image={labels_an_image(data):.3g}")
    settings = [
        "--model_name", NETWORK, "--model_path", str(args.weights), "--image_size", str(PIXELS), "--batch_size=32",
        f"--epochs={epochs}", f"--lr={rate}", "--ema_decay=0.99", "--augment=flip_affine", "--weight_decay=1e-4", "--amp=off",
        "--cache", str(args.work / "cache"), *METHODS[method], *([] if everything else hiding),
    ]  # fmt: skip
    command = [
        sys.executable, str(ROOT / "train.py"), "--data", str(data), "--path_dest", str(folder), "--seed", str(seed),
        "--device=cpu", "--workers=1", *(DEMO[method] if scheme == "drawn" else settings),
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    settings = json.loads((folder / "config.json").read_text())
    for path in folder.rglob("*.ckpt"):
        path.unlink()
    truth = json.loads((folder / "results.json").read_text())["mAP_all_labels"] if scheme == "drawn" else None
    return {
        "protocol": protocol, "seed": seed, "method": method, "lr": settings["lr"], "mAP": truth or last["mAP_ema"],
        "mAP_model": last["mAP_model"], "loss": settings["loss"], "partial_loss_mode": settings["partial_loss_mode"],
        "gamma_neg": settings["gamma_neg"], "seconds": time.perf_counter() - start,
    }  # fmt: skip


def labels_an_image(photos):
    """The mean over the training photos."""
    content = json.loads((photos / "train.json").read_text())
    pairs = {(one["image_id"], one["category_id"]) for one in content["annotations"]}
    return len(pairs) / len(content["images"])


def show(rows):
    """mAP of each method and rate by protocol; the difference of each to the best row of CSL in that seed."""
    by = {(r["protocol"], r["method"], r["lr"], r["seed"]): r["mAP"] for r in rows}
    for protocol in PROTOCOLS:
        print(f"\n{protocol}")
        of_csl = {}
        for (p, method, _, seed), mAP in by.items():
            if p == protocol and method.startswith("csl"):
                of_csl[seed] = max(mAP, of_csl.get(seed, mAP))
        for method, rate in dict.fromkeys((m, r) for m in METHODS for p, of, r, _ in by if (p, of) == (protocol, m)):
            values = {seed: mAP for (p, m, r, seed), mAP in sorted(by.items()) if (p, m, r) == (protocol, method, rate)}
            against = ", ".join(f"{mAP - of_csl[seed]:+.2f}" for seed, mAP in values.items() if seed in of_csl)
            seeds = " ".join(map(str, values))
            print(
                f"  {method:<18} {rate:<6g} {statistics.mean(values.values()):6.2f}  seeds {seeds}, against CSL {against}"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of train.json, val.json (COCO) and images/")
    parser.add_argument("--clothing", type=Path, help="folder of images/ and attributes.csv")
    parser.add_argument("--weights", type=Path, help=f"safetensors file for timm's {NETWORK}")
    parser.add_argument("--work", type=Path, default=Path("outputs/partial_labels_tuned"), help="folder of the runs")
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS, help="(default all)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="(default all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what to write, and to go on from")
    parser.add_argument("--show", action="store_true", help="print the table of the results, and run nothing")
    args = parser.parse_args()
    load_before, result = os.getloadavg()[0], {"rows": []}
    if args.results.exists():
        result = json.loads(args.results.read_text())
    if not args.show:
        result.setdefault("machine", describe_machine(load_before, "torch", "timm"))
        for seed in args.seeds:
            for protocol in args.protocols:
                given = {"clothing": args.clothing, "garments": "drawn here"}.get(protocol, args.photos)
                if given is None:
                    continue
                for method in args.methods:
                    if method in WITHOUT.get(protocol, ()) or protocol not in ONLY.get(method, PROTOCOLS):
                        continue
                    done = {(r["protocol"], r["method"], r["seed"], r["lr"]) for r in result["rows"]}
                    for rate in rates(result["rows"], protocol, seed, method):
                        if (protocol, method, seed, rate) in done:
                            continue
                        row = run(args, protocol, seed, method, rate)
                        result["rows"].append(row)
                        args.results.write_text(json.dumps(result, indent=1) + "\n")
                        print(f"{protocol} seed {seed} {method}, rate {rate:g}: mAP {row['mAP']:.2f}", flush=True)
    show(result["rows"])


if __name__ == "__main__":
    main()
