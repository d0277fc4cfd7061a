"""Find out whether the kernel has killed a process because no memory was left."""

from __future__ import annotations

from pathlib import Path

from tenant_q.support import control_groups

_COUNTER = "oom_kill"
# The counter of a control group, in versions 2 and 1, and that of the whole machine.
_FILES = ("memory.events", "memory.oom_control")
_MACHINE = Path("/proc/vmstat")


def kills(
    groups: Path = control_groups.GROUPS, root: Path = control_groups.ROOT, machine: Path = _MACHINE
) -> int | None:
    """Return how many processes the kernel has killed for lack of memory; None if it does not count them.

    These are the processes of this process's control group, or else of the whole machine.

    Args:
        groups: The file that names the control groups.
        root: Where the files of control groups are.
        machine: The file with the counter of the machine.
    """
    places = [folder / name for folder in control_groups.folders("memory", groups, root) for name in _FILES]
    counts = (_count(place) for place in (*places, machine))
    return next((count for count in counts if count is not None), None)


def _count(place: Path) -> int | None:
    try:
        values = dict(line.split() for line in place.read_text().splitlines())
        return int(values[_COUNTER])
    except (OSError, KeyError, ValueError):  # it has no such file or counter
        return None
