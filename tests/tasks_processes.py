"""Tasks that start processes, and tasks that end the worker they run in."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from tests import tasks

LONGEST = 300.0  # seconds until what a task started ends by itself
_kept: list[Any] = []


def _sleep() -> None:
    time.sleep(LONGEST)


def _ignore_hang_up() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _ignore_hang_up_and_sleep() -> None:
    _ignore_hang_up()
    _sleep()


def _fork() -> list[int]:
    child = multiprocessing.get_context("fork").Process(target=_ignore_hang_up_and_sleep, daemon=False)
    child.start()
    return [child.pid or 0]


def _pool() -> list[int]:
    pool = multiprocessing.get_context("fork").Pool(2, initializer=_ignore_hang_up)
    _kept.append(pool)
    return [child.pid for child in pool._pool]


def _fork_in_a_thread() -> list[int]:
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.extend(_fork()))
    thread.start()
    thread.join()
    return pids


def _program() -> list[int]:
    return [subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({LONGEST})"]).pid]


def _grandchild() -> list[int]:
    """A shell and what it started."""
    shell = subprocess.Popen(["sh", "-c", f"sleep {LONGEST:g} & echo $!; wait"], stdout=subprocess.PIPE)
    assert shell.stdout is not None
    return [shell.pid, int(shell.stdout.readline())]


def _detached_program() -> list[int]:
    """It has a session of its own, and the shell that started it has ended."""
    command = f"setsid sleep {LONGEST:g} >/dev/null 2>&1 & echo $!"
    return [int(subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, check=True).stdout)]


WAYS: dict[str, Callable[[], list[int]]] = {
    "fork": _fork,
    "pool": _pool,
    "thread": _fork_in_a_thread,
    "program": _program,
    "grandchild": _grandchild,
    "detached": _detached_program,
}
FORKED = ("fork", "pool")


def _note(key: str, **values: Any) -> None:
    tasks.note(f"{os.environ['Q_NAME']}:{key}", **values)


def _notes(key: str) -> list[dict[str, Any]]:
    return tasks.notes(f"{os.environ['Q_NAME']}:{key}")


def start_all(key: str) -> dict[str, list[int]]:
    """Start processes in each way, say which they are, and return."""
    found = {way: start() for way, start in WAYS.items()}
    _note(key, pids=found, worker=os.getpid())
    return found


def start_all_and_stay(key: str) -> None:
    """Start processes in each way, and run until the worker ends."""
    start_all(key)
    time.sleep(LONGEST)


def ignore_and_stay(key: str) -> None:
    """Start processes in each way, and heed neither the timeout nor a cancel."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGUSR1])
    start_all_and_stay(key)


def start_all_and_die(key: str) -> list[int]:
    """Start processes in each way, the first time, and die. Returns, the second time, which of them are there."""
    if not _notes(key):
        start_all(key)
        os.kill(os.getpid(), signal.SIGKILL)
    return [pid for pids in _notes(key)[0]["pids"].values() for pid in pids if psutil.pid_exists(pid)]


def end_worker(key: str, code: int) -> None:
    """End the worker by `os._exit`."""
    _note(key, worker=os.getpid())
    os._exit(code)


def leave_a_thread() -> int:
    """Leave a thread that runs on and keeps its process from ending as Python ends processes."""
    threading.Thread(target=_sleep, daemon=False).start()
    return os.getpid()


def leave_a_child() -> int:
    """Leave a process that `multiprocessing` waits for at the worker's end."""
    _fork()
    return os.getpid()


def take_memory_and_die(key: str, mebibytes: int) -> None:
    """Have this much memory, and be killed as the kernel kills then."""
    _kept.append(bytearray(os.urandom(2**20)) * mebibytes)
    _note(key, worker=os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)
