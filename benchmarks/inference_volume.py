"""Photos per second of infer.py over a folder, against plain loops of Pillow and PyTorch with the same weights.

    python benchmarks/inference_volume.py                         # 10,000 drawn photos: about 45 minutes on two cores
    python benchmarks/inference_volume.py --repeats 1 --plain16 0 --memory 0     # one folder of 10,000, in 30 minutes
    python benchmarks/inference_volume.py --photos DIR --count 400 --repeats 3   # a quick look, which writes no file
    python benchmarks/inference_volume.py --names                 # seconds, no file: the time to name the classes of an image
    python benchmarks/inference_volume.py --model_path best.ckpt  # a trained network (random TResNet-M)
    python benchmarks/inference_volume.py --engines all --batch 16 --count 800 --repeats 2 --plain16 0 --memory 0 --results \
        benchmarks/results/engine_volume_16.json                  # every --engine of infer.py, and timm; then --batch 1

Expected on two idle cores: infer.py at least 1.5 times the plain loop.

The photos are JPEG files of 640 x 480 in a temporary folder: drawn garments, or copies of `--photos` brought to that size,
many names for a few hundred files. The peers, each in a process of its own, take turns over the same photos:

    plain     for each photo: PIL.Image.open, convert, resize to 224 (bilinear), tensor, network, sigmoid, a row of a list
    plain 16  the same, 16 photos at a time through the network
    infer     csl.inference.infer.infer with its defaults, CSV written as it goes and joined at the end
    onnx      the same with `python -m csl export`'s file (with --onnx)
    infer torch, infer openvino bf16, ...     the same with that --engine, in float32, --amp bf16, or as the int8 file of
                                              `python -m csl export --int8` (with --engines)
    timm, timm bf16     the plain loop with timm's network, channels-last, --batch photos at a time (with --engines)

"The network" of the plain loops is what `csl.checkpoint.load_model` gives, in eval mode under inference_mode, as it was
loaded: not fused, eager, on all of PyTorch's threads. Loading the network and the first photo are not in the times of the
plain loops; infer's time is all of its call but loading the network. Each repeat takes the next photos of the folder.
The last rows run infer over N and 4 N photos and give the highest memory of its process and of its largest worker.
Writes benchmarks/results/inference_volume.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from machine import describe_machine
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "inference_volume.json"
WIDTH, HEIGHT, SIZE = 640, 480, 224
DIFFERENT = 200
TARGET = 1.5
QUICK = 500


def make_photos(folder, count, source):
    """`count` names of at most DIFFERENT photos of WIDTH x HEIGHT in `folder`."""
    from csl.garments import make_garments
    from csl.predict import find_images

    drawn = folder / "drawn"
    if source is None:
        source = make_garments(drawn, num_train=1, num_val=min(count, DIFFERENT) - 1, size=HEIGHT, progress=False)
    paths = find_images(source)[:DIFFERENT]
    originals, photos = folder / "originals", folder / "photos"
    originals.mkdir()
    photos.mkdir()
    for i, path in enumerate(paths):
        image = Image.open(path).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        image.save(originals / f"{i}.jpg", quality=90)
    for i in range(count):
        os.link(originals / f"{i % len(paths)}.jpg", photos / f"{i:07}.jpg")
    return sorted(map(str, photos.iterdir()))


def time_names():
    """Print the milliseconds an image that csl.predict.name_scores takes, for 80 and 9,605 classes."""
    import numpy as np

    from csl.predict import name_scores

    for classes, images in ((80, 2000), (9605, 500)):
        probabilities = np.random.default_rng(0).random((images, classes), dtype=np.float32) ** 20  # 1.8 % over 0.7
        names, times = [str(c) for c in range(classes)], []
        for _ in range(5):
            started = time.perf_counter()
            for row in probabilities:
                name_scores(row, names)
            times.append((time.perf_counter() - started) / images)
        print(f"names of {classes:,} classes: {1000 * statistics.median(times):.4f} ms an image")


def timm_network():
    """timm's network of the same kind."""
    import timm

    return timm.create_model("tresnet_m", num_classes=80).eval().to(memory_format=torch.channels_last)


def plain(model, paths, batch, bf16=False):
    """Seconds of the loop that one would write without csl.data and csl.inference.infer."""
    import numpy as np

    rows = []

    def load(path):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255  # [3, H, W]

    def run(some):
        x = torch.stack([load(path) for path in some])  # [B, 3, H, W]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(x)
        rows.extend(zip(some, torch.sigmoid(logits.float()).numpy(), strict=True))

    with torch.inference_mode():
        run(paths[:batch])
        rows.clear()
        start = time.perf_counter()
        for i in range(0, len(paths), batch):
            run(paths[i : i + batch])
        return time.perf_counter() - start


def streamed(weights, paths, folder, **how):
    """Seconds of infer.py's own function over a list of photos, without loading the network; `how` are more of its options."""
    from csl.inference import infer as inference
    from csl.predict import Predictor

    listed = Path(folder, "photos.txt")
    listed.write_text("\n".join(paths))
    loading = []
    load = Predictor.load

    def timed(*args, **kwargs):
        start = time.perf_counter()
        found = load(*args, **kwargs)
        loading.append(time.perf_counter() - start)
        return found

    Predictor.load = timed
    options = inference.InferenceOptions(
        pic_path=str(listed),
        model_path=str(weights),
        image_size=SIZE,
        output=str(Path(folder, "predictions.csv")),
        th=0.3,
        **how,
    )
    start = time.perf_counter()
    inference.infer(options, say=lambda line: None)
    return time.perf_counter() - start - sum(loading)


def child(peer, batch, weights, paths):
    """In a process of its own: {"seconds", "peak_mib", "worker_peak_mib"} of a peer."""
    kind, *words = peer.split()
    bf16 = "bf16" in words
    with tempfile.TemporaryDirectory() as folder:
        if kind == "timm":
            seconds = plain(timm_network(), paths, batch or 16, bf16)
        elif kind == "plain":
            from csl import checkpoint

            seconds = plain(checkpoint.load_model(weights)[0], paths, 16 if "16" in words else 1)
        else:
            how = {"engine": words[0], "amp": "bf16" if bf16 else "off"} if words else {}
            seconds = streamed(weights, paths, folder, **how, **({"batch_size": batch} if batch else {}))
    of = {"peak_mib": resource.RUSAGE_SELF, "worker_peak_mib": resource.RUSAGE_CHILDREN}
    return {"seconds": seconds, **{name: resource.getrusage(who).ru_maxrss / 1024 for name, who in of.items()}}


def run(peer, weights, paths, batch=0):
    """A peer over `paths`, in a process of its own."""
    command = [sys.executable, __file__, "--child", peer, str(batch), str(weights)]
    out = subprocess.run(command, input="\n".join(paths), check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(out.stdout.splitlines()[-1])
    return found | {"images": len(paths), "images_per_s": len(paths) / found["seconds"]}


def write_weights(folder):
    """A checkpoint of TResNet-M with random weights."""
    from csl import checkpoint
    from csl.models import create_model

    torch.manual_seed(0)
    model = create_model("tresnet_m", num_classes=80)
    path = folder / "best.ckpt"
    checkpoint.write(path, {"model": model.state_dict(), "model_name": "tresnet_m", "num_classes": 80})
    return path


def int8_file(weights, folder):
    """The export of a checkpoint in int8, calibrated on the photos."""
    from csl.export import ExportOptions, export

    out, photos = str(folder / "int8.onnx"), str(folder / "originals")
    return export(
        ExportOptions(model_path=str(weights), image_size=SIZE, out=out, int8=True, calibrate=photos), lambda _: None
    )


def engines(text):
    """The value of --engines."""
    return ["torch", "openvino", "onnx"] if text == "all" else text.split(",")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="photos of all turns together (default 10000)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each peer (default 5)")
    parser.add_argument("--photos", help="folder of photos to take copies of (drawn garments)")
    parser.add_argument("--model_path", help="checkpoint (random TResNet-M, 80 classes)")
    parser.add_argument("--onnx", action="store_true", help="export the network, and run that file as well")
    parser.add_argument("--plain16", type=int, default=1, help="0 leaves the loop of 16 at a time out (default 1)")
    parser.add_argument("--memory", type=int, default=500, help="N of the memory rows; 0 leaves them out (default 500)")
    parser.add_argument(
        "--engines", type=engines, default=[], metavar="A,B", help="torch, openvino, onnx; all: all of them"
    )
    parser.add_argument("--batch", type=int, default=0, help="photos at a time of infer and timm (infer's default; 16)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="what to write")
    parser.add_argument("--names", action="store_true", help="only time how the classes of an image are named")
    args = parser.parse_args()
    if args.names:
        time_names()
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        weights = args.model_path or write_weights(folder)
        files = {"plain": weights} | ({"plain 16": weights} if args.plain16 else {}) | {"infer": weights}
        if args.onnx:
            from csl.export import ExportOptions, export

            files["onnx"] = export(
                ExportOptions(model_path=str(weights), image_size=SIZE, out=str(folder / "best.onnx"))
            )
        paths = make_photos(folder, args.count, args.photos)
        for engine in args.engines:
            for precision in ("",) if engine == "onnx" else ("", " bf16"):
                files |= {f"infer {engine}{precision}": weights, f"timm{precision}": weights}
        if exported := [engine for engine in args.engines if engine != "torch"]:
            files |= dict.fromkeys((f"infer {engine} int8" for engine in exported), int8_file(weights, folder))
        part = len(paths) // args.repeats
        found = {peer: [] for peer in files}
        order = list(files)
        for repeat in range(args.repeats):
            some = paths[repeat * part : (repeat + 1) * part]
            for peer in order:
                found[peer].append(run(peer, files[peer], some, args.batch))
                print(f"turn {repeat + 1}: {peer:20} {found[peer][-1]['images_per_s']:8.2f} images/s", flush=True)
            order.append(order.pop(0))
        rates = {peer: statistics.median(one["images_per_s"] for one in ones) for peer, ones in found.items()}
        memory = []
        for count in (args.memory, 4 * args.memory) if args.memory else ():
            some = (paths * (count // len(paths) + 1))[:count]
            memory.append(run("infer", files["infer"], some))
            print(
                f"infer over {count:,} photos: {memory[-1]['peak_mib']:.0f} MiB, worker {memory[-1]['worker_peak_mib']:.0f} MiB"
            )
    loops = [peer for peer in files if peer.startswith(("plain", "timm"))]
    ratios = {f"{ours} / {peer}": rates[ours] / rates[peer] for ours in files if ours not in loops for peer in loops}
    for peer, rate in rates.items():
        print(f"{peer:20} {rate:8.2f} images/s (median of {args.repeats} turns of {part:,} photos)")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} x" + (f" (wanted {TARGET})" if name == "infer / plain" else ""))
    if args.count < QUICK:
        return
    settings = {k: v for k, v in vars(args).items() if k != "results"}
    settings |= {"size": SIZE, "photos": "drawn garments" if args.photos is None else "copies of photos"}
    settings["model_path"] = "random TResNet-M, 80 classes" if args.model_path is None else "a trained network"
    packages = [name for name in ("openvino", "onnxruntime") if args.engines and find_spec(name)]
    machine = describe_machine(
        load, "torch", "timm", "Pillow", "simplejpeg", *packages, threads=torch.get_num_threads()
    )
    result = {
        "machine": machine,
        "settings": settings,
        "peers": found,
        "images_per_s": rates,
        "ratios": ratios,
        "memory": memory,
    }
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {args.results}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.stdin.read().splitlines())))
    else:
        main()
