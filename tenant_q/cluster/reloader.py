"""Run a cluster for development: end it and start it again whenever a file of the project changes.

A process cannot forget what it has imported, so the cluster is a subprocess of the reloader. Files are found and
compared by Django's autoreloader. It is not used as a whole, because it would run the cluster in a thread, where no
signal arrives and nothing should be forked, and would end it in the middle of a task.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.utils import autoreload

from tenant_q.cluster.stop_flag import StopFlag
from tenant_q.exceptions import ConfigurationError
from tenant_q.support import orphans

LOOK_SECONDS = 1.0
OPTION = "--reload"
# Folders without code of the project. A folder with this file is a virtual environment.
_LEFT_OUT = {"__pycache__", "node_modules", "site-packages", "dist-packages"}
_ENVIRONMENT = "pyvenv.cfg"


def own_command() -> list[str]:
    """Return the command of this process without the option `--reload`, by which the reloader starts the cluster.

    Raises:
        ConfigurationError: The command line has no such option, so code has called the command.
    """
    try:
        words = [str(word) for word in autoreload.get_child_arguments()]
    except RuntimeError:  # this process runs no script, but code that was given to the interpreter
        words = []
    found = [word for word in words if not _is_option(word)]
    if len(found) == len(words):
        raise ConfigurationError(
            f"mscluster {OPTION} starts its own command line again, so call it from a shell, not with call_command()."
        )
    return found


def _is_option(word: str) -> bool:
    return len(word) > len("--r") and OPTION.startswith(word)  # the parser of the command accepts `--rel` too


class Watcher(autoreload.StatReloader):
    """Django's autoreloader, which collects the changed files in `changed` and leaves the process alone.

    A change of a template or a translation counts too: the workers of the cluster have cached it.

    Args:
        folders: Folders in which all Python files are watched, besides the files that this process has imported: most
            tasks are only imported by the workers.
    """

    SLEEP_TIME = 0  # the reloader waits by itself

    def __init__(self, folders: Collection[Path]) -> None:
        super().__init__()
        self.folders = folders
        self.changed: list[Path] = []

    def watched_files(self, include_globs: bool = True) -> Iterator[Path]:
        yield from super().watched_files(include_globs)
        for folder in self.folders:
            yield from _python_files(folder)

    def notify_file_changed(self, path: str | os.PathLike[str]) -> None:
        self.changed.append(Path(path))


class Reloader:
    """The reloader of a cluster.

    Args:
        command: The command that starts the cluster.
        write: A function that shows a line to the developer.
    """

    def __init__(self, command: Sequence[str], write: Callable[[str], object]) -> None:
        self.command = command
        self.write = write
        self.stopping = StopFlag()
        self.watcher = Watcher(code_folders())
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run the cluster, and start it again after each change, until a signal comes or it ends in order.

        A cluster that ends with an error, because the changed code cannot be imported for example, starts again after
        the next change.

        Returns:
            The exit code of the cluster.
        """
        autoreload.autoreload_started.send(sender=self.watcher)  # so that folders of templates are watched too
        ticker = self.watcher.tick()
        next(ticker)
        try:
            self._start()
            while True:
                self._wait(LOOK_SECONDS)
                if self.stopping:
                    return self._end()
                if self._process is not None and self._process.poll() is not None:
                    if self._process.returncode == 0:
                        return 0
                    self.write(f"The cluster ended with exit code {self._end()}; it starts again after a change.")
                next(ticker)
                if self.watcher.changed:
                    self._start_again()
        finally:
            self._kill()
            self.stopping.restore()

    def _start(self) -> None:
        # In a process group of its own, so that Ctrl-C reaches it once, through the reloader.
        parent = os.getpid()
        self._process = subprocess.Popen(self.command, process_group=0, preexec_fn=lambda: orphans.die_with(parent))

    def _start_again(self) -> None:
        changed = [_shown(path) for path in dict.fromkeys(self.watcher.changed)]
        self.watcher.changed.clear()
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        self.write(f"{changed[0]}{more} changed; starting the cluster again.")
        self._end()
        if not self.stopping:
            self._start()

    def _end(self) -> int:
        """End the cluster in order, faster for each signal that comes meanwhile. Return its exit code."""
        if self._process is None:
            return 0
        passed_on = 0
        self._process.terminate()
        while self._process.poll() is None:
            if self.stopping.count > passed_on + 1:
                passed_on += 1
                self._process.terminate()
            self._wait(LOOK_SECONDS)
        code, self._process = self._process.returncode, None
        return code if code >= 0 else 128 - code

    def _wait(self, seconds: float) -> None:
        """Wait until a signal comes or the cluster ends, for at most `seconds`."""
        files = []
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(AttributeError, OSError):  # another system, or an older kernel
                files.append(os.pidfd_open(self._process.pid))
        try:
            self.stopping.wait(seconds, *files)
        finally:
            for file in files:
                os.close(file)

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # its sentinel notices, and ends everything
            self._process.wait()


def code_folders() -> list[Path]:
    """Return the folders with the project's own code: those of its apps, and that of its settings."""
    found = {Path(config.path).resolve() for config in apps.get_app_configs()}
    module = sys.modules.get(settings.SETTINGS_MODULE)
    if module is not None and module.__file__:
        found.add(Path(module.__file__).resolve().parent)
    own = {folder for folder in found if not _LEFT_OUT.intersection(folder.parts)}
    return sorted(folder for folder in own if not own.intersection(folder.parents))


def _python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files below a folder of the project, without those of virtual environments and the like."""
    for place, folders, files in os.walk(folder):
        path = Path(place)
        folders[:] = [
            name
            for name in folders
            if name not in _LEFT_OUT and not name.startswith(".") and not (path / name / _ENVIRONMENT).exists()
        ]
        yield from (path / name for name in files if name.endswith(".py"))


def _shown(path: Path) -> str:
    """Return a changed file's path, relative to the current folder if it is below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
