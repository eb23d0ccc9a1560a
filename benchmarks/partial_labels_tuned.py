"""What each loss learns from partial labels when the whole network is trained, against the hidden truth.

    python benchmarks/partial_labels_tuned.py --photos DIR --weights FILE     # about ten minutes a row on two cores; resumable
    python benchmarks/partial_labels_tuned.py --show                          # the table of the results

Expected: what the annotation loss gains on frozen features grows, and is nothing where annotation is random.

Each row is a run of `train.py` on 8,000 photos of a fully annotated COCO-like set at 64 pixels: `tf_efficientnet_lite0` from
ImageNet's weights (`--weights`, a file for timm), 5 epochs in all. A method that needs a prior first (stage 1) has it within
its epochs, so that none takes more steps than another: 2 of the 5. Labels of the training photos are hidden by the protocol;
best.ckpt is chosen as the method's defaults say, by what a user has. What is reported is the mAP on 2,000 other photos, all
labels known, as `validate.py` prints it. Learning rate and weight decay are the same for all.
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

from machine import describe_machine
from photos import first_photos

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "partial_labels_tuned.json"
NETWORK, PIXELS, EPOCHS, STAGE_1 = "tf_efficientnet_lite0", 64, 5, 2
PHOTOS = {"train": 8000, "val": 2000}
PROTOCOLS = {
    "fpc_100": ("fpc", "100"),
    "fpc_30": ("fpc", "30"),
    "single_positive": ("single_positive", None),
    "rps_10": ("rps", "0.9"),
    "rps_50": ("rps", "0.5"),
}
WITH_PRIOR = [f"--prior_epochs={STAGE_1}", f"--epochs={EPOCHS - STAGE_1}", "--prior_path=auto"]
WITHOUT = [f"--epochs={EPOCHS}"]
METHODS = {  # name: flags of train.py
    "annotation": ["--loss=annotation", "--gamma_neg=0", *WITH_PRIOR],
    "csl": ["--loss=csl", "--partial_loss_mode=selective", "--gamma_neg=1", "--gamma_unann=4", "--likelihood_topk=5",
            "--prior_threshold=0.5", *WITH_PRIOR],
    "ignore": ["--loss=csl", "--partial_loss_mode=ignore", "--gamma_neg=0", *WITHOUT],
    "negative": ["--loss=csl", "--partial_loss_mode=negative", "--gamma_neg=0", "--gamma_unann=0", *WITHOUT],
    "all labels known": ["--loss=csl", "--partial_loss_mode=negative", "--gamma_neg=0", *WITHOUT],
}  # fmt: skip
WITHOUT_NEGATIVES = ("negative", "csl", "all labels known")
"""Methods for one positive an image, where no negative is known; CSL without a prior."""


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


def run(args, protocol, seed, method):
    """The row of one run of train.py."""
    scheme, param = PROTOCOLS[protocol]
    flags = METHODS[method]
    if scheme == "single_positive" and method == "csl":  # no prior without negatives
        flags = [flag for flag in flags if flag not in WITH_PRIOR and "prior" not in flag] + WITHOUT
    folder = args.work / f"{protocol}_{seed}_{method.replace(' ', '_')}"
    simulate = [f"--simulate_partial_type={scheme}", *([f"--simulate_partial_param={param}"] if param else [])]
    command = [
        sys.executable, str(ROOT / "train.py"), "--data", str(subset(args.photos, args.work / "photos")),
        "--path_dest", str(folder), "--model_name", NETWORK, "--model_path", str(args.weights),
        "--image_size", str(PIXELS), "--batch_size=64", "--lr=1e-3", "--ema_decay=0.99", "--augment=flip_affine",
        "--weight_decay=1e-4", "--amp", args.amp, "--seed", str(seed), "--device=cpu", "--workers=1",
        "--select_by=annotated", "--cache", str(args.work / "cache"), *flags,
        *([] if method == "all labels known" else simulate),
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    results = json.loads((folder / "results.json").read_text())
    for path in folder.rglob("*.ckpt"):
        path.unlink()
    return {
        "protocol": protocol, "seed": seed, "method": method, "mAP": results["best"]["mAP"], "best": results["best"],
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def show(rows):
    """mAP of each method by protocol, and the difference to CSL by seed."""
    by = {(r["protocol"], r["method"], r["seed"]): r["mAP"] for r in rows}
    for protocol in PROTOCOLS:
        print(f"\n{protocol}")
        for method in METHODS:
            values = {seed: value for (p, m, seed), value in by.items() if (p, m) == (protocol, method)}
            if values:
                against = [
                    f"{v - by[protocol, 'csl', s]:+.2f}" for s, v in values.items() if (protocol, "csl", s) in by
                ]
                print(f"  {method:<18} {statistics.mean(values.values()):6.2f}  {len(values)} seeds, against CSL "
                      f"{', '.join(against)}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of train.json, val.json (COCO) and images/")
    parser.add_argument("--weights", type=Path, help=f"safetensors file for timm's {NETWORK}")
    parser.add_argument("--work", type=Path, default=Path("outputs/partial_labels_tuned"), help="folder of the runs")
    parser.add_argument("--amp", default="auto", help="--amp of train.py (auto)")
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
        done = {(r["protocol"], r["method"], r["seed"]) for r in result["rows"]}
        for seed in args.seeds:
            for protocol in args.protocols:
                for method in args.methods:
                    without = protocol == "single_positive" and method not in WITHOUT_NEGATIVES
                    if (protocol, method, seed) in done or without:
                        continue
                    row = run(args, protocol, seed, method)
                    result["rows"].append(row)
                    args.results.write_text(json.dumps(result, indent=1) + "\n")
                    print(f"{protocol} seed {seed} {method}: mAP {row['mAP']:.2f}", flush=True)
    show(result["rows"])


if __name__ == "__main__":
    main()
