"""Photos a second on one core, from files to the batch that is handed to the device, against the original's transforms.

    python benchmarks/data_speed.py --data coco_mini

The original's transforms are those of CSL and ASL as they are: Pillow opens, decodes and converts the whole photo and
resizes it, CutoutPIL and two operations of RandAugment are painted on the image, ToTensor makes floats, default_collate
stacks them. (The two augmentations are csl's, which equal the packages' pixel for pixel and run on today's NumPy.) Its batch
is float32, ours uint8; either is then put into shared memory, as a loader's worker does it. All take turns on the same
photos, in one process, on one core; a ratio is the median over the batches. Augmentation on the device has a row of its
own: with a GPU it is no core's work.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from PIL import Image
from torch.utils.data import default_collate
from torchvision.transforms import ToTensor

from csl.data.augment import cutout, rand_augment
from csl.data.batch_augment import augment_batch, draw
from csl.data.dataset import ImageDataset, collate
from csl.data.photo_cache import PhotoCache
from csl.data.transforms import TrainTransform
from csl.data.write_shards import write_shards
from csl.labels import Annotations, LabelMatrix, read_annotations
from csl.predict.scoring import to_input

RESULTS = Path(__file__).parent / "results" / "data_speed.json"
SIZES = (224, 448)
ORIGINAL = "original's transforms"
WANTED = {  # ratio to the original's transforms, by size
    "csl original": {224: 1.3, 448: 1.3},
    "csl fast": {224: 2.5, 448: 3.0},
    "csl cache, fast": {224: 4.0, 448: 4.0},
    "csl cache, none": {224: 4.0, 448: 4.0},
}


def annotations_of(folder):
    """All photos of a folder, without labels to speak of: they are no part of this."""
    photos = sorted(str(path) for path in Path(folder).rglob("*.jpg"))
    return Annotations(
        photos, LabelMatrix.from_entries([], [], [], (len(photos), 80)), [f"class {i}" for i in range(80)]
    )


def originals(annotations, size):
    """One batch of photos as the original makes it: (float32 [B, 3, H, W], int8 [B, C])."""
    to_tensor = ToTensor()

    def batch(epoch, rows):
        items = []
        for row in rows:
            rng = np.random.default_rng((0, epoch, row))
            image = Image.open(annotations.images[row]).convert("RGB")
            image = image.resize((size, size), Image.Resampling.BILINEAR)
            image = rand_augment(cutout(image, 0.5, rng), rng)
            items.append((to_tensor(image), annotations.labels[row]))
        return default_collate(items)

    return batch


def ours(dataset):
    """The tensors of one batch of photos as csl's loader workers make it."""

    def batch(epoch, rows):
        made = collate([dataset[epoch, row, row] for row in rows])
        return [made.images, made.targets, made.indices] + ([] if made.draws is None else [made.draws])

    return batch


def peers_for(annotations, size, folder):
    """{name: function (epoch, rows) -> batch}; the cache is warm."""
    peers = {ORIGINAL: originals(annotations, size)}
    for augment in ("original", "fast", "none"):
        peers[f"csl {augment}"] = ours(ImageDataset(annotations, TrainTransform(size, augment), seed=0))
    shards = read_annotations(folder / "shards", split="train")
    peers["csl fast, from shards"] = ours(ImageDataset(shards, TrainTransform(size, "fast"), seed=0))
    for augment in ("original", "fast", "none"):
        transform = TrainTransform(size, augment)
        cache = PhotoCache(folder, annotations.images, transform.height_width, transform.rule, say=lambda line: None)
        dataset = ImageDataset(annotations, transform, seed=0, cache=cache)
        for row in range(len(annotations)):
            dataset.resized(row)
        peers[f"csl cache, {augment}"] = ours(dataset)
    return peers


def measure(peers, num_photos, batch, repeats, clock):
    """{peer: seconds of every batch}, the peers taking turns on each."""
    seconds = {name: [] for name in peers}
    order = list(peers)
    starts = range(0, num_photos - batch + 1, batch) or [0]
    for repeat in range(repeats + 1):
        for start in starts:
            rows = range(start, min(start + batch, num_photos))
            for name in order:
                begin = clock()
                for tensor in peers[name](repeat, rows):
                    tensor.share_memory_()  # a copy, as a worker makes when it hands a batch over
                if repeat:  # the first round warms up
                    seconds[name].append((clock() - begin) / len(rows))
            order.append(order.pop(0))
    return seconds


def compare(annotations, size, batch, repeats, clock, folder):
    """The rows of one size."""
    seconds = measure(peers_for(annotations, size, folder), len(annotations), batch, repeats, clock)
    rows = []
    for name, values in seconds.items():
        ratios = [theirs / our for theirs, our in zip(seconds[ORIGINAL], values, strict=True)]
        rows.append(
            {
                "what": name,
                "size": size,
                "images_per_s": 1 / statistics.median(values),
                "ratio": statistics.median(ratios),
                "ratio_range": [min(ratios), max(ratios)],
                "wanted": WANTED.get(name, {}).get(size),
            }
        )
    return rows


def on_device(size, batch, repeats, device):
    """The device's part of `--augment fast`: uint8 batch on the host to augmented floats on the device."""
    rng = np.random.default_rng(0)
    images = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    draws = torch.from_numpy(np.stack([draw(rng) for _ in range(batch)]))
    if device.type == "cuda":
        images, draws = images.pin_memory(), draws.pin_memory()
    values = {"to floats": [], "to floats and augment": []}
    for repeat in range(repeats + 2):
        for name, augment in (("to floats", False), ("to floats and augment", True)):
            begin = time.perf_counter()
            x = to_input(images, device)
            if augment:
                augment_batch(x, draws.to(device, non_blocking=True))
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 2:
                values[name].append((time.perf_counter() - begin) / batch)
    return [
        {"what": f"{name} on {device.type}", "size": size, "batch": batch, "images_per_s": 1 / statistics.median(v)}
        for name, v in values.items()
    ]


def show(row):
    wanted = f"  (wanted {row['wanted']})" if row.get("wanted") else ""
    ratio = f"{row['ratio']:6.2f} x" if "ratio" in row else ""
    print(f"{row['size']:4}  {row['what']:34}{row['images_per_s']:10.1f} images/s {ratio}{wanted}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of photos (.jpg, at any depth)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sides in pixels (default 224 448)")
    parser.add_argument("--batch", type=int, default=32, help="photos at a time (default 32)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds over the photos (default 7)")
    parser.add_argument("--photos", type=int, help="only so many, for a quick look: writes no file")
    parser.add_argument("--core", type=int, help="the core to run on (default the last this process may use)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu on a busy machine (default wall)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if args.core is None else args.core})
    torch.set_num_threads(1)
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    annotations = annotations_of(args.data)
    if args.photos:
        annotations = annotations.select(range(min(args.photos, len(annotations))))
    sides = [Image.open(path).size for path in annotations.images]
    photos = {
        "folder": Path(args.data).name,
        "number": len(sides),
        "median_size": [int(statistics.median(side)) for side in zip(*sides, strict=True)],
        "mean_bytes": round(statistics.mean(os.path.getsize(path) for path in annotations.images)),
    }
    print(photos)
    devices = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_shards({"train": annotations}, Path(folder) / "shards", say=lambda line: None)
        for size in args.sizes:
            rows += compare(annotations, size, min(args.batch, len(annotations)), args.repeats, clock, Path(folder))
            rows += [row for device in devices for row in on_device(size, args.batch, args.repeats, device)]
            for row in rows:
                if row["size"] == size:
                    show(row)
    if args.photos:
        return
    machine = describe_machine(
        load, "torch", "torchvision", "Pillow", "simplejpeg", "numpy",
        clock=args.clock, gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "photos": photos, "rows": rows}, indent=1) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
