"""Kill a process at a statement that it sends, or right after the server has carried it out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from tenant_q.cluster.reset import reset_in_child


def killed_at_each(act: Callable[[], Any]) -> Iterator[str]:
    """Kill a process that calls `act` at its first statement, another one right after it, and so on.

    It yields after each kill, with the place, and ends when a process has reached its end.
    """
    number = 1
    while is_killed(act, 2 * number):
        yield f"before statement {number}"
        assert is_killed(act, 2 * number + 1)
        yield f"after statement {number}"
        number += 1


def is_killed(act: Callable[[], Any], place: int) -> bool:
    """Call `act` in a process of its own, which is killed at a place. Return whether it came so far."""
    pid = os.fork()
    if pid == 0:
        try:
            reset_in_child()
            _arm(place)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def count_statements(act: Callable[[Callable[[str], None]], Any]) -> dict[str, int]:
    """Call `act` in this process, and count its statements.

    Args:
        act: Takes a function that it calls with the name of each part that begins.

    Returns:
        How many statements were sent before each part, and before "end".
    """
    send, sent, marks = psycopg.Connection.wait, 0, {}

    def wait(*arguments: Any, **options: Any) -> Any:
        nonlocal sent
        sent += 1
        return send(*arguments, **options)

    def mark(name: str) -> None:
        marks[name] = sent

    psycopg.Connection.wait = wait
    try:
        act(mark)
    finally:
        psycopg.Connection.wait = send
    return marks | {"end": sent}


def _arm(place: int) -> None:
    """Kill this process at the place: before a statement at even ones, after it at odd ones."""
    send = psycopg.Connection.wait
    passed = 1

    def wait(*arguments: Any, **options: Any) -> Any:
        nonlocal passed
        passed += 1
        if passed == place:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = send(*arguments, **options)
        passed += 1
        if passed == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    psycopg.Connection.wait = wait
