"""Mutates the files of every reader, many thousands of times: each is read, or refused by an InputError of one line.

    OMP_NUM_THREADS=1 python benchmarks/fuzz_readers.py [--inputs 1000]

The readers and the mutations are those of tests/test_fuzz.py, with random inputs in place of the ordinary test's. Results go to
benchmarks/results/reliability.json, under "inputs". Two cores: about 10 minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_resume import ROOT, write
from machine import describe_machine


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--inputs", type=int, default=1000, metavar="N", help="for each reader (1000)")
    options = p.parse_args()
    load, started = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.json"
        environment = os.environ | {"CSL_FUZZ": str(options.inputs), "CSL_FUZZ_COUNTS": str(counts)}
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_fuzz.py"],
            cwd=ROOT,
            env=environment,
        )
        tried = json.loads(counts.read_text())
    result = {
        "inputs": sum(tried.values()),
        "errors of another kind": 0 if ended.returncode == 0 else "see the output",
        "of each reader": dict(sorted(tried.items())),
        "seconds": round(time.monotonic() - started),
        "machine": describe_machine(load, "torch", "numpy", "Pillow", "pandas", "pyarrow", "hypothesis"),
    }
    write("inputs", result)
    for name, count in sorted(tried.items()):
        print(f"{count:8,}  {name}")
    print(f"{result['inputs']:,} inputs; {'only InputError was raised' if ended.returncode == 0 else 'FAILED'}")
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
