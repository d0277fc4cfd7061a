"""Kill a process at a statement that it sends, or right after a server has carried it out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from redis.connection import AbstractConnection

from tenant_q.cluster.reset import reset_in_child


def killed_at_each(act: Callable[[], Any], *, every: int = 1) -> Iterator[str]:
    """Kill a process that calls `act` before its first statement, another one right after it, and so on.

    It yields after each kill, with the place, and ends when a process has reached its end. `every` leaves out places.
    """
    place = 2
    while is_killed(act, place):
        yield f"{'after' if place % 2 else 'before'} statement {place // 2}"
        place += every


def killed_after_each(act: Callable[[], Any], *, every: int = 1) -> Iterator[str]:
    """Kill a process that calls `act` after its first answer of PostgreSQL or Redis, another one after the second.

    It yields after each kill, with the place, and ends when a process has reached its end.

    Parameters: `every`, the distance from one place to the next.
    """
    number = 1
    while is_killed(act, number, arm=_arm_after):
        yield f"after answer {number}"
        number += every


def is_killed(act: Callable[[], Any], place: int, arm: Callable[[int], None] | None = None) -> bool:
    """Call `act` in a process of its own, which is killed at a place. Return whether it came so far."""
    pid = os.fork()
    if pid == 0:
        try:
            reset_in_child()
            (arm or _arm)(place)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def count_statements(act: Callable[[Callable[[str], None]], Any]) -> dict[str, int]:
    """Call `act` in this process, and count its statements.

    It gets a function to call with the name of each part that begins. Return how many statements were sent before each
    part, and before "end".
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


def _arm_after(place: int) -> None:
    """Kill this process after an answer of PostgreSQL or Redis."""
    passed = 0

    def counted(receive: Any) -> Any:
        def receive_and_count(*arguments: Any, **options: Any) -> Any:
            nonlocal passed
            answer = receive(*arguments, **options)
            passed += 1
            if passed == place:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return receive_and_count

    psycopg.Connection.wait = counted(psycopg.Connection.wait)
    AbstractConnection.read_response = counted(AbstractConnection.read_response)
