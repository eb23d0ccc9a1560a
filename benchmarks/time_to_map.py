"""What a user waits for: the time to the mAP of the recipe, with less to train, in both precisions, beside a plain loop.

    python benchmarks/time_to_map.py                             # drawn garments: about 80 minutes on two idle cores
    python benchmarks/time_to_map.py --data DIR                  # and 5,000 product photos: about 110 minutes more
    python benchmarks/time_to_map.py --minutes 9                 # begins no row after 9 minutes; call it again to go on
    python benchmarks/time_to_map.py --quick                     # a minute, 80 photos: writes no file

Expected: some way of csl reaches the mAP of the recipe in float32 (means over three seeds) in half of its training time, on
both data sets; `timm`, given the training seconds of `recipe`, has less; bf16 is within the noise of float32 (`paired`).

Every row is a training from scratch of TResNet-M at 64 pixels in a process of its own:

- recipe: 6 epochs of the demo; 3 of the product photos (COCO layout, all labels known, half of which are hidden by the seed).
- fewer: two thirds of these epochs, the same otherwise. progressive: all epochs, with `--progressive_size 32`. short: both.
- shallow: 7 and 3 epochs, of which `--shallow_epochs` are 5 and 2. shallow_more: 8 and 4, of which 6 and 3.
- timm: timm's network, Adam, one cycle and moving average in a plain loop of PyTorch over photos read by Pillow, with the same
  loss, for the training seconds that `recipe` took in the same precision; the schedule goes by the clock.

Training seconds leave evaluations out; the whole time of a row has them, the checks before and the pictures after. mAP is
that of the best evaluation, in percent, on annotated entries of the validation photos, of the network or its moving average.
Rows are written to benchmarks/results/time_to_map.json one by one, seed by seed; those that are there are not measured again.
Rows without seconds trained beside other work: they count for the mAP alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe_machine
from photos import first_photos
from scipy import stats

RESULTS = Path(__file__).parent / "results" / "time_to_map.json"
COMMON = {
    "model_name": "tresnet_m",
    "image_size": 64,
    "augment": "none",
    "optimizer": "adam",
    "device": "cpu",
    "loss": "csl",
}
SETS = {
    "garments": {**COMMON, "epochs": 6, "batch_size": 32, "lr": 3e-3, "group_loss": "softmax"},
    "photos": {**COMMON, "epochs": 3, "batch_size": 64, "lr": 2e-3, "partial_loss_mode": "ignore", "gamma_neg": 0.0,
               "simulate_partial_type": "rps", "simulate_partial_param": 0.5},
}  # fmt: skip
WAYS = {
    "recipe": {},
    "progressive": {"progressive_size": 32},
    "short": {"progressive_size": 32, "epochs": 2 / 3},
    "fewer": {"epochs": 2 / 3},
    "shallow": {"epochs": 7 / 6, "shallow_epochs": 5 / 7},
    "shallow_more": {"epochs": 4 / 3, "shallow_epochs": 3 / 4},
    "timm": None,
}
PRECISIONS = {"float32": "off", "bf16": "bf16"}
PHOTOS = {"train": 5000, "val": 1500}


def config_of(case, folder):
    """The settings of a row of csl; those of `timm` are the recipe's."""
    from csl.runs.config import TrainConfig

    settings = SETS[case["set"]] | (WAYS[case["way"]] or {}) | case["changes"]
    if (share := (WAYS[case["way"]] or {}).get("epochs")) is not None:
        settings["epochs"] = max(1, int(share * (SETS[case["set"]] | case["changes"])["epochs"]))
    if (share := settings.pop("shallow_epochs", None)) is not None and "model_name" not in case["changes"]:
        settings["shallow_epochs"] = round(share * settings["epochs"])  # of a TResNet
    run = {"seed": case["seed"], "amp": PRECISIONS[case["precision"]], "path_dest": str(folder / "run")}
    return TrainConfig(**settings, **run, data=case["data"], images=case["images"])


def train_csl(case, folder):
    """Run in a process of its own: train.py's training, and its log."""
    from csl.runs.folder import RunFolder
    from csl.training.experiment import train

    config = config_of(case, folder)
    best = train(config, lambda line: None if "\n" in line else print(f"  {line}", file=sys.stderr, flush=True))
    run, images, points, seconds = RunFolder(config.path_dest), 0, [], 0.0
    for line in run.log.read_text().splitlines():
        entry = json.loads(line)
        steps = entry["step"] - (points[-1]["step"] if points else 0)
        images = steps * config.batch_size
        seconds += images / entry["images_per_second"]
        maps = [entry[f"mAP_{name}"] for name in ("model", "ema")]
        points.append({"step": entry["step"], "seconds": seconds, "mAP": max(v for v in maps if v is not None)})
    all_labels = json.loads((run.path / "results.json").read_text()).get("mAP_all_labels")
    return {"mAP": best["mAP"], "mAP_all_labels": all_labels, "training_seconds": seconds, "points": points}


def train_timm(case, folder):
    """Run in a process of its own: a plain loop for `case["limit"]` seconds of training."""
    import timm
    import torch
    from PIL import Image
    from timm.utils import ModelEmaV3

    from csl.metrics import mean_average_precision
    from csl.models.exclusive import exclusive_logits
    from csl.training.data import load_data, with_simulated_labels
    from csl.training.start import exclusive_of

    config = config_of(case, folder)
    data = with_simulated_labels(load_data(config, lambda _: None), config, lambda _: None)
    groups, side = exclusive_of(config, data.train), config.image_size

    class Photos(torch.utils.data.Dataset):
        def __init__(self, part):
            self.part = part

        def __len__(self):
            return len(self.part)

        def __getitem__(self, row):
            image = Image.open(self.part.images[row]).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(image)), self.part.labels[row]

    def loader(part, training):
        workers = {"num_workers": 2, "persistent_workers": True} if training else {}
        return torch.utils.data.DataLoader(
            Photos(part), config.batch_size, shuffle=training, drop_last=training, **workers
        )

    def logits_of(network, images):
        x = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last).div_(255)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.amp == "bf16"):
            z = network(x)
        return exclusive_logits(z.float(), groups)

    torch.manual_seed(config.seed)
    model = timm.create_model(config.model_name, num_classes=len(data.train.classes)).to(
        memory_format=torch.channels_last
    )
    loss = config.create_loss(None, None, data.train.labels.shape, groups)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    ticks = 1000
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, ticks + 1, pct_start=0.2)
    average, batches, steps = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True), loader(data.train, True), 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < case["limit"]:
        for images, labels in batches:
            optimizer.zero_grad()
            loss(logits_of(model.train(), images), labels).backward()
            optimizer.step()
            average.update(model, step=steps)
            steps += 1
            if (elapsed := time.perf_counter() - start) >= case["limit"]:
                break
            while schedule.last_epoch < ticks * elapsed / case["limit"]:
                schedule.step()
    maps, targets = [], data.val.labels[np.arange(len(data.val))]
    for network in (model.eval(), average.module.eval()):
        with torch.inference_mode():
            scores = [torch.sigmoid(logits_of(network, images)) for images, _ in loader(data.val, False)]
        maps.append(float(mean_average_precision(torch.cat(scores).numpy(), targets)))
    return {"mAP": max(maps), "training_seconds": elapsed, "steps": steps}


def measure(case):
    """A row, in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--child", json.dumps(case)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    row = {name: case[name] for name in ("set", "way", "precision", "seed")}
    return row | json.loads(out.splitlines()[-1]) | {"seconds": time.perf_counter() - start}


def show(rows):
    """The table: means over the seeds, and differences from the recipe in float32 of the same seed."""
    for name in SETS:
        of_set = [row for row in rows if row["set"] == name]
        reference = {row["seed"]: row for row in of_set if row["way"] == "recipe" and row["precision"] == "float32"}
        reached = []
        for precision in PRECISIONS:
            for way in WAYS:
                found = [row for row in of_set if (row["way"], row["precision"]) == (way, precision)]
                pairs = [(row, reference[row["seed"]]) for row in found if row["seed"] in reference]
                if not pairs:
                    continue
                gain = np.array([row["mAP"] - other["mAP"] for row, other in pairs])
                timed = [pair for pair in pairs if all("training_seconds" in row for row in pair)]
                ratio = np.mean([row["training_seconds"] / other["training_seconds"] for row, other in timed])
                width = stats.sem(gain) * stats.t.ppf(0.975, len(gain) - 1) if len(gain) > 1 else float("nan")
                training, whole = (np.mean([row[key] for row, _ in timed]) for key in ("training_seconds", "seconds"))
                print(f"{name:<10}{precision:<9}{way:<12}mAP {np.mean([row['mAP'] for row, _ in pairs]):6.2f}  training "
                      f"{training:5.0f} s of {whole:5.0f} s in all ({ratio:.2f} x)  paired {gain.mean():+.2f} +- {width:.2f} "
                      f"({len(gain)} seeds)")  # fmt: skip
                if gain.mean() >= 0 and way != "timm":
                    reached.append((ratio, way, precision))
        if reached:
            ratio, way, precision = min(reached)
            print(
                f"{name}: the mAP of the recipe in float32 first by {way} in {precision}, in {ratio:.2f} of its training time\n"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="folder with images/, train.json and val.json (COCO layout), all labels known"
    )
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="which data (both)")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="which rows (all)")
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS), help="(both)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after these (no limit)")
    parser.add_argument("--quick", action="store_true", help="80 photos, one epoch, a small network; writes no file")
    args = parser.parse_args()
    start, load = time.perf_counter(), os.getloadavg()[0]
    held = json.loads(RESULTS.read_text()) if RESULTS.exists() and not args.quick else {"rows": []}
    rows = held["rows"]
    changes = {"model_name": "test_resnet", "epochs": 3, "image_size": 40, "batch_size": 16} if args.quick else {}
    photos = {"train": 80, "val": 40} if args.quick else PHOTOS
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        places = {"garments": (folder / "garments", None)}
        if args.data is not None:
            (folder / "photos").mkdir()
            first_photos(args.data, folder / "photos", photos)
            places["photos"] = folder / "photos", [str(args.data.resolve() / "images")]
        for seed in args.seeds[: 1 if args.quick else None]:
            for name in [name for name in args.sets if name in places]:
                for precision in args.precisions:
                    for way in args.ways:
                        key = {"set": name, "way": way, "precision": precision, "seed": seed}
                        done = {json.dumps({k: row[k] for k in key}): row for row in rows}
                        if json.dumps(key) in done or time.perf_counter() - start > 60 * args.minutes:
                            continue
                        before = done.get(json.dumps(key | {"way": "recipe"}))
                        if way == "timm" and before is None:
                            continue  # which says how long
                        data, images = places[name]
                        if name == "garments" and not data.exists():
                            from csl.garments import make_garments

                            make_garments(data, *((80, 40) if args.quick else ()), progress=False)
                        case = key | {"changes": changes, "data": str(data), "images": images}
                        rows.append(measure(case | {"limit": before and before["training_seconds"]}))
                        print(json.dumps({k: v for k, v in rows[-1].items() if k != "points"}), flush=True)
                        if not args.quick:
                            write(rows, held.get("machine") or machine(load))
    show(rows)


def machine(load):
    import torch

    return describe_machine(load, "torch", "timm", threads=torch.get_num_threads())


def write(rows, described):
    from csl.machine.files import replacing

    RESULTS.parent.mkdir(exist_ok=True)
    with replacing(RESULTS) as file:
        file.write_text(json.dumps({"machine": described, "rows": rows}, indent=1) + "\n")


def child(case):
    with tempfile.TemporaryDirectory() as folder:
        found = (train_timm if case["way"] == "timm" else train_csl)(case, Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
    else:
        main()
