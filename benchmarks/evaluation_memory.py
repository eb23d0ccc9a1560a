"""Memory and time of an evaluation beyond its result, the probabilities, at the size of the OpenImages test set.

    python benchmarks/evaluation_memory.py               # about 4 minutes, 8 GiB of memory
    python benchmarks/evaluation_memory.py --share 0.02  # a quick look at a fiftieth of the images: writes no file

Expected: scoring takes at most 1.2 times the result, on rank 0 of two processes too, where it is all of the gathered scores;
scoring and the metrics of validate.py together at most 1.3 times. Exit status 1 where it is more.

The network is a stand-in that answers at once, with rows of a table of random logits, and the images are one PNG of 8 x 8
pixels many times over: all that is left is reading, keeping and measuring scores. Ten entries of an image are annotated. Every
row is a process (or two) of its own; memory is the highest anonymous memory of it, or of rank 0, less what it was before.
Writes benchmarks/results/evaluation_memory.json and prints a table.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from PIL import Image
from torch import nn

from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import EvalTransform
from csl.inference.validate import evaluate
from csl.labels import Annotations, LabelMatrix
from csl.machine import distributed
from csl.predict import Predictor
from csl.predict.scoring import gather_scores, score

RESULTS = Path(__file__).parent / "results" / "evaluation_memory.json"
IMAGES, CLASSES, BATCH = 125_436, 9_605, 32
ANNOTATED = 10  # entries of an image
# (what, networks, processes, share of the images, at most this many times the result)
ROWS = [
    ("score", 1, 1, 1.0, 1.2),
    ("score", 2, 1, 0.2, 1.2),
    ("score", 1, 2, 0.2, 1.2),
    ("validate", 1, 1, 1.0, 1.3),
]


class Table(nn.Module):
    """Answers a batch of B with B rows of a table of logits, others each time."""

    def __init__(self, seed):
        super().__init__()
        self.rows, self.calls = torch.randn(4 * BATCH, CLASSES, generator=torch.Generator().manual_seed(seed)), 0

    def forward(self, x):
        """[B, 3, H, W] -> [B, C]."""
        self.calls += 1
        start = 7 * self.calls % (3 * BATCH)
        return self.rows[start : start + len(x)]


def annotations_of(images, path):
    """`images` times one file, and some labels of each, an eighth of them positive."""
    rng = np.random.default_rng(0)
    rows, values = np.repeat(np.arange(images), ANNOTATED), rng.random(images * ANNOTATED) < 1 / 8
    columns = rng.integers(0, CLASSES, len(rows))
    labels = LabelMatrix.from_entries(rows, columns, values.astype(np.int8), (images, CLASSES))
    return Annotations([str(path)] * images, labels, [f"class {c}" for c in range(CLASSES)])


def anonymous_bytes():
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def work(what, networks, annotations):
    """Score, or score and measure: the bytes of the result (0 on other ranks than 0) and what should not change."""
    predictor = Predictor(Table(0), list(annotations.classes), None, 8, torch.device("cpu"))
    if what == "validate":
        found = evaluate(predictor, annotations, batch_size=BATCH, workers=0)
        return found.probabilities.nbytes, found.numbers["mAP"]
    loader = create_loader(ImageDataset(annotations, EvalTransform(8)), BATCH, 0, shared=True)
    scores = gather_scores(score([Table(m) for m in range(networks)], loader, predictor.device))
    return (0, 0.0) if scores is None else (scores.probabilities.nbytes, float(scores.probabilities[-1, :, ::99].sum()))


def measure(what, networks, images, path):
    """In a process of its own: memory and seconds of one piece of work."""
    work(what, networks, annotations_of(4 * BATCH, path))  # imports
    annotations, done = annotations_of(images, path), threading.Event()
    before = peak = anonymous_bytes()

    def watch():
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    result, check = work(what, networks, annotations)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"result_bytes": result, "peak_bytes": peak - before, "seconds": seconds, "check": check}


def in_processes(processes, *arguments):
    """Rank 0's measurement in a job of that many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    children = []
    for rank in range(processes):
        place = job | {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port)} if processes > 1 else {}
        command = [sys.executable, __file__, "--child", *map(str, arguments)]
        children.append(subprocess.Popen(command, env=os.environ | place, stdout=subprocess.PIPE, text=True))
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise SystemExit(f"a process failed: {[child.returncode for child in children]}")
    return json.loads(outputs[0].splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="share of the images of each row (default 1)")
    args = parser.parse_args()
    load, rows = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        Image.new("RGB", (8, 8), (10, 120, 250)).save(path)
        for what, networks, processes, share, most in ROWS:
            images = int(IMAGES * share * args.share)
            found = in_processes(processes, what, networks, images, path)
            ratio = found["peak_bytes"] / found["result_bytes"]
            row = {"what": what, "networks": networks, "processes": processes, "images": images, "classes": CLASSES}
            rows.append(row | found | {"ratio": ratio, "at_most": most})
            print(f"{what:<9}{networks} network(s), {processes} process(es), {images:,} x {CLASSES:,}: result "
                  f"{found['result_bytes'] / 2**30:.2f} GiB, peak {found['peak_bytes'] / 2**30:.2f} GiB, {ratio:.2f} x "
                  f"(at most {most}), {found['seconds']:.1f} s", flush=True)  # fmt: skip
    if args.share == 1:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(
            json.dumps({"machine": describe_machine(load, "numpy", "torch"), "rows": rows}, indent=1) + "\n"
        )
        print(f"written: {RESULTS}")
    return int(any(row["ratio"] > row["at_most"] for row in rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        what, networks, images, path = sys.argv[2:]
        with distributed.process_group("cpu"):
            found = measure(what, int(networks), int(images), path)
        print(json.dumps(found))
    else:
        sys.exit(main())
