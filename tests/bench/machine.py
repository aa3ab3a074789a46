"""What a figure must be read with: the machine, its load, and how percentiles and memory are taken."""

import math
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

type Figures = dict[str, object]

_MIB = 1024 * 1024


def machine() -> Figures:
    """The machine as the measurements see it."""
    return {
        "cpu": _first(Path("/proc/cpuinfo"), "model name"),
        "cores": os.cpu_count() or 0,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes. Above the number of cores, times hold waiting for other work."""
    return [round(value, 2) for value in os.getloadavg()]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value with at least `percent` of all values at or below it (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


def peak_mib() -> float:
    """The most memory this process ever had resident.

    Not `ru_maxrss`: Linux carries that over from the parent through fork and exec.
    """
    return round(_status_kib("VmHWM") / 1024, 1)


def resident_mib() -> float:
    """What this process has resident now."""
    return round(_status_kib("VmRSS") / 1024, 1)


def _status_kib(name: str) -> int:
    return int(_first(Path("/proc/self/status"), name).split()[0])


def _first(path: Path, name: str) -> str:
    """The value of the first line `name: value` of a file in /proc."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "0")


def say(text: str) -> None:
    """Progress goes to stderr: stdout holds the result and nothing else."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
