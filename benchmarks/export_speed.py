"""TResNet-M at 224 pixels on a CPU: timm in PyTorch, csl in PyTorch, and what `python -m csl export` makes of it.

    python benchmarks/export_speed.py                        # about 5 minutes on two cores
    python benchmarks/export_speed.py --repeats 3            # a quick look: writes no file
    python benchmarks/export_speed.py --photos DIR           # int8 calibrated on photos instead of drawn garments

Expected on two idle cores with AVX-512 and VNNI: float32 ONNX at least 1.4 times timm's rate at batch 1 and 1.2 times at
batch 16, int8 at least 2.5 times.

All four take turns in one process, step by step, in an order that turns round; a rate is the batch over the median step.
timm is eager and channels-last, csl is the fused form that infer.py runs; both ONNX files run in ONNX Runtime through
`csl.models.onnx_network.OnnxNetwork`, the time of handing tensors over included. All have the same number of
threads. While one is timed the threads of the others must be at rest: ONNX Runtime's go on waiting in a loop for a
moment after a run, so each turn begins with a short pause. Weights are random (int8 speed does not depend on them);
what int8 costs in mAP is printed by `python -m csl export --int8 --calibrate DIR --data DIR`.
Writes benchmarks/results/export_speed.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
from machine import describe_machine

from csl import checkpoint
from csl.export import ExportOptions, export
from csl.garments import make_garments
from csl.models import create_model, fuse
from csl.models.onnx_network import OnnxNetwork

RESULTS = Path(__file__).parent / "results" / "export_speed.json"
MODEL, SIZE, CLASSES = "tresnet_m", 224, 80
TARGETS = {1: {"onnx": 1.4, "onnx int8": 2.5}, 16: {"onnx": 1.2, "onnx int8": 2.5}}
PAUSE = 0.05  # seconds


def networks(folder, photos, threads):
    """The four peers by name."""
    torch.manual_seed(0)
    model = create_model(MODEL, num_classes=CLASSES).eval()
    weights = folder / "best.ckpt"
    content = {"model": model.state_dict(), "model_name": MODEL, "num_classes": CLASSES, "config": {"image_size": SIZE}}
    checkpoint.write(weights, content)
    if photos is None:
        photos = make_garments(folder / "garments", num_train=1, num_val=32, size=256, progress=False)
    files = [
        export(ExportOptions(model_path=str(weights), check=str(photos), **options))
        for options in ({}, {"int8": True, "calibrate": str(photos)})
    ]
    onnx, int8 = (OnnxNetwork(file, SIZE, threads=threads) for file in files)
    peer = timm.create_model(MODEL, num_classes=CLASSES).eval()
    return {
        "timm": peer.to(memory_format=torch.channels_last),
        "csl": fuse(model).to(memory_format=torch.channels_last),
        "onnx": onnx,
        "onnx int8": int8,
    }


@torch.inference_mode()
def measure(peers, batch, repeats):
    """{peer: {"images_per_s", "seconds"}} of the peers taking turns on the same images."""
    x = torch.rand(batch, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
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
    parser.add_argument("--photos", help="folder of photos to calibrate int8 on (drawn garments)")
    parser.add_argument("--threads", type=int, help="of each peer (PyTorch's)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if args.threads:
        torch.set_num_threads(args.threads)
    threads = torch.get_num_threads()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        peers = networks(Path(folder), args.photos, threads)
        for batch, targets in TARGETS.items():
            row = measure(peers, batch, args.repeats or (45 if batch == 1 else 15))
            timm_rate = row["timm"]["images_per_s"]
            ratios = {name: values["images_per_s"] / timm_rate for name, values in row.items() if name != "timm"}
            rows.append(
                {"model": MODEL, "size": SIZE, "batch": batch, "peers": row, "ratios": ratios, "targets": targets}
            )
            for name, values in row.items():
                wanted = f" (wanted {targets[name]})" if name in targets else ""
                ratio = f"{ratios[name]:5.2f} x timm{wanted}" if name in ratios else ""
                print(f"batch {batch:<3} {name:10} {values['images_per_s']:8.2f} images/s  {ratio}", flush=True)
    if args.repeats:
        return
    machine = describe_machine(load, "torch", "timm", "onnx", "onnxruntime", threads=threads, flags=cpu_flags())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(f"written: {RESULTS}")


def cpu_flags():
    """Those of the processor's features that decide about int8."""
    try:
        text = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None
    return [flag for flag in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8") if flag in text]


if __name__ == "__main__":
    main()
