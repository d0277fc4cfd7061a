"""Tasks that run while passwords are rotated, and tasks that change their own role."""

from __future__ import annotations

from django.db import connection


def use_session() -> str:
    """Open a session if the worker keeps none for the tenant. Return the role that did."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT session_user::text, count(*) FROM shop_order")
        return str(cursor.fetchone()[0])


def change_own_role(statement: str) -> None:
    """Change the tenant's own role, as a hostile task does."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


def sleep_in_session(seconds: float) -> None:
    """Keep a statement running."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])
