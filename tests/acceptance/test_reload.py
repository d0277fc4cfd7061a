"""`mscluster --reload` ends the cluster in order and starts it again when a file of the project changes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.core.management import CommandError, call_command

from tenant_q.cluster import reloader
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import RunningCluster, wait_until

A = "acme_corp"
WAIT = 30_000
SETTINGS = "from tests.settings import *\n"
TASKS = """
from tests.tasks import hold

def answer():
    return {}
"""


class Project:
    """A folder with the settings and the tasks of a project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ahead = 0
        self.write("reload_settings.py", SETTINGS)
        self.write("reload_tasks.py", TASKS.format(1))

    def write(self, name: str, text: str) -> None:
        """Write a file with a time that differs from the last, however coarse the clock of the file system is."""
        self._ahead += 2
        path = self.folder / name
        path.write_text(text)
        os.utime(path, (time.time() + self._ahead,) * 2)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder)


@pytest.fixture
def cluster(tenants: Any, mscluster: Callable[..., RunningCluster], project: Project) -> RunningCluster:
    paths = os.pathsep.join([str(project.folder), os.environ["PYTHONPATH"]])
    env = {"DJANGO_SETTINGS_MODULE": "reload_settings", "PYTHONPATH": paths}
    return mscluster("--workers", "1", "--reload", **env)


def answer() -> Any:
    return QUtilities.get_result(add("answer"), wait=WAIT, schema_name=A)


def add(name: str, *args: Any) -> str:
    return QUtilities.add_async_task(f"reload_tasks.{name}", *args, schema_name=A)


def test_a_changed_task_runs_in_its_new_form(cluster, project):
    assert answer() == 1
    (before,) = cluster.pids("worker")
    project.write("reload_tasks.py", TASKS.format(2))
    wait_until(lambda: before not in cluster.pids("worker"), what="the cluster to end")
    cluster.wait_for_workers(1)
    assert answer() == 2
    assert "reload_tasks.py changed; starting the cluster again." in cluster.log
    assert cluster.stop(signal.SIGINT) == 0
    assert cluster.log.count("Stopped cluster") == 2


def test_a_running_task_is_finished_first(cluster, project):
    key = f"reload-{cluster.name}"
    id = add("hold", key)
    wait_until(partial(tasks.notes, key), what="the task to run")
    project.write("reload_tasks.py", TASKS.format(2))
    wait_until(lambda: "changed; starting the cluster again" in cluster.log, what="the change to be noticed")
    tasks.let_go(key)
    assert QUtilities.get_result(id, wait=WAIT, schema_name=A) is not None
    assert answer() == 2
    assert len(tasks.notes(key)) == 1, "it did not run twice"
    assert cluster.stop() == 0


def test_code_that_cannot_be_imported_waits_for_a_change(cluster, project):
    project.write("reload_settings.py", "this is no code\n")
    wait_until(lambda: "it starts again after a change" in cluster.log, what="the cluster to fail")
    assert "SyntaxError" in cluster.log
    assert cluster.processes() == {}
    project.write("reload_settings.py", SETTINGS)
    cluster.wait_for_workers(1)
    assert answer() == 1
    assert cluster.stop() == 0


def test_nothing_is_left_of_a_reloader_that_was_killed(cluster):
    (parent,) = cluster.pids("parent")
    cluster.process.kill()
    cluster.process.wait(20)
    try:
        wait_until(lambda: not cluster.processes(), what="the cluster to end")
    finally:
        if psutil.pid_exists(parent):
            os.kill(parent, signal.SIGKILL)  # and its sentinel ends the rest


def test_it_watches_the_code_of_the_project_and_no_other(tmp_path):
    for name in ("app/tasks.py", "app/deep/more.py", "app/.git/no.py", "app/venv/lib/no.py", "app/node_modules/no.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "app/venv/pyvenv.cfg").touch()
    found = reloader.Watcher([tmp_path / "app"]).watched_files()
    assert {path.name for path in found if path.is_relative_to(tmp_path)} == {"tasks.py", "more.py"}
    folders = {folder.name for folder in reloader.code_folders()}
    assert "shop" in folders and "django_q" not in folders


@pytest.mark.parametrize("script", [__file__, "-c"])
def test_it_is_called_from_a_shell(monkeypatch, script):
    monkeypatch.setattr(sys, "argv", [script])
    with pytest.raises(CommandError, match="call it from a shell"):
        call_command("mscluster", reload=True)
