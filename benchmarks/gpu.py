"""All that is to be measured on a GPU: one command, in three calls of nine minutes at most. `--dry` runs it without a GPU.

    python benchmarks/gpu.py --call 1               # probe, tests_fast, kernels, profile, eager, loop
    python benchmarks/gpu.py --call 2               # compiled, loss
    python benchmarks/gpu.py --call 3               # inference, loader, tests_slow
    python benchmarks/gpu.py --resume               # what is not done; --call and --stages choose among the stages
    python benchmarks/gpu.py --stages eager,loop
    python benchmarks/gpu.py --dry                  # tiny sizes on the CPU, kernels in Triton's interpreter: minutes

A stage is a process group of its own with a limit in seconds, which ends it; the rows that it had printed stay, and a resumed
comparison goes on behind them. Each row is
written to benchmarks/results/gpu.json as soon as it is there (of --dry: to --out, or nowhere), with the machine of its stage.

What was aimed at (docs/speed.md has the table): training at 1.0 times the rate of timm's network compiled, in 0.65 of its
memory; 1.25 times timm's eager; 1.7 times the original's arrangement; train.py at 0.95 of the bare step; InPlace-ABN's kernels
at 0.7 of the bandwidth of a copy; the selective loss at 2 times BCE. Where `probe` or `tests_fast`, which come first, fail or
the backend is not Triton, the later numbers are void. Peers take turns, and every ratio is of one process.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from machine import describe_machine

from csl.machine.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "gpu.json"
CALL_SECONDS = 540


@dataclass(frozen=True)
class Sizes:
    """How large the problems of the stages are."""

    device: str
    repeats: int
    elements: int  # of a copy
    matrix: int  # side of a product
    maps: tuple[tuple[int, ...], ...]  # shapes of feature maps
    training: list[tuple]  # rows of tresnet_speed.py
    inference: list[tuple]
    profiled: tuple[tuple[str, int, int], ...]  # network, size, batch
    loop: tuple[str, int, int, int]  # network, size, batch, images
    loss: tuple[int, int]
    pytest: tuple[str, ...] = ()
    done: int = 0  # rows of the stage that an earlier call has measured, where it goes on behind them


def sizes(dry, done=0):
    import tresnet_speed

    if not dry:
        return Sizes(
            device="cuda",
            repeats=8,
            elements=2**28,
            matrix=8192,
            maps=tuple(tresnet_speed.ABN_SHAPES),
            training=[row for row in tresnet_speed.GPU_ROWS if row[0] == "training"],
            inference=[row for row in tresnet_speed.GPU_ROWS if row[0] == "inference"],
            profiled=(("tresnet_m", 224, 256), ("tresnet_m", 224, 64)),
            loop=("tresnet_m", 224, 256, 16_384),
            loss=(256, 9605),
            done=done,
        )
    tresnet_speed.MEMORY_ON_CPU = False
    return Sizes(
        device="cpu",
        repeats=1,
        elements=2**16,
        matrix=64,
        maps=((2, 8, 4, 4),),
        training=[("training", "test_resnet", 32, 2, tresnet_speed.TRAINING)],
        inference=[("inference", "test_resnet", 32, 2, {})],
        profiled=(("test_resnet", 32, 2),),
        loop=("test_resnet", 32, 4, 16),
        loss=(4, 80),
        pytest=("--collect-only",),
        done=done,
    )


# ------------------------------------------------------------------------------------------------------------ the stages


def probe(s):
    """The device, what it copies and multiplies, and whether the kernels run: else all else is void."""
    import torch
    from tresnet_speed import median_seconds

    from csl.ops import resolve_backend, selective_loss

    query = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.limit",
        "--format=csv,noheader",
    ]
    said = subprocess.run(query, capture_output=True, text=True).stdout.strip() if shutil.which(query[0]) else None
    yield {"what": "device", "nvidia-smi": said, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    start = time.perf_counter()
    backend, reason = resolve_backend("auto", s.device)
    yield {"what": "InPlace-ABN", "backend": backend, "reason": reason, "cold_seconds": time.perf_counter() - start}
    start = time.perf_counter()
    logits = torch.randn(64, 80, device=s.device, requires_grad=True)
    selective_loss(logits, torch.ones(64, 80, dtype=torch.int8, device=s.device)).backward()
    yield {"what": "loss", "finite": bool(logits.grad.isfinite().all()), "cold_seconds": time.perf_counter() - start}
    a, b = (torch.randn(s.elements, device=s.device, dtype=torch.bfloat16) for _ in range(2))
    yield {"what": "copy", "gb_s": 4 * s.elements / median_seconds(lambda: a.copy_(b), s.device, s.repeats) / 1e9}
    a, b = (torch.randn(s.matrix, s.matrix, device=s.device, dtype=torch.bfloat16) for _ in range(2))
    yield {"what": "product", "tflop_s": 2 * s.matrix**3 / median_seconds(lambda: a @ b, s.device, s.repeats) / 1e12}


def tests(*paths):
    def stage(s):
        """The tests that need a GPU."""
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *s.pytest, *paths]
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        last = ""
        for line in running.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
        yield {"what": f"tests in {', '.join(paths)}", "status": running.wait(), "summary": last}

    return stage


def kernels(s):
    """Kernels alone, against a copy and PyTorch's operators; and the time of each in InPlace-ABN."""
    import torch
    from tresnet_speed import abn_bandwidth, feature_map, neighbours

    from csl.ops import inplace_abn, set_abn_backend

    set_abn_backend("triton")
    for shape in s.maps:
        yield abn_bandwidth(shape, s.repeats, s.device)
        x = feature_map(shape, s.device).requires_grad_()
        grad = torch.randn_like(x)
        weight, bias = (torch.ones(shape[1], device=s.device, requires_grad=True) for _ in range(2))

        def both(x=x, weight=weight, bias=bias, grad=grad):
            inplace_abn(x, weight, bias, None, None, True).backward(grad)

        yield {"what": "kernels of InPlace-ABN", "shape": shape, **profiled(both, s.device)}
        for what in ("blur", "squeeze-excite"):
            yield neighbours(what, shape, s.repeats, s.device)


def profiled(step, device, steps=3):
    """Launches and busy milliseconds of a step, and the kernels that take most of it (on a CPU: its operators)."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    step()
    with profile(activities=activities) as found:
        for _ in range(steps):
            step()
    kind, totals = DeviceType.CUDA if on_gpu else DeviceType.CPU, {}
    for event in found.events():
        if event.device_type == kind and not event.is_user_annotation:
            microseconds = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
            count, total = totals.get(event.name, (0, 0.0))
            totals[event.name] = count + 1, total + microseconds
    most = sorted(totals.items(), key=lambda item: -item[1][1])[:12]
    return {
        "launches": sum(count for count, _ in totals.values()) / steps,
        "busy_ms": sum(total for _, total in totals.values()) / steps / 1e3,
        "most": [{"name": name[:100], "count": n / steps, "us": total / steps} for name, (n, total) in most],
    }


def profile(s):
    """Where the time of a training step goes: launches, the host's part, the device's."""
    from tresnet_speed import stepper, turn

    for name, size, batch in s.profiled:
        for peer in ("csl", "timm"):
            step = stepper(peer, "training", name, size, batch, s.device)
            for _ in range(3):
                step()
            seconds, host = map(statistics.median, zip(*(turn(step, s.device, 5) for _ in range(3)), strict=True))
            row = {"what": "profile", "peer": peer, "model": name, "size": size, "batch": batch}
            found = profiled(step, s.device)
            gap = 1e3 * seconds - found["busy_ms"]
            yield row | {"step_ms": 1e3 * seconds, "host_ms": 1e3 * host, "gap_ms": gap} | found
            del step


def compared(field, *forms):
    def stage(s):
        """Rows of tresnet_speed.py."""
        from tresnet_speed import compare

        cases = [(compiled, case) for compiled in forms for case in getattr(s, field)]
        for compiled, case in cases[s.done :]:
            yield compare(s.device, *case, s.repeats, compiled, stand_in=True)

    return stage


def loop(s):
    """train.py's images a second over those of the bare step, photos from --cache."""
    import torch
    from tresnet_speed import turn

    from csl import TrainConfig, train
    from csl.garments import make_garments

    name, size, batch, images = s.loop
    step = bare_step(s.device, name, size, batch)
    for _ in range(3):
        step()
    bare = batch / statistics.median(turn(step, s.device, 10)[0] for _ in range(s.repeats))
    yield {"what": "bare step", "model": name, "size": size, "batch": batch, "images_per_s": bare}
    del step
    if s.device == "cuda":
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        data = make_garments(Path(folder) / "set", num_train=images, num_val=4 * batch, size=64, progress=False)
        for augment in ("none", "fast"):
            run = Path(folder) / augment
            config = TrainConfig(
                data=str(data), path_dest=str(run), model_name=name, image_size=size, batch_size=batch, epochs=3, lr=1e-4,
                loss="csl", augment=augment, cache=str(Path(folder) / "cache"), device=s.device,
            )  # fmt: skip
            train(config, lambda line: print(line, flush=True))
            rates = [json.loads(line)["images_per_second"] for line in (run / "log.jsonl").read_text().splitlines()]
            ratio = {"bare step": {"rate": max(rates[1:]) / bare, "target": 0.95}}
            yield {"what": f"train.py, --augment {augment}", "images_per_s": rates, "ratios": ratio}


def bare_step(device, name, size, batch, classes=21):
    """What train.py does with a batch that is on the device: network, selective loss, Adam, moving average."""
    import torch
    from tresnet_speed import wait_for

    from csl.losses import PartialSelectiveLoss
    from csl.models import create_model
    from csl.predict.scoring import autocast_dtype
    from csl.training.optim import ModelEma, create_optimizer

    model = create_model(name, num_classes=classes).to(device, memory_format=torch.channels_last).train()
    criterion, optimizer = PartialSelectiveLoss(), create_optimizer(model, "adam", lr=1e-4, weight_decay=1e-4)
    average, dtype = ModelEma(model, 0.9997), autocast_dtype("auto", torch.device(device))
    x = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(-1, 2, (batch, classes), device=device, dtype=torch.int8)
    torch.backends.cudnn.benchmark = True  # as train.py does

    def step(wait=True):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            logits = model(x)
        criterion(logits.float(), targets).backward()
        optimizer.step()
        average.update(model)
        if wait:
            wait_for(device)

    return step


def loss(s):
    """Forward and backward of the losses beside BCE's."""
    from loss_speed import measure

    yield from measure(s.loss, s.device, 4 * s.repeats)


def loader(s):
    """Photos to batches by all workers, and batches to floats on the device."""
    import torch
    from data_speed import on_device

    from csl.data.dataset import ImageDataset
    from csl.data.loader import create_loader, default_workers
    from csl.data.transforms import TrainTransform
    from csl.garments import make_garments
    from csl.labels import read_annotations

    _, size, batch, images = s.loop
    yield from on_device(size, batch, s.repeats, torch.device(s.device))
    with tempfile.TemporaryDirectory() as folder:
        data = make_garments(Path(folder) / "set", num_train=max(images // 4, 16), num_val=1, size=size, progress=False)
        annotations = read_annotations(data, split="train")
        for augment in ("original", "fast"):
            workers = default_workers() if s.device == "cuda" else 0
            photos = ImageDataset(annotations, TrainTransform(size, augment), seed=0)
            batches = create_loader(photos, batch, workers, shuffle_seed=0)
            start = time.perf_counter()
            read = sum(len(one) for one in batches)
            rate = read / (time.perf_counter() - start)
            yield {"what": f"loader, --augment {augment}", "workers": workers, "size": size, "images_per_s": rate}


# name -> (call, limit in seconds, stage)
STAGES = {
    "probe": (1, 60, probe),
    "tests_fast": (1, 150, tests("tests/ops", "tests/data", "tests/metrics")),
    "kernels": (1, 60, kernels),
    "profile": (1, 60, profile),
    "eager": (1, 110, compared("training", False)),
    "loop": (1, 100, loop),
    "compiled": (2, 450, compared("training", True)),
    "loss": (2, 60, loss),
    "inference": (3, 240, compared("inference", False, True)),
    "loader": (3, 60, loader),
    "tests_slow": (3, 240, tests("tests/training", "tests/machine")),
}


BY_ROW = ("eager", "compiled", "inference")


# ------------------------------------------------------------------------------------------------------------ the runner


def run(command, limit, row, environment=None):
    """Run a command in a process group of its own and hand over each row, a line of JSON, that it prints.

    Returns:
        "done", "failed (status N)" or "cut short after N s".
    """
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    late = threading.Event()

    def end():
        late.set()
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)

    timer = threading.Timer(limit, end)
    timer.start()
    try:
        for line in running.stdout:
            if line.startswith('{"'):
                row(json.loads(line))
            print(line, end="", flush=True)
        status = running.wait()
    finally:
        timer.cancel()
        with suppress(ProcessLookupError):  # Ctrl-C, or what a stage left behind
            os.killpg(running.pid, signal.SIGKILL)
    if late.is_set():
        return f"cut short after {limit:g} s"
    return "done" if status == 0 else f"failed (status {status})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", help=f"some of {','.join(STAGES)}, in the order given")
    parser.add_argument("--call", type=int, choices=(1, 2, 3), help="the stages of one call")
    parser.add_argument("--resume", action="store_true", help="leave out what is done")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU; limits do not hold")
    parser.add_argument("--out", type=Path, help="instead of benchmarks/results/gpu.json")
    args = parser.parse_args()
    names = args.stages.split(",") if args.stages else [n for n in STAGES if args.call in (None, STAGES[n][0])]
    if unknown := [name for name in names if name not in STAGES]:
        parser.error(f"--stages {','.join(unknown)}: expected some of {','.join(STAGES)}")

    import torch

    if not (args.dry or torch.cuda.is_available()):
        parser.error("no CUDA device here, expected one or --dry")
    out = args.out or (None if args.dry else RESULTS)
    found = json.loads(out.read_text()) if out and out.exists() else {"stages": {}}
    gpu = None if args.dry else torch.cuda.get_device_name()
    # A stage's memory does not fall to pieces between its rows; dry, the kernels are interpreted.
    more = {"TRITON_INTERPRET": "1"} if args.dry else {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    paths = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    for name in names:
        if args.resume and found["stages"].get(name, {}).get("status") == "done":
            continue
        machine = describe_machine(os.getloadavg()[0], "torch", "timm", gpu=gpu)
        kept = found["stages"].get(name, {}).get("rows", []) if args.resume and name in BY_ROW else []
        stage = found["stages"][name] = {"status": "under way", "machine": machine, "rows": kept}

        def row(one, stage=stage):
            stage["rows"].append(one)
            if out:
                write_json(out, found)

        print(f"--- {name}", flush=True)
        start = time.perf_counter()
        command = [sys.executable, __file__, "--child", name, str(len(kept)), *(["--dry"] if args.dry else [])]
        limit = 3600 if args.dry else STAGES[name][1]
        stage["status"] = run(command, limit, row, os.environ | more | {"PYTHONPATH": paths})
        stage["seconds"] = time.perf_counter() - start
        if out:
            write_json(out, found)
        print(f"--- {name}: {stage['status']}, {len(stage['rows'])} rows, {stage['seconds']:.0f} s", flush=True)
    sys.exit(any(found["stages"].get(name, {}).get("status") != "done" for name in names))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        for one in STAGES[sys.argv[2]][2](sizes("--dry" in sys.argv, int(sys.argv[3]))):
            print(json.dumps(one), flush=True)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stage under way ends, too
        main()
