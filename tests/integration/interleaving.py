"""Run sessions one statement at a time, in every order.

A session is a thread with a connection of its own. Before each statement on the tables of workflows it pauses, and the
test says which session goes on. What waits for a lock in PostgreSQL cannot be chosen, so the orders are those that a
server can see.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from django.db import connection, connections

from tenant_q.workflows import transactions

_here = threading.local()


class Session(threading.Thread):
    """A thread that does one thing, and pauses before each statement."""

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.act = act
        self.result: Any = None
        self.error: BaseException | None = None
        self.pid = 0
        self.turn, self.pauses = threading.Semaphore(0), threading.Event()
        self.is_over = self.is_blocked = self.is_given_up = False

    def run(self) -> None:
        _here.session = self
        try:
            connection.ensure_connection()
            self.pid = connection.connection.info.backend_pid
            self.result = self.act()
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()
            self.is_over = True
            self.pauses.set()

    def pause(self) -> None:
        self.pauses.set()
        self.turn.acquire()
        if self.is_given_up:
            raise SystemExit

    def go_on(self) -> None:
        """Let the session run its next statement."""
        self.pauses.clear()
        self.turn.release()

    def settle(self, monitor: psycopg.Connection[Any]) -> None:
        """Wait until the session pauses, is over, or waits for another one's lock."""
        deadline = time.monotonic() + 60
        while True:
            self.is_blocked = False
            if self.pauses.wait(0.0005):
                return
            ((blockers,),) = monitor.execute("SELECT cardinality(pg_blocking_pids(%s))", [self.pid]).fetchall()
            if blockers and not self.pauses.is_set():
                self.is_blocked = True
                return
            assert time.monotonic() < deadline, "a session does not answer"


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sessions send each statement for itself, and pause before those on the tables of workflows."""
    together = transactions.Transaction._send

    def send(self: Any, texts: Any, parameters: Any) -> Any:
        session = getattr(_here, "session", None)
        if session is None:
            return together(self, texts, parameters)
        answers, left = [], list(parameters)
        for text in texts:
            shown = text.as_string(self._connection.connection)
            count = shown.count("%s")
            if "tenant_q_workflows_" in shown or shown == "COMMIT":
                session.pause()
            answers += together(self, [text], left[:count])
            del left[:count]
        return answers

    monkeypatch.setattr(transactions.Transaction, "_send", send)


def orders(
    prepare: Callable[[], None], acts: Mapping[str, Callable[[], Any]], most: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the acts in every order of their statements, or in the `most` first of a shuffled list. `prepare` makes the
    rows before each.

    Yields:
        The order, a letter for each statement, and what each act returned.
    """
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as monitor:
        left, chance, count = [""], random.Random(0), 0
        while left:
            prefix = left.pop(chance.randrange(len(left)))
            prepare()
            order, choices, results = _run(monitor, prefix, acts)
            left += [
                order[:place] + other
                for place, enabled in enumerate(choices)
                if place >= len(prefix)
                for other in enabled
                if other != order[place]
            ]
            yield order, results
            count += 1
            if count == most:
                return


def _run(
    monitor: psycopg.Connection[Any], prefix: str, acts: Mapping[str, Callable[[], Any]]
) -> tuple[str, list[list[str]], dict[str, Any]]:
    sessions = {name: Session(act) for name, act in acts.items()}
    for session in sessions.values():
        session.start()
    try:
        return _drive(monitor, prefix, sessions)
    finally:
        for session in sessions.values():
            session.is_given_up = True
            session.turn.release()


def _drive(
    monitor: psycopg.Connection[Any], prefix: str, sessions: Mapping[str, Session]
) -> tuple[str, list[list[str]], dict[str, Any]]:
    for session in sessions.values():
        session.settle(monitor)
    order, choices = "", []
    while True:
        enabled = [name for name, session in sessions.items() if not session.is_over and not session.is_blocked]
        if not enabled:
            break
        choices.append(enabled)
        chosen = prefix[len(order)] if len(order) < len(prefix) else enabled[0]
        assert chosen in enabled, f"{order}: {chosen} is not among {enabled}"
        order += chosen
        sessions[chosen].go_on()
        sessions[chosen].settle(monitor)  # its commit may have let the others go on
        for session in sessions.values():
            if not session.is_over:
                session.settle(monitor)
    for name, session in sessions.items():
        assert session.is_over, f"{name} is blocked for good after {order}"
        if session.error is not None:
            raise session.error
    return order, choices, {name: session.result for name, session in sessions.items()}
