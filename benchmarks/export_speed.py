"""TResNet-M at 224 pixels on a CPU: timm in PyTorch, csl in PyTorch, and what each engine makes of the exported file.

    python benchmarks/export_speed.py                        # about 10 minutes on two cores
    python benchmarks/export_speed.py --repeats 3            # a quick look: writes no file
    python benchmarks/export_speed.py --repeats 1 --model test_resnet --size 64    # in seconds: whether all of it runs
    python benchmarks/export_speed.py --photos DIR           # int8 calibrated on photos instead of drawn garments

Expected on two idle cores with AVX-512, VNNI and its bf16: the fastest engine at least 1.6 times timm's rate in float32 and in
bf16, ONNX Runtime's int8 at least 2.5 times.

All take turns in one process, step by step, in an order that turns round; a rate is the batch over the median step.
timm is eager and channels-last, under autocast where it is bf16; torch is the fused form that infer.py runs by --engine torch;
onnx and openvino are what --engine runs (`csl.engines`), the time of handing tensors over included, on the exported file and
its int8 form. OpenVINO is left out where it is not installed. All have the same number of threads. While one is timed the
threads of the others must be at rest: ONNX Runtime's go on waiting in a loop for a moment after a run, so each turn begins with
a short pause. Weights are random (int8 speed does not depend on them); what int8 costs in mAP is printed by
`python -m csl export --int8 --calibrate DIR --data DIR`. With decoding: benchmarks/inference_volume.py --engines all.
Writes benchmarks/results/export_speed.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from machine import describe_machine

from csl import checkpoint
from csl.engines.onnx_network import OnnxNetwork
from csl.engines.openvino_network import OpenVinoNetwork
from csl.export import ExportOptions, export
from csl.garments import make_garments
from csl.models import create_model, fuse

RESULTS = Path(__file__).parent / "results" / "export_speed.json"
MODEL, SIZE, CLASSES = "tresnet_m", 224, 80
FASTEST = 1.6  # of timm's rate in the same precision: the best engine
TARGETS = {"onnx int8": 2.5}
PAUSE = 0.05  # seconds


def networks(folder, photos, threads, name=MODEL, size=SIZE):
    """The peers by name."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=CLASSES).eval()
    weights = folder / "best.ckpt"
    content = {"model": model.state_dict(), "model_name": name, "num_classes": CLASSES, "config": {"image_size": size}}
    checkpoint.write(weights, content)
    if photos is None:
        photos = make_garments(folder / "garments", num_train=1, num_val=32, size=256, progress=False)
    onnx, int8 = (
        export(ExportOptions(model_path=str(weights), check=str(photos), **options))
        for options in ({}, {"int8": True, "calibrate": str(photos)})
    )
    timm_model, fused = (
        network.eval().to(memory_format=torch.channels_last)
        for network in (timm.create_model(name, num_classes=CLASSES), fuse(model))
    )
    peers = {
        "timm": timm_model,
        "timm bf16": in_bf16(timm_model),
        "torch": fused,
        "torch bf16": in_bf16(fused),
        "onnx": OnnxNetwork(onnx, size, threads=threads),
        "onnx int8": OnnxNetwork(int8, size, threads=threads),
    }
    if find_spec("openvino"):
        peers |= {
            "openvino": OpenVinoNetwork(onnx, size, threads=threads),
            "openvino bf16": OpenVinoNetwork(onnx, size, "bf16", threads=threads),
            "openvino int8": OpenVinoNetwork(int8, size, threads=threads),
        }
    return peers


def in_bf16(network):
    """The same under autocast."""

    def run(x):
        with torch.autocast("cpu", torch.bfloat16):
            return network(x)

    return run


def ratios_of(rates):
    """{peer: its rate over timm's in the same precision; int8 over timm's float32}, and that of the fastest engine."""
    ratios = {
        name: rate / rates["timm bf16" if name.endswith("bf16") else "timm"]
        for name, rate in rates.items()
        if not name.startswith("timm")
    }
    for precision in ("", " bf16"):
        of_precision = [ratios[name + precision] for name in ("onnx", "openvino") if name + precision in ratios]
        if of_precision:
            ratios[f"fastest engine{precision}"] = max(of_precision)
    return ratios


@torch.inference_mode()
def measure(peers, batch, repeats, size=SIZE):
    """{peer: {"images_per_s", "seconds"}} of the peers taking turns on the same images."""
    x = torch.rand(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    found = {name: [] for name in peers}
    for network in peers.values():
        network(x)
        network(x)
    order = list(peers)
    for _ in range(repeats):
        for name in order:
            time.sleep(PAUSE)
            start = time.perf_counter()
            peers[name](x)
            found[name].append(time.perf_counter() - start)
        order.append(order.pop(0))
    return {n: {"images_per_s": batch / statistics.median(s), "seconds": s} for n, s in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, help="turns of each peer (15; 45 at batch 1)")
    parser.add_argument("--model", default=MODEL, help=f"with --repeats: the network ({MODEL})")
    parser.add_argument("--size", type=int, default=SIZE, help=f"with --repeats: side of the images ({SIZE})")
    parser.add_argument("--photos", help="folder of photos to calibrate int8 on (drawn garments)")
    parser.add_argument("--threads", type=int, help="of each peer (PyTorch's)")
    args = parser.parse_args()
    if (args.model, args.size) != (MODEL, SIZE) and not args.repeats:
        parser.error("--model and --size are for a look: expected --repeats, too")
    load = os.getloadavg()[0]
    if args.threads:
        torch.set_num_threads(args.threads)
    threads = torch.get_num_threads()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        peers = networks(Path(folder), args.photos, threads, args.model, args.size)
        for batch in (1, 16):
            row = measure(peers, batch, args.repeats or (45 if batch == 1 else 15), args.size)
            rates = {name: values["images_per_s"] for name, values in row.items()}
            ratios = ratios_of(rates)
            targets = TARGETS | {name: FASTEST for name in ratios if name.startswith("fastest")}
            rows.append(
                {
                    "model": args.model,
                    "size": args.size,
                    "batch": batch,
                    "peers": row,
                    "ratios": ratios,
                    "targets": targets,
                }
            )
            for name, rate in rates.items():
                ratio = f"{ratios[name]:5.2f} x timm" if name in ratios else ""
                print(f"batch {batch:<3} {name:14} {rate:8.2f} images/s  {ratio}", flush=True)
            for name, target in targets.items():
                print(f"batch {batch:<3} {name}: {ratios[name]:.2f} x timm (wanted {target})", flush=True)
    if args.repeats:
        return
    packages = ["torch", "timm", "onnx", "onnxruntime", *(["openvino"] if find_spec("openvino") else [])]
    machine = describe_machine(load, *packages, threads=threads, flags=cpu_flags())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(f"written: {RESULTS}")


def cpu_flags():
    """Those of the processor's features that decide about int8 and bf16."""
    try:
        text = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None
    return [
        flag
        for flag in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
        if flag in text
    ]


if __name__ == "__main__":
    main()
