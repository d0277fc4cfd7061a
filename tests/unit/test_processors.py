"""How many processors a process may use."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from tenant_q.support import processors

CODE = "from tenant_q.support import processors; print(processors.count())"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_a_process_that_is_bound_to_one_processor_has_one():
    one = min(os.sched_getaffinity(0))
    bound = f"import os; os.sched_setaffinity(0, {{{one}}}); {CODE}"
    told = subprocess.run([sys.executable, "-c", bound], stdout=subprocess.PIPE, check=True, text=True)
    assert int(told.stdout) == 1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, math.inf),
        ({"": "max 100000"}, math.inf),
        ({"": "150000 100000"}, 1.5),
        ({"shop.slice": "400000 100000", "shop.slice/a.service": "max 100000"}, 4),
        ({"shop.slice": "400000 100000", "shop.slice/a.service": "50000 100000"}, 0.5),
        ({"": "nothing"}, math.inf),
    ],
)
def test_the_smallest_quota_of_its_control_groups_counts(tmp_path, limits, expected):
    root = tmp_path / "root"
    (root / "shop.slice" / "a.service").mkdir(parents=True)
    for group, limit in limits.items():
        (root / group / "cpu.max").write_text(f"{limit}\n")
    (tmp_path / "cpu.max").write_text("1000 100000\n")  # above the root: no control group
    (tmp_path / "cgroup").write_text("0::/shop.slice/a.service\n")
    assert processors._quota(tmp_path / "cgroup", root) == expected


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, math.inf),
        ({"": -1}, math.inf),
        ({"": 50_000}, 0.5),
        ({"docker": 400_000, "docker/one": 150_000}, 1.5),
        ({"docker": 150_000, "docker/one": -1}, 1.5),
    ],
)
def test_the_quota_of_control_groups_of_version_1(tmp_path, folder, limits, expected):
    root = tmp_path / "root"
    (root / folder / "docker" / "one").mkdir(parents=True)
    for group, limit in limits.items():
        (root / folder / group / "cpu.cfs_quota_us").write_text(f"{limit}\n")
        (root / folder / group / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cgroup").write_text(f"12:memory:/docker/one\n4:{folder}:/docker/one\n0::/docker/one\n")
    assert processors._quota(tmp_path / "cgroup", root) == expected


def test_a_container_may_see_only_its_own_control_group(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cgroup").write_text("4:cpu,cpuacct:/docker/0123456789ab\n")
    assert processors._quota(tmp_path / "cgroup", tmp_path) == 2


def test_where_nothing_is_known_of_control_groups(tmp_path):
    assert processors._quota(tmp_path / "cgroup", tmp_path) == math.inf


def test_there_is_at_least_one(monkeypatch):
    monkeypatch.setattr(processors, "usable", lambda: [0, 1, 2])
    for quota, expected in ((0.0, 1), (0.1, 1), (1.5, 2), (8.0, 3)):
        monkeypatch.setattr(processors, "_quota", lambda quota=quota: quota)
        assert processors.count() == expected
