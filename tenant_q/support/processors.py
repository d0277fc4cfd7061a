"""Find the processors that this process may use, by its CPU affinity and its CPU quota."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable() -> list[int]:
    """Return the numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def count() -> int:
    """Return how many processors this process may keep busy: at most its control group's CPU quota, rounded up."""
    return max(1, math.ceil(min(len(usable()), _quota())))


def _quota(cgroup: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the CPU quota of the control groups (version 2), in processors; infinite without a limit."""
    quota = math.inf
    try:
        path = cgroup.read_text().rpartition("0::/")[2].strip()
        for group in (root / path, *(root / path).parents):
            if group.is_relative_to(root) and (group / "cpu.max").exists():
                most, period = (group / "cpu.max").read_text().split()
                quota = min(quota, math.inf if most == "max" else int(most) / int(period))
    except (OSError, ValueError):  # another system, or another version
        return quota
    return quota
