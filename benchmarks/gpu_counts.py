"""What a GPU would be given, counted without one: launches, Python's time, instructions, registers, memory for backward.

    python benchmarks/gpu_counts.py                  # two minutes; status 1 where a count is above its limit
    python benchmarks/gpu_counts.py --arch 90        # for one kind of GPU: writes no file

No number here is a GPU's time. The Triton kernels are compiled for GPUs that are not there (A100 80, H100 90, B200 100) and
disassembled; elsewhere their launches end in nothing, and all else runs on the CPU.

- launches: kernels and operations of PyTorch that do work (no views, no empty tensors) in forward, loss and backward of
  TResNet-M, 224 pixels, batch 2, bfloat16 autocast; an operation counts as one whatever it launches. timm's beside it. Those
  of the selective loss, 4 x 80, alone.
- Python: microseconds of a layer's forward and backward on a tensor of 512 values, the least of many rounds; BatchNorm2d and
  leaky_relu_ beside it, whose arithmetic on the CPU is in their number.
- instructions: SASS of the main loop over the elements that a thread loads of each tensor in it, of bfloat16 channels-last; of
  a kernel without a loop, all of its instructions over the elements of a thread. Registers and spilled bytes of a thread, the
  most of any variant.
- memory: MiB an image of feature maps that autograd keeps for backward, weights not among them.

Writes benchmarks/results/gpu_counts.json and prints a table.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import triton
from machine import describe_machine
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import compile_kernels

from csl.models import create_model
from csl.models.abn import InPlaceABN
from csl.ops import SelectiveOptions, abn_backend, selective_triton

RESULTS = Path(__file__).parent / "results" / "gpu_counts.json"
TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
ARCHS = (80, 90, 100)
LOADED = {
    "_statistics_kernel": 1,
    "_backward_sums_kernel": 2,
    "_backward_kernel": 2,
}  # tensors that a loop reads, at least
LIMITS = {
    "launches of a step": 896,
    "launches of the loss": 12,
    "Python of a layer over BatchNorm2d's": 1.3,  # a number of any processor
    "MiB an image": 15.6,
    "spilled bytes": 0,
    "_statistics_kernel": {"instructions": 5.3, "registers": 64},
    "_backward_sums_kernel": {"instructions": 12.9, "registers": 64},
}
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
WIDTH = re.compile(r"\.(8|U8|S8|16|U16|S16|64|128)\b")


class Counted(TorchDispatchMode):
    """Counts the operations that launch something; a Triton kernel's launch is counted in place of it."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Every operation below autograd comes by here."""
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        name = func._schema.name.removeprefix("aten::")
        if not view and not name.startswith(("empty", "new_empty", "_unsafe_view", "_local_scalar_dense")):
            self.found[name] += 1
        return func(*args, **kwargs or {})

    def __enter__(self):
        self.run = triton.runtime.jit.JITFunction.run
        triton.runtime.jit.JITFunction.run = self.launch
        return super().__enter__()

    def __exit__(self, *error):
        triton.runtime.jit.JITFunction.run = self.run
        return super().__exit__(*error)

    @property
    def launch(self):
        """In place of `JITFunction.run`."""

        def count(kernel, *args, **options):
            self.found[kernel.fn.__name__] += 1

        return count


def on_triton():
    """Have csl's layers take their Triton kernels on a CPU, too."""
    abn_backend.INTERPRETED = True
    abn_backend.set_abn_backend("triton")
    abn_backend._resolved["triton", "cpu"] = "triton", "counted"


def step(model):
    """Launches by name of a training step, and MiB an image that forward keeps."""
    model = model.train().to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    targets = (torch.rand(2, 80) < 0.03).float()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if tensor.dim() == 4 and storage.data_ptr() not in weights and tensor.shape[0] == 2:
            kept[storage.data_ptr()] = storage
        return tensor

    with Counted() as counted:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16):
            loss = F.binary_cross_entropy_with_logits(model(x).float(), targets)
        bytes_kept = sum(s.nbytes() for s in kept.values())
        loss.backward()
    return counted.found, bytes_kept / 2**20 / 2


def loss_launches():
    """Launches by name of the selective loss and its gradient."""
    options = SelectiveOptions("selective", 0.05, 0.0, 1.0, 4.0, likelihood_topk=10, prior_threshold=0.5)
    with Counted() as counted:
        selective_triton.on_gpu(torch.zeros(4, 80), torch.zeros(4, 80, dtype=torch.int8), torch.zeros(80), options)
    return counted.found


def python_us(layer):
    """Microseconds of forward and backward, the least of many rounds."""
    x = torch.rand(2, 64, 2, 2).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    grad, leaves = torch.rand_like(x), [x, *layer.parameters()]
    run, triton.runtime.jit.JITFunction.run = triton.runtime.jit.JITFunction.run, lambda *args, **options: None
    rounds = []
    for _ in range(500):
        start = time.perf_counter()
        for _ in range(3):
            torch.autograd.grad(layer(x), leaves, grad)
        rounds.append((time.perf_counter() - start) / 3 * 1e6)
    triton.runtime.jit.JITFunction.run = run
    return min(rounds)


def sass(cubin):
    """Registers and bytes on the stack of a thread, and the instructions: (address, operation, operands)."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = [
            subprocess.run([TOOL, flag, file.name], check=True, capture_output=True, text=True).stdout
            for flag in ("-res-usage", "-sass")
        ]
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", shown[0]).groups())
    found = [(int(a, 16), op, rest) for a, op, rest in INSTRUCTION.findall(shown[1])]
    return registers, stack, [i for i in found if i[1] != "NOP"]


def loops(instructions):
    """The bodies of loops that read global memory: of those that read the most, the shortest first."""
    bodies = []
    for address, operation, operands in instructions:
        target = re.search(r"0x([0-9a-f]+)", operands) if operation.startswith("BRA") else None
        if target and int(target[1], 16) < address:
            body = [i for i in instructions if int(target[1], 16) <= i[0] <= address]
            if bytes_loaded(body):
                bodies.append(body)
    return sorted(bodies, key=lambda body: (-bytes_loaded(body), len(body)))


def bytes_loaded(body):
    """From global memory by one thread."""
    total = 0
    for _, operation, _ in body:
        if operation.startswith(("LDG.", "LDGSTS.")):
            width = WIDTH.findall(operation)
            total += {"8": 1, "16": 2, "64": 8, "128": 16}[width[-1].strip("US")] if width else 4
    return total


def kernels(archs):
    """Of each kernel, variant and kind of GPU: registers, stack and instructions an element."""
    rows = []

    def compile_instead(kernel, *args, grid, warmup, **options):
        for arch in archs:
            made, constants = compile_kernels.compiled(kernel, args, options, arch)
            registers, stack, instructions = sass(made.asm["cubin"])
            name, threads = kernel.fn.__name__, 32 * made.metadata.num_warps
            tensor = next(a for a in args if isinstance(a, torch.Tensor))
            row = {"kernel": name, "arch": arch, "dtype": str(tensor.dtype).removeprefix("torch.")}
            row |= {k: v for k, v in constants.items() if k.isupper() and isinstance(v, (bool, int))}
            row |= {"registers": registers, "spilled": stack, "instructions": len(instructions)}
            bodies = loops(instructions)
            tile = constants.get("BLOCK", constants.get("BLOCK_P", 0) * constants.get("BLOCK_C", 0))
            if name in LOADED and bodies:
                joined = "joined_ptr" in kernel.arg_names and "joined_ptr" not in constants
                tensors = LOADED[name] + (joined or bool(constants.get("JOINED")))
                elements = bytes_loaded(bodies[0]) / tensor.element_size() / tensors
                row["instructions_an_element"] = len(bodies[0]) / elements
            elif tile and name not in LOADED:
                row["instructions_an_element"] = len(instructions) / max(tile / threads, 1)
            rows.append(row)

    run, triton.runtime.jit.JITFunction.run = triton.runtime.jit.JITFunction.run, compile_instead
    compile_kernels.launches()
    triton.runtime.jit.JITFunction.run = run
    return rows


def worst(rows):
    """{kernel: {arch: the most of any variant}}; instructions an element of bfloat16 alone."""
    found = {}
    for row in rows:
        most = found.setdefault(row["kernel"], {}).setdefault(str(row["arch"]), {"registers": 0, "spilled": 0})
        for name in ("registers", "spilled"):
            most[name] = max(most[name], row[name])
        if row["dtype"] == "bfloat16" and "instructions_an_element" in row:
            most["instructions"] = max(most.get("instructions", 0), round(row["instructions_an_element"], 1))
    return found


def above(found):
    """What is above its limit, one line each."""
    lines = [
        f"{name}: {found[name]}, at most {most}"
        for name, most in LIMITS.items()
        if name in found and found[name] > most
    ]
    for kernel, archs in found["kernels"].items():
        for arch, values in archs.items():
            for name, most in (LIMITS.get(kernel, {}) | {"spilled": LIMITS["spilled bytes"]}).items():
                if values.get(name, 0) > most:
                    lines.append(f"sm_{arch} {kernel}: {name} {values[name]}, at most {most}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--arch", type=int, nargs="+", default=ARCHS, help="kinds of GPU, as 90 for an H100: no file then"
    )
    args = parser.parse_args()
    load = os.getloadavg()[0]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    on_triton()
    counts, kept = step(create_model("tresnet_m", num_classes=80))
    timm_counts, timm_kept = step(timm.create_model("tresnet_m", num_classes=80))
    in_loss = loss_launches()
    rows = kernels(args.arch)
    layer = python_us(InPlaceABN(64))
    plain = python_us(torch.nn.Sequential(torch.nn.BatchNorm2d(64), torch.nn.LeakyReLU(0.01, inplace=True)))
    found = {
        "launches of a step": counts.total(),
        "timm: launches of a step": timm_counts.total(),
        "launches of the loss": in_loss.total(),
        "Python of a layer, us": round(layer, 1),
        "BatchNorm2d, leaky_relu_: Python, us": round(plain, 1),
        "Python of a layer over BatchNorm2d's": round(layer / plain, 2),
        "MiB an image": round(kept, 1),
        "timm: MiB an image": round(timm_kept, 1),
        "kernels": worst(rows),
    }
    for name, value in found.items():
        if name != "kernels":
            print(f"{name:<40}{value:>8} {f'(at most {LIMITS[name]})' if name in LIMITS else ''}")
    print(f"{'kernel':<26}{'GPU':>8}{'registers':>11}{'spilled':>9}{'instructions an element':>25}")
    for kernel, archs in found["kernels"].items():
        for arch, values in archs.items():
            instructions = values.get("instructions", "")
            print(f"{kernel:<26}{'sm_' + arch:>8}{values['registers']:>11}{values['spilled']:>9}{instructions:>25}")
    if tuple(args.arch) == ARCHS:
        RESULTS.parent.mkdir(exist_ok=True)
        by_name = {"csl": dict(counts.most_common()), "timm": dict(timm_counts.most_common()), "loss": dict(in_loss)}
        machine = describe_machine(load, "torch", "triton", "timm")
        RESULTS.write_text(
            json.dumps({"machine": machine, **found, "by name": by_name, "variants": rows}, indent=1) + "\n"
        )
        print(f"written: {RESULTS}")
    if lines := above(found):
        sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()
