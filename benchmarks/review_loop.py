"""The loop of a new user on drawn garments: train, suggest, answer 300 questions by key in a browser, and train again.

    python benchmarks/review_loop.py --weights FILE              # seeds 0, 1 and 2
    python benchmarks/review_loop.py --weights FILE --seeds 0

Garments are drawn; of their training labels as many more are hidden as makes the share `--unknown`. `csl train` trains a
network that starts from `--weights` (a file for timm's `tf_efficientnet_lite0`), `csl suggest --for training` writes the
questions, `csl review` serves them, and a headless Chromium presses a key for each as soon as its photo is drawn: the digit of
the true value (of the tenth, which has no key: y where it is asked for, n where another one is). The same training follows
with the answers in `reviews.csv`, and, for comparison, with as many answers to unknown attributes that are drawn at random.
mAP is of the validation images with all labels known.

Needs playwright and a Chromium. Writes benchmarks/results/review_loop.json after each seed and prints a table.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from machine import describe_machine

from csl.__main__ import main as csl
from csl.garments import make_garments
from csl.labels import read_annotations
from csl.labels.reviews import COLUMNS, REVIEWS

RESULTS = Path(__file__).parent / "results" / "review_loop.json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ORDERS = ("before", "suggested", "random")  # answers

BY_KEY = """
async (truth) => {  // press the key that is right, wait until the next photo is decoded and drawn, and so on
  const frame = () => new Promise(requestAnimationFrame), start = performance.now(), keys = [];
  while (current) {
    const {id, values} = current, there = truth[current.image.split("/").pop()];
    const place = values.findIndex(([name]) => there.includes(name));
    const key = 0 <= place && place < 9 ? String(place + 1) : there.includes(current.class) ? "y" : "n";
    document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    keys.push(key);
    while (current?.id === id) await frame();
    if (current) await $("photo").decode();
    await frame();
  }
  while (waiting.length) await frame();
  return {seconds: (performance.now() - start) / 1000, keys};
}"""


def draw(folder, args, seed):
    """The garments, with a share of their training labels known; {file name: classes of the image}."""
    make_garments(folder, num_train=args.train, num_val=args.val, size=args.size, seed=seed, progress=False)
    table = pd.read_csv(folder / "attributes.csv", dtype=str, keep_default_na=False)
    names = [name for name in table if name not in ("filename", "split")]
    known = (table[names] != "#N/A").to_numpy()
    of_train = (table["split"] == "train").to_numpy()
    kept = (1 - args.unknown) / known[of_train].mean()
    hidden = known & of_train[:, None] & (np.random.default_rng(seed).random(known.shape) >= kept)
    table[names] = table[names].mask(hidden, "#N/A")
    table.to_csv(folder / "attributes.csv", index=False, lineterminator="\n")
    truth = read_annotations(folder / "truth.csv", split="train", images=str(folder / "images"))
    rows = (np.flatnonzero(row == 1) for row in truth.labels.to_dense())
    return {Path(path).name: [truth.classes[c] for c in row] for path, row in zip(truth.images, rows, strict=True)}


def trained(data, run, args, seed):
    """The results of a training."""
    words = [
        "train",
        "--data",
        data,
        "--image_size",
        args.size,
        "--model_name",
        args.model,
        "--model_path",
        args.weights,
    ]
    words += [
        "--loss",
        "csl",
        "--group_loss",
        "softmax",
    ]  # what --loss auto takes for attributes, from scratch: no probe
    words += [
        "--epochs",
        args.epochs,
        "--lr",
        args.lr,
        "--batch_size",
        args.batch_size,
        "--workers",
        0,
        "--seed",
        seed,
        "--path_dest",
        run,
    ]
    run_csl(*words)
    return json.loads((run / "results.json").read_text())


def run_csl(*words):
    words = [str(word) for word in words]
    print("\n$ csl", *words, flush=True)
    if status := csl(words):
        sys.exit(f"csl {words[0]}: status {status}")


def answered(run, truth, browser):
    """Answer all questions of a run by key; seconds in all, and the keys."""
    from playwright.sync_api import sync_playwright

    words = [sys.executable, "-m", "csl", "review", str(run), "--port", "0"]
    print("\n$ csl", *words[3:], flush=True)
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        address = None
        while address is None:
            line = server.stdout.readline()
            if not line:
                sys.exit("csl review ended")
            print(line, end="")
            address = re.search(r"http://\S+/", line)
        with sync_playwright() as play:
            args = ["--no-sandbox"] if hasattr(os, "getuid") and os.getuid() == 0 else []
            page = play.chromium.launch(executable_path=browser, args=args).new_page()
            page.set_default_timeout(600_000)
            page.goto(address[0])
            page.wait_for_selector("#single:not([hidden])")
            found = page.evaluate(BY_KEY, truth)
    finally:
        server.send_signal(signal.SIGINT)
        print(server.communicate()[0])
    return found


def at_random(data, truth, count, seed):
    """Answers to unknown attributes of training images, drawn at random."""
    known = read_annotations(data, split="train", reviews="none")
    attributes = [group for group in known.groups.values()]
    labels = known.labels.to_dense()
    open_ = [(row, group) for row in range(len(known)) for group in attributes if (labels[row, group] == -1).all()]
    drawn = np.random.default_rng(seed).permutation(len(open_))[:count]
    rows = []
    for row, group in (open_[k] for k in drawn):
        (name,) = set(known.classes[group]) & set(truth[Path(known.images[row]).name])
        rows.append((known.names[row], name, "yes", "", "2026-01-01T00:00:00+00:00"))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(data / REVIEWS, index=False)


def of_seed(folder, args, seed):
    data = folder / "garments"
    truth = draw(data, args, seed)
    runs = {order: folder / order for order in ORDERS}
    results = {"before": trained(data, runs["before"], args, seed)}
    run_csl("suggest", runs["before"], "--for", "training", "--top", args.answers)
    start = time.monotonic()
    found = answered(runs["before"], truth, args.browser)
    answers = pd.read_csv(data / REVIEWS)
    row = {
        "seed": seed, "questions": len(pd.read_csv(runs["before"] / "suggestions.csv")), "answers": len(answers),
        "yes": int((answers["answer"] == "yes").sum()), "seconds": found["seconds"],
        "seconds_an_answer": found["seconds"] / len(found["keys"]), "seconds_with_start": time.monotonic() - start,
    }  # fmt: skip
    results["suggested"] = trained(data, runs["suggested"], args, seed)
    run_csl("compare", runs["before"], runs["suggested"])
    at_random(data, truth, args.answers, seed)
    results["random"] = trained(data, runs["random"], args, seed)
    return row | {order: results[order]["mAP_all_labels"] for order in ORDERS}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=300, help="images")
    parser.add_argument("--val", type=int, default=100, help="images")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--unknown", type=float, default=0.85, help="share of the training labels")
    parser.add_argument("--answers", type=int, default=300)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", required=True, metavar="FILE", help="that the network starts from")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--browser", default=next(filter(None, map(shutil.which, BROWSERS)), None), help="a Chromium")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.browser is None:
        parser.error(f"no browser found, expected one of {', '.join(BROWSERS)}, or --browser")
    settings = {
        name: value for name, value in vars(args).items() if name not in ("seeds", "browser", "results", "weights")
    }
    machine = describe_machine(os.getloadavg()[0], "torch", "timm", "playwright")
    rows = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(of_seed(Path(folder), args, seed))
        args.results.write_text(json.dumps({"machine": machine, "settings": settings, "rows": rows}, indent=1) + "\n")
    print("\n| seed | before | suggested | random | ms an answer |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['seed']} |",
            *(f"{row[order]:.2f} |" for order in ORDERS),
            f"{1000 * row['seconds_an_answer']:.0f} |",
        )
    for order in ORDERS[1:]:
        gains = [row[order] - row["before"] for row in rows]
        print(f"{order}: {statistics.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})")


if __name__ == "__main__":
    main()
