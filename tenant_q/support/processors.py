"""Find the processors that this process may use, by its CPU affinity and its CPU quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from tenant_q.support import control_groups


def usable() -> list[int]:
    """Return the numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def count() -> int:
    """Return how many processors this process may keep busy: at most its control group's CPU quota, rounded up."""
    return max(1, math.ceil(min(len(usable()), _quota())))


def _quota(groups: Path = control_groups.GROUPS, root: Path = control_groups.ROOT) -> float:
    """Return the CPU quota of the control groups of this process, in processors; infinite without a limit."""
    folders = control_groups.folders("cpu", groups, root)
    return min((quota for folder in folders for quota in _quotas_of(folder)), default=math.inf)


def _quotas_of(folder: Path) -> Iterator[float]:
    """Yield the CPU quotas that a control group has, by the files of version 2 and of version 1."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            most, period = " ".join((folder / name).read_text() for name in names).split()
            if most not in ("max", "-1"):
                yield int(most) / int(period)
        except (OSError, ValueError):  # it has no such controller
            continue
