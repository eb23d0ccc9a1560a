"""The machine and the versions that a benchmark's numbers belong to."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe_machine(load, *packages, **more):
    """Processor, cores, Python and the versions of `packages`, as the results files hold them.

    Args:
        load: the load average before the first measurement; well above 0, the machine was busy with something else.
        packages: names of distributions.
        more: what else belongs to the numbers.
    """
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": load,
        **more,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
