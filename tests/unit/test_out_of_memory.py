"""How many processes the kernel has killed for lack of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenant_q.support import out_of_memory


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"root/a/b/memory.events": "low 0\noom 4\noom_kill 3\n", "vmstat": "oom_kill 9\n"}, 3),
        ({"root/a/memory.events": "oom_kill 2\n"}, 2),
        ({"root/memory/a/b/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"}, 5),
        ({"root/a/b/memory.events": "no counter\n", "vmstat": "nr_free_pages 8\noom_kill 7\n"}, 7),
        ({"vmstat": "nr_free_pages 8\n"}, None),
        ({"vmstat": "three words here\n"}, None),
    ],
)
def test_the_counter_of_the_control_group_comes_before_that_of_the_machine(tmp_path, files, expected):
    (tmp_path / "cgroup").write_text("4:memory:/a/b\n0::/a/b\n")
    for name, text in files.items():
        place: Path = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    assert out_of_memory.kills(tmp_path / "cgroup", tmp_path / "root", tmp_path / "vmstat") == expected


def test_another_system_counts_none(tmp_path):
    assert out_of_memory.kills(tmp_path / "none", tmp_path, tmp_path / "none") is None
