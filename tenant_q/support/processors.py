"""Find the processors that this process may use, by its CPU affinity and its CPU quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
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
    """Return the CPU quota of the control groups of this process, in processors; infinite without a limit.

    Args:
        cgroup: The file that names the groups.
        root: Where their files are: those of version 2, and of version 1 in a folder for each controller.
    """
    try:
        lines = [line.split(":", 2) for line in cgroup.read_text().splitlines()]
    except OSError:  # another system
        return math.inf
    quotas = [math.inf]
    for _, controllers, path in lines:
        if not controllers:
            quotas += [_quota_of_version_2(group) for group in _groups(root, path)]
        elif "cpu" in controllers.split(","):
            folders = {root / controllers, root / "cpu"}  # a link, or the only name
            quotas += [_quota_of_version_1(group) for folder in folders for group in _groups(folder, path)]
    return min(quotas)


def _groups(root: Path, path: str) -> Iterator[Path]:
    """Yield the folders of a control group and of those around it.

    In a container they may be out of sight, except for the container's own, which then is the root.
    """
    group = root / path.strip().lstrip("/")
    yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _quota_of_version_2(group: Path) -> float:
    try:
        most, period = (group / "cpu.max").read_text().split()
        return math.inf if most == "max" else int(most) / int(period)
    except (OSError, ValueError):  # it has no such controller
        return math.inf


def _quota_of_version_1(group: Path) -> float:
    try:
        most, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return most / period if most > 0 else math.inf
    except (OSError, ValueError):
        return math.inf
