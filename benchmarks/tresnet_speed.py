"""TResNet training and inference: csl against timm and the original arrangement (inplace-abn package, NCHW).

    python benchmarks/tresnet_speed.py                        # the CPU rows: about 10 minutes; on a GPU its rows too
    python benchmarks/tresnet_speed.py --repeats 3 --batch 4  # a quick look
    python benchmarks/tresnet_speed.py --cpu 0                # the GPU rows alone

`benchmarks/gpu.py` runs the GPU rows with all else that is to be measured there, each with a limit of time.

Expected on two idle cores of an AMD EPYC (Zen 5, AVX-512), TResNet-M 224: inference at batch 16 at least 1.2 times timm's
rate, at batch 1 at least 1.4 times; a training step at least as fast, in at most 0.65 of its memory; with `--memory fast` ("csl
fast", of a CPU) at least as fast.

All peers of a row are in one process and take turns in an order that turns round, so that a busy moment does not hit only
one; a rate is the batch over the median step. On a GPU a turn is 10 steps that the host waits for together; the time of a step
that is waited for, and the host's own time until a step is queued, are in the file as well. Weights and images are random,
the loss is binary cross-entropy, the optimizer SGD. Channels-last, and on a CPU float32 or bfloat16 autocast; on a GPU bfloat16
autocast, and for the original NCHW and float16. Memory on a CPU is the highest anonymous memory of a process of its own during
three steps, less what it held before the model was made; on a GPU what the allocator gave to the network and, at most, to a
step of it. Rows that this machine cannot give read "not measured".
Writes benchmarks/results/tresnet_speed.json and prints a table.
"""

import argparse
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from machine import describe_machine
from torch import nn

from csl.models import create_model
from csl.models.abn import InPlaceABN, keep_inputs
from csl.models.fusion import fuse
from csl.models.tresnet import BlurPool, SqueezeExcite
from csl.ops import blur_ref, get_abn_backend, resolve_backend, set_abn_backend, squeeze_excite_ref

RESULTS = Path(__file__).parent / "results" / "tresnet_speed.json"
CLASSES = 80
ORIGINAL = "original"
STAND_IN = "original, plain ABN"  # where the package inplace-abn is not installed
FAST = "csl fast"  # --memory fast, of training on a CPU
QUEUED = 10

# (what, on a CPU with its precision if not float32; model, size, batch, targets: {peer: {quantity: at least or at most}}).
CPU_ROWS = [
    ("inference", "tresnet_m", 224, 1, {"timm": {"rate": 1.4}}),
    ("inference", "tresnet_m", 224, 16, {"timm": {"rate": 1.2}}),
    ("inference bf16", "tresnet_m", 224, 16, {"timm": {"rate": 1.2}}),
    *(
        (what, "tresnet_m", size, batch, {"timm": {"rate": 1.0, "memory": 0.65}})
        for size, batch in ((224, 16), (64, 32))
        for what in ("training", "training bf16")
    ),
]
TRAINING = {"timm compiled": {"rate": 1.0, "memory": 0.65}, "timm": {"rate": 1.25}, ORIGINAL: {"rate": 1.7}}
GPU_ROWS = [
    *(
        ("training", name, size, batch, TRAINING)
        for name, size, batch in (
            ("tresnet_m", 224, 256),
            ("tresnet_m", 224, 64),
            ("tresnet_m", 448, 96),
            ("tresnet_l", 448, 64),
        )
    ),
    ("inference", "tresnet_m", 224, 256, {"timm": {"rate": 1.2}}),
    ("inference", "tresnet_l", 448, 256, {"timm": {"rate": 1.2}}),
]
ABN_SHAPES = [(256, 64, 56, 56), (256, 128, 28, 28), (256, 1024, 14, 14)]
ABN_TARGET = 0.7  # of the copy bandwidth
MEMORY_ON_CPU = True  # a process for each peer


class PlainSE(nn.Module):
    """Squeeze-excite as the original has it, differentiated by autograd."""

    def __init__(self, se):
        super().__init__()
        self.fc1, self.fc2 = se.fc1, se.fc2

    def forward(self, x, shortcut=None):
        """[B, C, H, W] -> [B, C, H, W]."""
        return squeeze_excite_ref(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias, shortcut)


class PlainBlur(nn.Module):
    """The blur with a padded copy of its input."""

    def forward(self, x):
        """[B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)]."""
        return blur_ref(x)


def as_original(model, packaged=True):
    """The network with the compiled package's layers, if `packaged`, and without what csl fuses."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if packaged and isinstance(child, InPlaceABN):
                from inplace_abn import InPlaceABN as Packaged

                layer = Packaged(child.num_features, activation=child.activation, activation_param=child.slope)
                layer.load_state_dict(child.state_dict(), strict=False)
                setattr(parent, name, layer)
            elif isinstance(child, SqueezeExcite):
                setattr(parent, name, PlainSE(child))
            elif isinstance(child, BlurPool):
                setattr(parent, name, PlainBlur())
    return model


def build(peer, what, name, device):
    """The network of a peer, on the device, in its memory format."""
    if peer.startswith("timm"):
        model = timm.create_model(name, num_classes=CLASSES)
    else:
        model = create_model(name, num_classes=CLASSES)
        if peer in (ORIGINAL, STAND_IN):
            model = as_original(model, peer == ORIGINAL)
    model = model.train(what.startswith("training")).to(device)
    if peer.startswith("csl") and what.startswith("inference"):
        model = fuse(model)
    if peer == FAST:
        keep_inputs(model)
    if peer not in (ORIGINAL, STAND_IN):
        model = model.to(memory_format=torch.channels_last)
    return torch.compile(model) if peer.endswith("compiled") else model


def stepper(peer, what, name, size, batch, device):
    """A function that does one step of a peer and, if not told otherwise, waits until it is done."""
    model = build(peer, what, name, device)
    x = torch.rand(batch, 3, size, size, device=device)
    original = peer in (ORIGINAL, STAND_IN)
    if not original:
        x = x.contiguous(memory_format=torch.channels_last)
    targets = (torch.rand(batch, CLASSES, device=device) < 0.03).float()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5) if what.startswith("training") else None
    half = torch.float16 if original else torch.bfloat16
    chosen = "torch" if peer == STAND_IN else get_abn_backend()

    def step(wait=True):
        set_abn_backend(chosen)
        with torch.autocast(device, dtype=half, enabled=device == "cuda" or what.endswith("bf16")):
            if optimizer is None:
                with torch.inference_mode():
                    model(x)
            else:
                loss = F.binary_cross_entropy_with_logits(model(x).float(), targets)
        if optimizer is not None:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if wait:
            wait_for(device)

    return step


def wait_for(device):
    if device == "cuda":
        torch.cuda.synchronize()


def anonymous_mib():
    """Memory of this process that no file backs, in MiB; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), None)


def cpu_memory(*case):
    """Run in a process of its own: MiB that a peer's network and its steps need."""
    before, peak, done = anonymous_mib(), 0.0, threading.Event()
    if before is None:
        return None

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    step = stepper(*case, "cpu")
    for _ in range(3):
        step()
    done.set()
    watcher.join()
    return peak - before


def memory_in_a_process(*case):
    out = subprocess.run(
        [sys.executable, __file__, "--child", *map(str, case)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(out.stdout.splitlines()[-1])


def built_on_gpu(case):
    """A peer's step, and the MiB that its network and, at most, a step of it need; other networks may be there already."""
    torch.backends.cudnn.benchmark = True  # every peer has the fastest convolutions
    before = torch.cuda.memory_allocated()
    step = stepper(*case, "cuda")
    for _ in range(4):  # compiles, and chooses convolutions
        step()
    torch.cuda.reset_peak_memory_stats()
    step()
    return step, (torch.cuda.max_memory_allocated() - before) / 2**20


def turn(step, device, steps):
    """Seconds of each of some steps that are queued one after the other, and the host's part of them."""
    start = time.perf_counter()
    for _ in range(steps):
        step(wait=False)
    queued = time.perf_counter()
    wait_for(device)
    return (time.perf_counter() - start) / steps, (queued - start) / steps


def measure(peers, what, name, size, batch, device, repeats):
    """{peer: {"images_per_s", "peak_mib", "seconds", and on a GPU "host_seconds", "waited_seconds"}}, in turns."""
    steps, found = {}, {}
    for peer in peers:
        case = peer, what, name, size, batch
        found[peer] = {"peak_mib": None, "seconds": []}
        if device == "cuda":
            steps[peer], found[peer]["peak_mib"] = built_on_gpu(case)
            found[peer] |= {"host_seconds": [], "waited_seconds": []}
        else:
            steps[peer] = stepper(*case, device)
            steps[peer]()
    order = list(peers)
    for _ in range(repeats):
        for peer in order:
            seconds, host = turn(steps[peer], device, QUEUED if device == "cuda" else 1)
            found[peer]["seconds"].append(seconds)
            if device == "cuda":
                found[peer]["host_seconds"].append(host)
                found[peer]["waited_seconds"].append(turn(steps[peer], device, 1)[0])
        order.append(order.pop(0))
    for values in found.values():
        values["images_per_s"] = batch / statistics.median(values["seconds"])
    del steps
    if device == "cuda":  # what is compiled keeps its networks
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()
    elif what.startswith("training") and MEMORY_ON_CPU:
        for peer, values in found.items():
            values["peak_mib"] = memory_in_a_process(peer, what, name, size, batch)
    return found


def compare(device, what, name, size, batch, targets, repeats, compiled, stand_in=False):
    """One row: figures of every peer, and the ratios of csl's faster form, eager or compiled, to each of the others.

    With `stand_in` a row of training that is not compiled has one for the original where its package is not installed.
    """
    row = {"device": device, "what": what, "model": name, "size": size, "batch": batch, "targets": targets}
    if device == "cuda" and not torch.cuda.is_available():
        return row | {"note": "not measured"}
    peers = ["csl", "timm"] + (["csl compiled", "timm compiled"] if compiled else [])
    if device == "cpu" and what.startswith("training"):
        peers.append(FAST)
    if importlib.util.find_spec("inplace_abn") is not None:
        peers.append(ORIGINAL)
    elif stand_in and what == "training" and not compiled:
        peers.append(STAND_IN)
    row["peers"] = found = measure(peers, what, name, size, batch, device, repeats)
    row["csl"] = best = max(("csl", "csl compiled"), key=lambda peer: found.get(peer, {}).get("images_per_s", 0))
    others = [peer for peer in peers if not peer.startswith("csl")]
    row["ratios"] = {peer: ratio(found, best, peer, targets) for peer in others}
    if FAST in found:
        of_rate = {peer: {"rate": wanted.get("rate")} for peer, wanted in targets.items()}
        row["ratios_fast"] = {peer: ratio(found, FAST, peer, of_rate) for peer in others}
    return row


def ratio(found, ours, peer, targets):
    """Rate and memory of one of our forms over those of a peer, and what is wanted."""
    wanted = targets.get(ORIGINAL if peer == STAND_IN else peer, {})
    own, values = found[ours], found[peer]
    result = {"rate": own["images_per_s"] / values["images_per_s"], "target": wanted.get("rate")}
    if own["peak_mib"] and values["peak_mib"]:
        result |= {"memory": own["peak_mib"] / values["peak_mib"], "memory_target": wanted.get("memory")}
    return result


def median_seconds(function, device, repeats):
    """Median time of a call, on a GPU by its own clock."""
    values = []
    for i in range(repeats + 3):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            end.record()
            torch.cuda.synchronize()
            seconds = start.elapsed_time(end) / 1e3
        else:
            begin = time.perf_counter()
            function()
            seconds = time.perf_counter() - begin
        values += [seconds] * (i >= 3)
    return statistics.median(values)


def feature_map(shape, device):
    return torch.randn(shape, device=device, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)


def abn_bandwidth(shape, repeats, device="cuda"):
    """The kernels alone: bytes that must move (3 tensors forward, 5 backward) over the bandwidth of a copy."""
    row = {"device": device, "what": "abn kernels, bfloat16", "shape": shape, "targets": {"copy": ABN_TARGET}}
    if device == "cuda" and not torch.cuda.is_available():
        return row | {"note": "not measured"}
    from csl.ops import inplace_abn

    x = feature_map(shape, device).requires_grad_()
    grad, out = torch.randn_like(x), torch.empty_like(x)
    weight, bias = (torch.ones(shape[1], device=device, requires_grad=True) for _ in range(2))

    def both():
        inplace_abn(x, weight, bias, None, None, True).backward(grad)
        x.grad = weight.grad = bias.grad = None

    size = x.numel() * x.element_size()
    copy, abn = (n * size / median_seconds(f, device, repeats) for n, f in ((2, lambda: out.copy_(grad)), (8, both)))
    return row | {"copy_gb_s": copy / 1e9, "abn_gb_s": abn / 1e9, "ratios": {"copy": {"rate": abn / copy}}}


def neighbours(what, shape, repeats, device="cuda"):
    """Forward and backward of what stands beside InPlace-ABN: csl's kernels against PyTorch's operators, eager."""
    row = {"device": device, "what": f"{what}, bfloat16", "shape": shape}
    if device == "cuda" and (not torch.cuda.is_available() or resolve_backend("auto", "cuda")[0] != "triton"):
        return row | {"note": "not measured"}
    layer = BlurPool(shape[1]) if what == "blur" else SqueezeExcite(shape[1], max(shape[1] // 4, 64))
    layer = layer.to(device)
    arguments = [feature_map(shape, device).requires_grad_() for _ in range(1 if what == "blur" else 2)]
    grad, chosen, seconds = torch.randn_like(layer(*arguments)), get_abn_backend(), {}

    def both():
        layer(*arguments).backward(grad)
        for tensor in (*arguments, *layer.parameters()):
            tensor.grad = None

    for backend in ("triton", "torch"):
        set_abn_backend(backend)
        seconds[backend] = median_seconds(both, device, repeats)
    set_abn_backend(chosen)
    return row | {"seconds": seconds, "ratios": {"torch": {"rate": seconds["torch"] / seconds["triton"]}}}


def show(row):
    place = f"{row['device']:<5}{row['what']:<14} {row.get('model', row.get('shape'))!s:<10}"
    place += f" {row['size']} batch {row['batch']:<4}" if "size" in row else ""
    if "note" in row:
        print(f"{place} {row['note']}", flush=True)
        return
    for peer, values in row.get("peers", {}).items():
        peak = f"{values['peak_mib']:8.0f} MiB" if values["peak_mib"] else ""
        print(f"{place} {peer:<14} {values['images_per_s']:8.2f} images/s {peak}", flush=True)
    for ours, ratios in (("csl", row["ratios"]), (FAST, row.get("ratios_fast", {}))):
        for family, found in ratios.items():
            wanted = f" (wanted {found['target']})" if found.get("target") else ""
            text = f"{place} {ours} / {family}: {found['rate']:.2f} x{wanted}"
            if "memory" in found:
                text += f", memory {found['memory']:.2f} x"
                text += f" (wanted at most {found['memory_target']})" if found["memory_target"] else ""
            print(text, flush=True)


def machine(load):
    """What the numbers belong to."""
    gpu = torch.cuda.is_available()
    more = {
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "abn_backend": ": ".join(resolve_backend("auto", "cuda" if gpu else "cpu")),
        "inplace-abn": importlib.util.find_spec("inplace_abn") is not None,
    }
    return describe_machine(load, "torch", "timm", **more)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats", type=int, default=15, help="steps of each peer (default 15; 3 times that at batch 1)"
    )
    parser.add_argument("--batch", type=int, help="instead of each row's own, for a quick look: writes no file")
    parser.add_argument("--cpu", type=int, default=1, help="0 leaves the CPU rows out (default 1)")
    parser.add_argument("--compile", type=int, default=1, help="0 leaves torch.compile out on a GPU (default 1)")
    parser.add_argument("--abn", default="auto", help="backend of csl's ABN (default auto)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    set_abn_backend(args.abn)
    rows = []
    for device, cases in (("cpu", CPU_ROWS if args.cpu else []), ("cuda", GPU_ROWS)):
        for what, name, size, batch, targets in cases:
            repeats = args.repeats * (3 if batch == 1 else 1)
            batch = min(batch, args.batch or batch)
            compiled = device == "cuda" and bool(args.compile)
            rows.append(compare(device, what, name, size, batch, targets, repeats, compiled, device == "cuda"))
            show(rows[-1])
    for shape in ABN_SHAPES:
        rows.append(abn_bandwidth(shape, args.repeats))
        show(rows[-1])
    for what in ("blur", "squeeze-excite"):
        for shape in ABN_SHAPES:
            rows.append(neighbours(what, shape, args.repeats))
            show(rows[-1])
    if args.batch:
        return
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine(load), "rows": rows}, indent=1) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        peer, what, name, size, batch = sys.argv[2:]
        print(json.dumps(cpu_memory(peer, what, name, int(size), int(batch))))
    else:
        main()
