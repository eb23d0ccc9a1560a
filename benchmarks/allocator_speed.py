"""Why csl leaves glibc's allocator alone: page faults, time and memory of a step on a CPU under other settings.

    python benchmarks/allocator_speed.py                          # about 20 minutes on two idle cores
    python benchmarks/allocator_speed.py --rounds 1 --growth 0    # a quick look: writes no file

Expected: no other setting takes less than 0.9 of the time of none, unless it takes more than 1.1 times the memory in a step or
in one of the two ways to grow below; else exit status 1, and csl should use it. A trim threshold by itself makes many times
the page faults: once it is set, glibc no longer raises the size from which on a block comes from the system and goes back to
it. Huge pages (THP_MEM_ALLOC_ENABLE=1) make PyTorch ask for blocks at a page's start, for which the heap seldom has a hole.
On a machine that is busy with something else set OMP_NUM_THREADS=1: two threads that wait for each other lose most.

Every measurement is a process of its own: two steps to warm up, then the median of some more. The settings take turns; a
ratio is the median over the rounds. Page faults are the minor ones of a step; the peak is the most that was resident.
Growth: blocks of 2 to 128 MiB come and go 150 times in random order while 12 MiB of small ones stay, under two seeds; what
is resident at the end, beyond the start, over the most that was alive at a time. Kept: one or two blocks of 40 MiB come and
go 30 times while a small one stays each time, in 12 patterns; what is resident at the end of the worst, over 40 MiB.
Writes benchmarks/results/allocator_speed.json and prints a table.
"""

import argparse
import ctypes
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "allocator_speed.json"
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, MOST = -1, -3, -4, 2**31 - 1  # of <malloc.h>
NONE = "none"
SETTINGS = {  # name: (THP_MEM_ALLOC_ENABLE, arguments of mallopt)
    NONE: ("0", []),
    "huge pages": ("1", []),
    "huge pages, trim threshold": ("1", [(TRIM_THRESHOLD, MOST)]),
    "both thresholds": ("0", [(TRIM_THRESHOLD, MOST), (MMAP_THRESHOLD, MOST)]),
    "huge pages, both thresholds": ("1", [(TRIM_THRESHOLD, MOST), (MMAP_THRESHOLD, MOST)]),
    "huge pages, no mmap": ("1", [(TRIM_THRESHOLD, MOST), (MMAP_MAX, 0)]),
}
# (what, peer and model of tresnet_speed.py, size, batch, steps)
ROWS = [
    ("training", "csl", "tresnet_m", 64, 32, 4),
    ("training", "csl", "tresnet_m", 224, 16, 2),
    ("training", "timm", "resnet18", 64, 32, 8),
    ("inference", "csl", "tresnet_m", 224, 16, 3),
]


def apply(name):
    """Make a setting, before PyTorch is imported."""
    os.environ["THP_MEM_ALLOC_ENABLE"], options = SETTINGS[name]
    refused = [option for option in options if not ctypes.CDLL(None).mallopt(*option)]
    if refused:
        raise SystemExit(f"{name}: mallopt does not take {refused}")


def measure(what, peer, name, size, batch, steps):
    """Run in a process of its own: page faults, seconds and memory of a step."""
    from tresnet_speed import stepper

    step, seconds = stepper(peer, what, name, int(size), int(batch), "cpu"), []
    for _ in range(2):
        step()
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
    for _ in range(int(steps)):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": statistics.median(seconds),
        "cpu_seconds": (time.process_time() - cpu) / len(seconds),
        "faults": (usage.ru_minflt - before) / len(seconds),
        "peak_mib": usage.ru_maxrss / 1024,
    }


def resident_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def measure_growth(seed):
    """Run in a process of its own: what is resident of blocks that have come and gone, over what was alive of them."""
    import torch

    rng = random.Random(seed)
    sizes = [rng.choice((2, 4, 8, 16, 32)) * 2**20 + rng.choice((0, 0, 4000)) for _ in range(16)]
    kept, before = [], resident_bytes()
    for _ in range(150):
        blocks = []
        for size in sizes:
            blocks.append(torch.ones(size // 4))
            kept += [torch.ones(rng.choice((10, 100, 1000, 5000))) for _ in range(rng.randrange(3))]
            if kept and rng.random() < 0.1:
                kept.pop(rng.randrange(len(kept)))
        while blocks:
            blocks.pop(rng.randrange(len(blocks)))
    return (resident_bytes() - before) / (sum(sizes) + sum(tensor.nbytes for tensor in kept))


def measure_kept():
    """Run in a process of its own: how many freed blocks of 40 MiB stay resident, in the worst of 12 patterns."""
    import torch

    size, most = 40 * 2**20, 0.0
    for seed in range(12):
        rng = random.Random(seed)
        reading, writing = os.pipe()
        if os.fork():
            os.wait()
            most = max(most, float(os.read(reading, 100)))
            continue
        kept = [torch.zeros(rng.randrange(1, 3000)) for _ in range(rng.randrange(300))]
        before, small, pattern = resident_bytes(), rng.randrange(1, 600), seed % 3
        for _ in range(30):
            blocks = [torch.ones(part) for part in (size // 4, size // 8)[: 1 + pattern // 2]]
            kept += [torch.zeros(small)] if pattern else []
            blocks.clear()
            kept += [torch.zeros(small)] if pattern != 1 else []
        os.write(writing, str((resident_bytes() - before) / size).encode())
        os._exit(0)
    return most


def in_process(setting, *case):
    command = [sys.executable, __file__, "--child", setting, *map(str, case)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def compare(case, rounds):
    """One row: {setting: medians, and their ratios to none}."""
    runs, order = {setting: [] for setting in SETTINGS}, list(SETTINGS)
    for _ in range(rounds):
        for setting in order:
            runs[setting].append(in_process(setting, *case))
        order.append(order.pop(0))
    row = dict(zip(("what", "peer", "model", "size", "batch"), case, strict=False)) | {"settings": {}}
    for setting, found in runs.items():
        values = {key: statistics.median(run[key] for run in found) for key in found[0]}
        for key in ("seconds", "cpu_seconds", "peak_mib"):
            ratios = [a[key] / b[key] for a, b in zip(found, runs[NONE], strict=True)]
            values[f"{key}_to_none"] = statistics.median(ratios)
        row["settings"][setting] = values
    return row


def show(row):
    place = f"{row['what']:<10}{row['peer']} {row['model']} {row['size']}, batch {row['batch']}"
    for setting, v in row["settings"].items():
        print(f"{place:<38}{setting:<28}{v['faults']:>9,.0f} faults  {v['seconds']:6.3f} s ({v['seconds_to_none']:.2f} x; "
              f"CPU {v['cpu_seconds_to_none']:.2f} x)  {v['peak_mib']:5.0f} MiB ({v['peak_mib_to_none']:.2f} x)",
              flush=True)  # fmt: skip


def better_than_none(rows, growth):
    """The settings that are a tenth faster than none in some row, and in none of them take a tenth more memory."""
    found = []
    for setting in [name for name in SETTINGS if name != NONE]:
        values = [row["settings"][setting] for row in rows]
        memory = [v["peak_mib_to_none"] for v in values]
        memory += [a / b for a, b in zip(growth.get(setting, ()), growth.get(NONE, ()), strict=True)]
        if min(v["seconds_to_none"] for v in values) < 0.9 and max(memory) <= 1.1:
            found.append(setting)
    return found


def main():
    from machine import describe_machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each setting and row (default 5)")
    parser.add_argument("--growth", type=int, default=1, help="0 leaves the growth out (default 1)")
    args = parser.parse_args()
    load, rows, growth = os.getloadavg()[0], [], {}
    for setting in SETTINGS if args.growth else ():
        growth[setting] = [*(in_process(setting, "growth", seed) for seed in (1, 2)), in_process(setting, "kept")]
        print(
            f"{'growth, growth, kept':<38}{setting:<28}" + ", ".join(f"{v:.2f} x" for v in growth[setting]), flush=True
        )
    for case in ROWS:
        rows.append(compare(case, args.rounds))
        show(rows[-1])
    better = better_than_none(rows, growth)
    print(f"better than none: {', '.join(better) or 'no setting'}")
    if growth and args.rounds > 1:
        libc, threads = os.confstr("CS_GNU_LIBC_VERSION"), os.environ.get("OMP_NUM_THREADS")
        machine = describe_machine(load, "torch", "timm", libc=libc, threads=threads)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({"machine": machine, "rows": rows, "growth": growth}, indent=1) + "\n")
        print(f"written: {RESULTS}")
    return int(bool(better))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        apply(sys.argv[2])
        function = {"growth": measure_growth, "kept": measure_kept}.get(sys.argv[3])
        print(json.dumps(function(*map(int, sys.argv[4:])) if function else measure(*sys.argv[3:])))
    else:
        sys.exit(main())
