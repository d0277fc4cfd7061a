"""Delete a tenant's old successes beyond its limit."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta

from django.utils import timezone
from psycopg import sql

from tenant_q.conf import conf
from tenant_q.lifecycle.task_statements import execute, table_of
from tenant_q.models import TenantPolicy
from tenant_q.sql import statement
from tenant_q.tenancy import as_owner_in_public, database_alias, detect_outages

# A statement that deletes this many rows takes a fraction of the time limit for an answer.
PRUNED_AT_ONCE = 10_000


def prune(schema: str, may_come: Callable[[list[str]], Collection[str]] = lambda ids: ()) -> bool:
    """Prune the results of a tenant: delete its oldest successes beyond `max_results`, or else `save_limit`.

    `max_results` is in the tenant's policy. The row of a success stays as long as its package may be delivered again,
    because a later delivery finds there that the task is done. So rows of the last four leases stay, and rows whose
    packages the brokers still have. One call deletes at most `PRUNED_AT_ONCE` rows, so that the statement ends within
    the time limit.

    Args:
        schema: The tenant's schema.
        may_come: A function that returns those of the given ids whose packages may be delivered again.

    Returns:
        Whether more rows may be left.

    Raises:
        DatabaseError: The tenant's table cannot be written to.
        DatabaseAway: The database does not answer.
    """
    settings = conf()
    limit = _most_results(schema) or settings.save_limit
    if limit <= 0:
        return False
    partition = sql.Identifier(settings.save_limit_per) if settings.save_limit_per else sql.SQL("true")
    *_, found = execute(
        [schema],
        sql.SQL(statement("prunable_tasks")).format(table=table_of(schema), partition=partition),
        {"limit": limit, "spared": timezone.now() - spared(), "portion": PRUNED_AT_ONCE},
    )
    ids = [id for (id,) in found.rows]
    spared_ids = set(may_come(ids)) if ids else set()
    if over := [id for id in ids if id not in spared_ids]:
        execute([schema], sql.SQL(statement("prune_tasks")).format(table=table_of(schema)), [over])
    return len(ids) == PRUNED_AT_ONCE and bool(over)


def _most_results(schema: str) -> int | None:
    with detect_outages(), as_owner_in_public():
        policies = TenantPolicy.objects.using(database_alias()).filter(schema_name=schema)
        return policies.values_list("max_results", flat=True).first()


def spared() -> timedelta:
    """Return how long after the end of a task its result is spared from pruning."""
    return timedelta(seconds=4 * conf().lease)
