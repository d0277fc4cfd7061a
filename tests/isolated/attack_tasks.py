"""Tasks of a hostile tenant, which return what came of it, and the task that shows what the next one finds."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg
from django.db import connection, connections, transaction

from tests.tasks import client, hold, note

Outcome = list[Any]  # the statement, the SQLSTATE or "done", and what was read or said


def attempt(statements: list[str], alias: str = "default") -> list[Outcome]:
    """Execute each statement by itself."""
    return [_attempt(statement, alias) for statement in statements]


def _attempt(statement: str, alias: str = "default") -> Outcome:
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(statement)
            return [statement, "done", repr(cursor.fetchall() if cursor.description else cursor.statusmessage)]
    except Exception as error:
        return [statement, _state(error), repr(error)]


def _state(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
    return getattr(cause, "sqlstate", None) or type(error).__name__


# Other ways to send it


def in_transaction(statements: list[str]) -> list[Outcome]:
    """Execute all of them in one transaction, each in a savepoint."""
    outcomes = []
    with suppress(Exception), transaction.atomic():
        for statement in statements:
            with suppress(_Undo), transaction.atomic():
                outcomes.append(_attempt(statement))
                if outcomes[-1][1] != "done":
                    raise _Undo
    return outcomes


def after_rollbacks(statements: list[str]) -> list[Outcome]:
    """Execute them after transactions that failed and were rolled back, which restores what a session had set."""
    outcomes = []
    for statement in statements:
        with suppress(Exception), transaction.atomic():
            attempt(["SELECT 1 / 0"])
            raise _Undo
        outcomes.append(_attempt(statement))
    return outcomes


def attempt_later(statements: list[str], key: str) -> list[Outcome]:
    """Execute them when the test says so."""
    attempt(["SELECT 1"])
    hold(key)
    return attempt(statements)


class _Undo(Exception):
    """Rolls a savepoint back."""


def by_copy(tables: list[str]) -> list[Outcome]:
    """Copy tables to the client and rows into them, by the protocol of COPY."""
    outcomes = []
    for table in tables:
        for statement, row in ((f"COPY {table} TO STDOUT", None), (f"COPY {table} FROM STDIN", b"x\n")):
            try:
                with connection.cursor() as cursor, cursor.copy(statement) as copy:
                    if row is None:
                        outcomes.append([statement, "done", repr([bytes(data) for data in copy])])
                    else:
                        copy.write(row)
                        outcomes.append([statement, "done", ""])
            except Exception as error:
                outcomes.append([statement, _state(error), repr(error)])
    return outcomes


def prepared(statements: list[str]) -> list[Outcome]:
    """Execute them past Django, prepared on the server."""
    connection.ensure_connection()
    outcomes = []
    for statement in statements:
        try:
            found = connection.connection.execute(statement, prepare=True)
            outcomes.append([statement, "done", repr(found.fetchall() if found.description else "")])
        except Exception as error:
            outcomes.append([statement, _state(error), repr(error)])
    return outcomes


def in_new_sessions(statements: list[str]) -> list[Outcome]:
    """Execute them after Django's session was closed, after it was ended, and over a connection of the task's own."""
    connection.close()
    outcomes = attempt(statements)
    attempt(["SELECT pg_terminate_backend(pg_backend_pid())"])
    connection.close()
    outcomes += attempt(statements)
    connection.close()
    made = connections.create_connection("default")
    made.set_schema(connection.schema_name)
    for statement in statements:
        try:
            with made.cursor() as cursor:
                cursor.execute(statement)
                outcomes.append([statement, "done", repr(cursor.fetchall() if cursor.description else "")])
        except Exception as error:
            outcomes.append([statement, _state(error), repr(error)])
    made.close()
    return outcomes


def in_a_thread(statements: list[str]) -> list[Outcome]:
    """Execute them in a thread, which has a session of its own."""
    outcomes: list[Outcome] = []

    def work() -> None:
        outcomes.extend(attempt(statements))
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return outcomes


def in_a_child(statements: list[str], key: str) -> list[Outcome]:
    """Execute them in a forked process."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            connections.close_all()
            note(key, outcomes=attempt(statements))
        os._exit(0)
    os.waitpid(child, 0)
    return []


def leave_a_thread(statements: list[str], key: str, seconds: float, way: str = "attempt") -> None:
    """Leave a thread that goes on in new sessions while other tenants are served, each time in a way of this module."""

    send, has_begun = globals()[way], threading.Event()

    def work() -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not client().exists(f"go:{key}"):
            note(key, outcomes=[outcome for outcome in send(statements) if outcome[1] == "done"])
            connections.close_all()
            has_begun.set()
            time.sleep(0.002)
        note(key, outcomes="the end")

    threading.Thread(target=work, daemon=True).start()
    has_begun.wait(10)


def hook(task: Any) -> None:
    """Executes the statements that the task returned."""
    note(f"hook:{task.id}", outcomes=attempt(task.result))


def give(value: Any) -> Any:
    return value


# What the next one finds


def surroundings() -> dict[str, Any]:
    """Return all that a task finds in its session, and whether it can read and write its tenant's rows."""
    raw_status = connection.connection.info.transaction_status.name if connection.connection else "IDLE"
    with connection.cursor() as cursor:

        def ask(statement: str) -> list[Any]:
            cursor.execute(statement)
            return [list(row) for row in cursor.fetchall()]

        found = {
            "users": ask("SELECT session_user::text, current_user::text, current_schema()::text"),
            "settings": ask(  # those of a library are there once it is loaded
                "SELECT name, setting FROM pg_settings WHERE context IN ('user', 'superuser') "
                "AND strpos(name, '.') = 0 ORDER BY 1"
            ),
            "evil": ask("SELECT COALESCE(current_setting('evil.key', true), '')"),
            "own settings": ask("SELECT setconfig FROM pg_db_role_setting"),
            "prepared": ask("SELECT name FROM pg_prepared_statements WHERE from_sql"),
            "cursors": ask("SELECT name FROM pg_cursors WHERE is_holdable"),
            "temporary": ask("SELECT relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r' "
                             "AND pg_table_is_visible(oid)"),
            "channels": ask("SELECT pg_listening_channels()"),
            "locks": ask("SELECT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"),
            "orders": ask("SELECT number FROM shop_order ORDER BY id LIMIT 1"),
            "rates": ask("SELECT name, value FROM public.rates ORDER BY 1"),
        }  # fmt: skip
        cursor.execute(
            "INSERT INTO shop_report (title, made_in, orders, revenue, created) VALUES ('r', '', 0, 0, now())"
        )
        cursor.execute("DELETE FROM shop_report WHERE title = 'r'")
        found["deleted"] = [cursor.rowcount]
    return found | {
        "status": [raw_status],
        "tenant": [connection.tenant.schema_name],
        "environment": sorted(os.environ),
        "threads": sorted(thread.name for thread in threading.enumerate() if not thread.daemon),
    }
