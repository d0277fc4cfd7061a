"""Find the files of the control groups of this process, in which Linux limits it and counts what it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Names the control groups of this process.
GROUPS = Path("/proc/self/cgroup")
# Has the files of version 2, and a folder for each controller of version 1.
ROOT = Path("/sys/fs/cgroup")


def folders(controller: str, groups: Path = GROUPS, root: Path = ROOT) -> Iterator[Path]:
    """Yield the folders of the control groups of this process for a controller, the innermost first of each version.

    In a container the groups around its own may be out of sight; its own is the root then. On another system there are
    none.

    Args:
        controller: The name of the controller, such as "cpu" or "memory".
        groups: The file that names the groups.
        root: Where their files are.
    """
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if not controllers:  # version 2
            yield from _with_parents(root, path)
        elif controller in controllers.split(","):
            for name in dict.fromkeys((controllers, controller)):  # one of them may be a link
                yield from _with_parents(root / name, path)


def _with_parents(root: Path, path: str) -> Iterator[Path]:
    group = root / path.strip().lstrip("/")
    yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))
