"""Average precision of all classes: csl.metrics against the original's loop and scikit-learn.

    python benchmarks/metrics_speed.py                 # about 10 minutes; 8 GB of temporary files, deleted at the end
    python benchmarks/metrics_speed.py --large 0       # without the OpenImages-sized part

Expected on two idle cores of an AMD EPYC (Zen 4): 20,000 x 1,000 in 0.15 s, the original's loop 8 times and scikit-learn
25 times as long; NumPy sorts with AVX-512, which a Zen 4 is slow at, and takes twice that. 125,436 x 9,605, the size of the
OpenImages test set, memory-mapped and fully annotated, in 22 s with less than half a GiB of working memory.

Every measurement is a process of its own. Times are medians over all calls but the first of each process, so that the
files are in the page cache. The working memory is the highest anonymous memory of the process during that first call, less
what it was before; the peak is `ru_maxrss`, which also counts every page of the mapped files that was read.
Writes benchmarks/results/metrics_speed.json and prints a table.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "metrics_speed.json"
SMALL, LARGE = (20_000, 1_000), (125_436, 9_605)
POSITIVES = 0.03  # as in COCO, where an image has three of the 80 classes
PEER_CLASSES = 100  # of the large matrix, for the two that work class by class; their time is scaled up


def original_loop(scores, targets):
    """AP as the original computes it: rank one class, then average the precision at its positives."""
    result = []
    for c in range(scores.shape[1]):
        known = targets[:, c] >= 0
        hits = targets[known, c][np.argsort(-scores[known, c])] == 1
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        result.append(precision[hits].sum() / (hits.sum() + 1e-8))
    return np.array(result)


def sklearn_loop(scores, targets):
    from sklearn.metrics import average_precision_score

    result = []
    for c in range(scores.shape[1]):
        known = targets[:, c] >= 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class without positives
            result.append(average_precision_score(targets[known, c], scores[known, c]))
    return np.array(result)


def ours(scores, targets):
    from csl.metrics import average_precision

    return average_precision(scores, targets)


def ours_negative(scores, targets):
    from csl.metrics import mean_average_precision

    return mean_average_precision(scores, targets, unannotated="negative")


# NumPy chooses its sort when it is imported. The one for AVX-512 stores compressed vectors, which AMD's Zen 4 is slow at:
# there NumPy's sort for AVX2 is three times as fast. This row says how much of the time is that choice.
NO_AVX512 = "csl, NumPy's AVX2 sort"
METHODS = {
    "csl": ours,
    NO_AVX512: ours,
    "csl, unknown as negative": ours_negative,
    "original": original_loop,
    "scikit-learn": sklearn_loop,
}


def write_matrices(folder, shape, unknown):
    """scores.npy (float32, uniform) and one labels file per share of unknown entries, chunk by chunk."""
    rng = np.random.default_rng(0)
    make = np.lib.format.open_memmap
    scores = make(folder / "scores.npy", "w+", np.float32, shape)
    labels = [make(folder / f"labels_{share}.npy", "w+", np.int8, shape) for share in unknown]
    for first in range(0, shape[0], 2048):
        rows = slice(first, first + 2048)
        size = scores[rows].shape
        scores[rows] = rng.random(size, dtype=np.float32)
        positive = rng.random(size, dtype=np.float32) < POSITIVES
        hidden = rng.random(size, dtype=np.float32)
        for share, matrix in zip(unknown, labels, strict=True):
            matrix[rows] = np.where(hidden < share, -1, positive)


def anonymous_mib():
    """Memory of this process that no file backs, in MiB; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), None)


def measure(folder, share, method, classes, repeats, mapped):
    """Run in a process of its own: seconds of each call, memory, and the first APs to compare."""
    mode = "r" if mapped else None
    scores = np.load(folder / "scores.npy", mmap_mode=mode)
    targets = np.load(folder / f"labels_{share}.npy", mmap_mode=mode)
    if classes:
        scores, targets = scores[:, :classes], targets[:, :classes]
    METHODS[method](np.eye(4), np.eye(4, dtype=np.int8))  # imports
    before, peak, done = anonymous_mib(), 0.0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_mib() or 0.0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = METHODS[method](scores, targets)  # the first call is not timed: who watches takes part of the time
    done.set()
    watcher.join()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        METHODS[method](scores, targets)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds,
        "working_mib": None if before is None else max(0.0, peak - before),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (2**20 if sys.platform == "darwin" else 1024),
        "ap": np.atleast_1d(result)[:PEER_CLASSES].tolist(),
    }


def avx512_features():
    """Names of NumPy's code for AVX-512 that this processor runs; empty where it has none."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return [name for name in found if name == "X86_V4" or name.startswith("AVX512")]


def in_process(folder, share, method, classes=0, repeats=3, mapped=False):
    arguments = ["--child", str(folder), str(share), method, str(classes), str(repeats), str(int(mapped))]
    environment = os.environ | (
        {"NPY_DISABLE_CPU_FEATURES": " ".join(avx512_features())} if method == NO_AVX512 else {}
    )
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return json.loads(done.stdout)


def row(shape, share, method, found, scale=1.0, note=""):
    return {
        "samples": shape[0],
        "classes": shape[1],
        "unknown": share,
        "method": method,
        "seconds": scale * statistics.median(found["seconds"]),
        "all_seconds": [scale * value for value in found["seconds"]],
        "working_mib": found["working_mib"],
        "peak_rss_mib": found["peak_rss_mib"],
        "note": note,
    }


def compare(folder, shape, unknown, rounds, repeats, peer_classes=0, mapped=False):
    """Rows of one matrix: ours and the two peers at each share of unknown entries, checked against each other.

    Methods take turns, `rounds` times `repeats` calls each, so that a busy moment of the machine does not hit only one.
    """
    rows = []
    for share in unknown:
        methods = ["csl", "original", "scikit-learn"]
        if not mapped and avx512_features():
            methods.insert(1, NO_AVX512)
        if share and mapped:
            methods.insert(1, "csl, unknown as negative")
        scale = dict.fromkeys(methods, 1.0)
        if peer_classes:
            scale["original"] = scale["scikit-learn"] = shape[1] / peer_classes
        found = {method: [] for method in methods}
        for _ in range(rounds):
            for method in methods:
                classes = peer_classes if scale[method] > 1 else 0
                found[method].append(in_process(folder, share, method, classes, repeats, mapped))
        ours_seconds = statistics.median(value for run in found["csl"] for value in run["seconds"])
        for method in methods:
            runs = found[method]
            total = {
                "seconds": [value for run in runs for value in run["seconds"]],
                "working_mib": max(
                    (run["working_mib"] for run in runs if run["working_mib"] is not None), default=None
                ),
                "peak_rss_mib": max(run["peak_rss_mib"] for run in runs),
            }
            note = f"{peer_classes} classes x {scale[method]:.0f}" if scale[method] > 1 else ""
            one = row(shape, share, method, total, scale[method], note)
            if method in ("original", "scikit-learn"):
                one["times_ours"] = one["seconds"] / ours_seconds
                # float32 scores tie here and there, and the loop ranks ties in arbitrary order; scikit-learn does not
                difference = np.nanmax(np.abs(np.array(found["csl"][0]["ap"]) - np.array(runs[0]["ap"])))
                if difference > (1e-12 if method == "scikit-learn" else 1e-2):
                    raise SystemExit(f"{method} and csl differ by {difference} on {shape}, {share} unknown")
                one["largest_difference"] = difference
            rows.append(one)
            print_row(one)
    return rows


def print_row(one):
    def show(name, pattern):
        return pattern.format(one[name]) if one.get(name) is not None else "-"

    cells = (
        f"{one['samples']:>7} x {one['classes']:<5}",
        f"{show('unknown', '{:.1%}'):>8}",
        f"{one['method']:<25}",
        f"{show('seconds', '{:.3f} s'):>10}",
        f"{show('times_ours', '{:.1f} x'):>8}",
        f"{show('working_mib', '{:.0f} MiB'):>10}",
        f"{show('peak_rss_mib', '{:.0f} MiB'):>10}",
        one["note"],
    )
    print("  ".join(cells).rstrip(), flush=True)


def machine(load):
    """What the numbers belong to."""
    return describe_machine(load, "numpy", "scikit-learn", "torch")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats", type=int, default=5, help="rounds of three calls on the smaller matrix (default 5)"
    )
    parser.add_argument("--large", type=int, default=1, help="0 leaves the 125,436 x 9,605 part out (default 1)")
    parser.add_argument("--dir", help="folder for the temporary matrices (default: the system's)")
    args = parser.parse_args()
    load = os.getloadavg()[0]

    names = f"{'samples x classes':<15}", f"{'unknown':>6}", f"{'method':<25}", f"{'median':>10}", f"{'/ csl':>8}"
    print("  ".join((*names, f"{'working':>10}", f"{'peak RSS':>10}")))
    rows = []
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        folder = Path(folder)
        write_matrices(folder, SMALL, (0.0, 0.8))
        rows += compare(folder, SMALL, (0.0, 0.8), args.repeats, 3)
        if args.large:
            needed, free = LARGE[0] * LARGE[1] * 6, shutil.disk_usage(folder).free
            if free < 1.2 * needed:
                raise SystemExit(
                    f"{folder}: {free / 2**30:.0f} GiB free, expected {1.2 * needed / 2**30:.0f} (see --dir)"
                )
            write_matrices(folder, LARGE, (0.0, 0.999))
            rows += compare(folder, LARGE, (0.0, 0.999), 1, 3, PEER_CLASSES, mapped=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine(load), "rows": rows}, indent=1) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        folder, share, method, classes, repeats, mapped = sys.argv[2:]
        print(json.dumps(measure(Path(folder), float(share), method, int(classes), int(repeats), mapped == "1")))
    else:
        main()
