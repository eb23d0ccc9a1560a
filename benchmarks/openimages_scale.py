"""Labels of OpenImages at full size: time and memory of the reader, of its cache, of pandas, and of the check of the images.

    python benchmarks/openimages_scale.py                                       # full size: 3 GB of disk, minutes
    python benchmarks/openimages_scale.py --rows 1000000 --images 160000        # a look
    python benchmarks/openimages_scale.py --shuffle                             # the rows of an image apart
    python benchmarks/openimages_scale.py --data DIR                            # keep the CSV, and use it again
    python benchmarks/openimages_scale.py --only-check                          # the check of the images, in minutes

Writes a CSV in the form of `oidv6-train-annotations-human-imagelabels.csv`, seeded: 57.5 million verified labels of 9
million images and 9,605 classes, frequencies falling as a power law. Every measurement is a process of its own. Peak
memory is `ru_maxrss`; of the workers, the sum of their private memory (USS) and of their shares of shared pages (PSS).
Writes benchmarks/results/openimages_scale.json and prints a table.

Expected at full size: 15 to 20 s of processor time on one core (most of it in `pyarrow.csv`), 3.3 GiB at the peak, 243 MB
of labels and 180 MB of paths; 0.3 s of processor time from the cache; 6 MB of private memory per worker. On cores that
are busy with something else (`load_before`), `seconds` grows and `cpu_seconds` does not.

pandas is read the way one does at first: `pandas.read_csv(file)`, the labels in a dict of lists. Its process is
stopped at 20 GiB, or at four fifths of the memory that is free; what does not fit is measured on a tenth of the rows
and marked as such.

The check of the images before training runs over 100,000 real files (one JPEG under as many names) and over all 9 million
names with a look at a file that answers at once; `grown_mib` is its highest anonymous memory less that at its start.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "openimages_scale.json"
CSV = "oidv6-train-annotations-human-imagelabels.csv"
CLASSES, WORKERS = 9_605, 8
FILES = 100_000  # real ones that the check of the images opens
PANDAS_LIMIT = 20 * 2**30
_ROWS = 500_000  # written at a time
LIMITS = {"seconds": 120, "peak_gib": 6, "label_mb": 500, "cached_seconds": 5}


def write_labels(folder, rows, images, shuffle, seed=0):
    """The CSV, `oidv6-classes-trainable.txt` and the class descriptions; at least one row per image."""
    rng = np.random.default_rng(seed)
    digits = np.array(list("0123456789bcdfghjklmnpqrstvwxyz_"))  # as in MIDs
    mids = np.array(["/m/0" + "".join(digits[number >> 5 * np.arange(5) & 31]) for number in range(CLASSES)])
    mids = mids[rng.permutation(CLASSES)]
    (folder / "oidv6-classes-trainable.txt").write_text("\n".join(mids) + "\n")
    described = "".join(f"{mid},Class {number}\n" for number, mid in enumerate(mids))
    (folder / "oidv6-class-descriptions.csv").write_text("LabelName,DisplayName\n" + described)

    frequency = 1 / (np.arange(CLASSES) + 20.0) ** 1.1
    frequency /= frequency.sum()
    ids = np.sort(rng.integers(0, 1 << 63, images))
    owners = np.concatenate([np.arange(images), rng.integers(0, images, rows - images)])
    owners = rng.permutation(owners) if shuffle else np.sort(owners)
    with open(folder / CSV, "w") as file:
        file.write("ImageID,Source,LabelName,Confidence\n")
        for start in range(0, rows, _ROWS):
            names = ids[owners[start : start + _ROWS]].tolist()
            classes = rng.choice(CLASSES, len(names), p=frequency)
            values = (rng.random(len(names)) < 0.35).astype(int).tolist()  # a third is positive, as published
            file.write(
                "".join(
                    f"{name:016x},verification,{mid},{value}\n"
                    for name, mid, value in zip(names, mids[classes].tolist(), values, strict=True)
                )
            )


def read_here(folder, rows):
    """Read with csl, in this process: the first time, or from the cache if there is one."""
    import warnings

    from csl.labels import read_openimages

    warnings.simplefilter("ignore")  # contradictions, which random labels have
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    cpu, started = time.process_time(), time.perf_counter()
    annotations = read_openimages(folder)
    seconds = time.perf_counter() - started
    labels = annotations.labels
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "rows_per_second": round(rows / seconds),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "peak_gib_before": round(imported / 2**30, 2),
        "label_mb": round((labels.indptr.nbytes + labels.indices.nbytes + labels.values.nbytes) / 1e6, 1),
        "path_mb": round(annotations.images.nbytes / 1e6, 1),
        "images": len(annotations),
        "classes": len(annotations.classes),
        "labels": len(labels.values),
    }


def pandas_here(folder, rows):
    """`pandas.read_csv`, then a dict of lists, in this process. Fails with MemoryError over the limit."""
    import pandas as pd

    Path("/proc/self/oom_score_adj").write_text("1000")  # if memory does run out, nobody else pays
    resource.setrlimit(resource.RLIMIT_AS, (pandas_limit(), pandas_limit()))
    started = time.perf_counter()
    frame = pd.read_csv(folder / CSV, nrows=rows)
    parsed = time.perf_counter() - started
    labels = {}
    for image, mid, value in zip(frame.ImageID, frame.LabelName, frame.Confidence, strict=True):
        labels.setdefault(image, []).append((mid, value))
    seconds = time.perf_counter() - started
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "seconds_in_read_csv": round(parsed, 2),
        "rows_per_second": round(rows / seconds),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def pandas_limit():
    """Bytes that pandas may use."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min(PANDAS_LIMIT, int(0.8 * free))


def workers_here(folder, rows):
    """Memory of forked workers that have each read labels and paths of random images."""
    import warnings

    from csl.labels import read_openimages

    warnings.simplefilter("ignore")
    annotations = read_openimages(folder)
    before = memory_of(os.getpid())
    ready, go = os.pipe(), os.pipe()
    children = []
    for worker in range(WORKERS):
        child = os.fork()
        if not child:
            rng = np.random.default_rng(worker)
            for batch in rng.integers(0, len(annotations), (500, 256)):
                annotations.labels[batch]
                [annotations.images[row] for row in batch]
            os.write(ready[1], b".")
            os.read(go[0], 1)
            os._exit(0)
        children.append(child)
    done = 0
    while done < WORKERS:
        done += len(os.read(ready[0], WORKERS))
    after = [memory_of(child) for child in children]
    parent = memory_of(os.getpid())
    os.write(go[1], b"." * WORKERS)
    for child in children:
        os.waitpid(child, 0)
    return {
        "workers": WORKERS,
        "rows_read_by_each": 500 * 256,
        "parent_before_mb": before,
        "parent_after_mb": parent,
        "uss_mb_each": round(sum(one["uss"] for one in after) / WORKERS, 1),
        "pss_mb_all": round(sum(one["pss"] for one in after) + parent["pss"], 1),
        "growth_mb_all": round(sum(one["pss"] for one in after) + parent["pss"] - before["pss"], 1),
    }


def memory_of(process):
    """PSS and USS in MB."""
    fields = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split(":")
        fields[name] = int(size.split()[0]) * 1024 / 1e6
    return {
        "pss": round(fields["Pss"], 1),
        "uss": round(fields["Private_Clean"] + fields["Private_Dirty"], 1),
        "anonymous": round(fields["Anonymous"], 1),
    }


def check_here(folder, images):
    """Time and memory of the check of the image files: of real ones, and of names alone."""
    from PIL import Image

    from csl.data import checking
    from csl.labels import ImagePaths

    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.jpg")
    found = {"files": highest(checking.find_bad_images, [str(folder / "a.jpg")] * min(images, FILES))}
    checking.check_image = lambda path, roots: None
    ends = 20 * np.arange(images + 1)
    data = np.frombuffer(b"".join(b"%020d" % n for n in range(images)), np.uint8)
    paths = ImagePaths(data, ends, str(folder), ".jpg")
    return found | {"names": highest(checking.find_bad_images, paths)}


def highest(function, paths):
    """Seconds of a call, and by how much the process's anonymous memory grew at most."""
    before, peak, done = memory_of(os.getpid())["anonymous"], [0.0], threading.Event()

    def watch():
        while not done.wait(0.1):
            peak[0] = max(peak[0], memory_of(os.getpid())["anonymous"])

    watching, started = threading.Thread(target=watch), time.perf_counter()
    watching.start()
    function(paths, progress=False)
    seconds = time.perf_counter() - started
    done.set()
    watching.join()
    return {"images": len(paths), "seconds": round(seconds, 1), "grown_mib": round((peak[0] - before) * 1e6 / 2**20, 1)}


MEASUREMENTS = {"check": check_here, "read": read_here, "workers": workers_here, "pandas": pandas_here}


def in_child(name, folder, rows):
    """The measurement in a process of its own; None where it ran out of memory."""
    command = [sys.executable, __file__, "--child", name, str(folder), str(rows)]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        stopped = found.returncode == -9 or "MemoryError" in found.stderr or "malloc" in found.stderr
        if name == "pandas" and stopped:
            return None
        raise SystemExit(found.stderr)
    return json.loads(found.stdout)


def machine(load):
    """What the numbers belong to."""
    return describe_machine(load, "numpy", "pyarrow", "pandas")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=57_500_000)
    parser.add_argument("--images", type=int, default=9_000_000)
    parser.add_argument("--shuffle", action="store_true", help="rows in random order, not image by image")
    parser.add_argument("--pandas-rows", type=int, help="rows that pandas reads (default: all)")
    parser.add_argument("--data", type=Path, help="folder for the CSV, which is kept and, if there, used as it is")
    parser.add_argument("--dir", help="folder for the temporary files (default: the system's)")
    parser.add_argument(
        "--only-check", action="store_true", help="the check of the images alone; the rest stays as it is"
    )
    parser.add_argument("--no-result", action="store_true", help="do not write the results file")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if args.only_check:
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            check = {"machine": machine(load), **in_child("check", folder, args.images)}
        print(check)
        if not args.no_result:
            RESULTS.write_text(json.dumps(json.loads(RESULTS.read_text()) | {"check": check}, indent=1) + "\n")
        return
    needed, free = 60 * args.rows, shutil.disk_usage(args.dir or tempfile.gettempdir()).free
    if free < needed:
        raise SystemExit(f"{free / 2**30:.0f} GiB free, expected {needed / 2**30:.0f} (see --dir)")

    result = {"rows": args.rows, "images": args.images, "classes": CLASSES, "shuffled": args.shuffle}
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        folder = args.data or Path(folder)
        started = time.perf_counter()
        if not (folder / CSV).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_labels(folder, args.rows, args.images, args.shuffle)
            print(f"wrote the CSV in {time.perf_counter() - started:.0f} s", flush=True)
        for stale in folder.glob("*.cache"):
            shutil.rmtree(stale)
        result["csv_mb"] = round((folder / CSV).stat().st_size / 1e6)
        for name, measurement in (("first", "read"), ("cached", "read"), ("workers", "workers")):
            result[name] = in_child(measurement, folder, args.rows)
            print(f"{name}: {result[name]}", flush=True)
        result["check"] = in_child("check", folder, args.images)
        print(f"check: {result['check']}", flush=True)
        shown, limit = args.pandas_rows or args.rows, pandas_limit()
        result["pandas"] = in_child("pandas", folder, shown)
        if result["pandas"] is None:
            shown = shown // 10
            too_much = {"full_size": f"more than {limit / 2**30:.0f} GiB"}
            result["pandas"] = too_much | in_child("pandas", folder, shown)
        print(f"pandas, {shown:,} rows: {result['pandas']}", flush=True)
    found = {
        "seconds": result["first"]["seconds"],
        "peak_gib": result["first"]["peak_gib"],
        "label_mb": result["first"]["label_mb"],
        "cached_seconds": result["cached"]["seconds"],
    }
    print("\n".join(f"{name:<16} {found[name]:>8} of at most {limit}" for name, limit in LIMITS.items()))
    if not args.no_result:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({"machine": machine(load), "limits": LIMITS, **result}, indent=1) + "\n")
        print(f"written: {RESULTS}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        measurement, folder, rows = sys.argv[2:]
        print(json.dumps(MEASUREMENTS[measurement](Path(folder), int(rows))))
    else:
        main()
