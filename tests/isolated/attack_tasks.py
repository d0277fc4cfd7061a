"""Tasks of a hostile tenant, which return what came of it, and the task that shows what the next one finds."""

from __future__ import annotations

import os
import threading
from typing import Any

import psycopg
from django.db import connection, connections

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
