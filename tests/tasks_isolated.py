"""Tasks that show as whom they act in PostgreSQL."""

from __future__ import annotations

import os
import threading
from typing import Any

from django.conf import settings
from django.db import connection, connections, transaction

from tenant_q import tenancy
from tenant_q.utils import QUtilities
from tests.tasks import note


def who() -> dict[str, Any]:
    """Return the roles, the schema and the backend of this task's session."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT session_user::text, current_user::text, current_schema()::text, pg_backend_pid(), "
            "(SELECT count(*) FROM shop_order)"
        )
        session, current, schema, pid, orders = cursor.fetchone()
    return {"session": session, "current": current, "schema": schema, "pid": pid, "orders": orders}


def who_in_a_thread() -> dict[str, Any]:
    """Return the same of a session of a thread that this task starts."""
    found: list[dict[str, Any]] = []

    schema = tenancy.current_schema()

    def look() -> None:
        with tenancy.in_schema(schema):
            found.append(who())
        connections.close_all()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def enter_public() -> dict[str, Any]:
    """Enter the public schema, in which tenant_q's own statements act as the owner of the tables."""
    with tenancy.in_public():
        return who()


def who_with(number: int) -> dict[str, Any]:
    """Return the same as `who`, for a part of an iter."""
    return who() | {"number": number}


def note_who(task: Any) -> None:
    """Note as whom a hook acts."""
    note(task.group, **who())


def shown() -> str:
    """Return what Django's settings and the environment show to a task, as one text."""
    aliases = [connections[alias].settings_dict for alias in connections]
    return repr([settings.DATABASES, connections.settings, aliases, settings.TENANT_Q, dict(os.environ)])


def call_for_itself() -> dict[str, Any]:
    """Use the calls of tenant_q inside of a transaction of the task, and return as whom it acts afterwards."""
    with transaction.atomic():
        id = QUtilities.add_async_task("tests.tasks.add", 1, 2)
        QUtilities.get_result(id)
        QUtilities.create_schedule("tests.tasks.add", 1, name=f"by {id}", schedule_type="D")
        return who() | {"id": id}


def read(table: str) -> list[Any]:
    """Return the rows of a table, by its qualified name."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} LIMIT 1")
        return [list(map(str, row)) for row in cursor.fetchall()]


def enter_other(schema: str) -> None:
    """Enter the schema of another tenant."""
    with tenancy.in_schema(schema):
        pass


def enqueue_for_other(schema: str) -> None:
    """Enqueue a task for another tenant."""
    QUtilities.add_async_task("tests.tasks.nothing", schema_name=schema)


def who_slowly() -> dict[str, Any]:
    """Return the same as `who`, and keep the session for a moment."""
    found = who()
    execute("SELECT pg_sleep(0.2)")
    return found


def execute(statement: str) -> None:
    """Execute a statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


def setting(name: str) -> str:
    """Return a setting of this task's session."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s)", [name])
        return str(cursor.fetchone()[0])


def fail_here() -> None:
    """Run a task that fails in this task, whose failed row this task's session writes."""
    QUtilities.add_async_task("tests.tasks.fail", "here", sync=True)


def delete_failures() -> None:
    """Delete the tenant's failed tasks."""
    execute("DELETE FROM django_q_task WHERE NOT success")
