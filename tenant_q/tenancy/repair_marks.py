"""Mark roles of tenants for their repair. A process that may not alter roles marks them, the scheduler repairs them."""

from __future__ import annotations

from psycopg import sql

from tenant_q.sql import statement
from tenant_q.tenancy.connection import detect_outages, raw_cursor
from tenant_q.tenancy.tenancy_package import as_owner_in_public, public_schema

CHANNEL = "tenant_q_repair"
"""The channel on which schedulers are notified of a role that was marked."""
ROLE_TABLE = "tenant_q_tenantrole"
_MOST_CHARACTERS = 500


def mark_for_repair(schema: str, *, version: int, problem: str) -> bool:
    """Mark a tenant's role for its repair, over the owner's connection, and notify the schedulers.

    Args:
        schema: The name of the tenant's schema.
        version: The version of the password with which the role was refused. If the role has another one by now, it is
            not marked: a rotation went ahead, and the new password has not been tried.
        problem: What is wrong with the role, without secrets.

    Returns:
        Whether the role is marked now, and was not before.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    query = sql.SQL(statement("mark_role_for_repair")).format(
        table=sql.Identifier(public_schema(), ROLE_TABLE),
        channel=sql.Literal(CHANNEL),
        schema=sql.Literal(schema),
        version=sql.Literal(version),
        problem=sql.Literal(problem[:_MOST_CHARACTERS]),
    )
    with detect_outages(), as_owner_in_public(), raw_cursor() as cursor:
        return cursor.execute(query).fetchone() is not None
