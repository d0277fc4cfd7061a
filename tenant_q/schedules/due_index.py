"""The due index: find the schedules of all tenants that are due, with one statement that reads a few index pages.

The table is `DueSchedule`, in the public schema. Triggers on each tenant's schedules keep it up to date, whoever writes
them: admin, ORM or SQL. `index_upkeep` puts schemas into the index and compares them with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Max, Min, Q
from django.db.models.functions import Now
from psycopg import sql

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import DatabaseAway
from tenant_q.models import DueSchedule
from tenant_q.schedules.index_statements import entries, execute, fetch, in_public
from tenant_q.sql import statement

# Why a schema's schedules are held back.
EXCLUDED, PAUSED, UNREADY, FAILED = "excluded", "paused", "unready", "failed"
CHANNEL = "tenant_q_due"
"""The channel on which a trigger notifies of a run that is earlier than the index said."""
UNSURE = "tenant_q_unsure"
"""The channel on which a trigger names a schema whose entries it could not keep."""
LOOK = 1000
"""The most due schedules that `look` reads."""


@dataclass(frozen=True, slots=True)
class Due:
    """A schema with due schedules, or the schema that is due next.

    Attributes:
        schema: The schema as PostgreSQL names it.
        seconds: The seconds until its earliest schedule is due; 0 or less if it is due.
        count: The number of its schedules that were read.
    """

    schema: str
    seconds: float
    count: int


@dataclass(frozen=True, slots=True)
class Plans:
    """The schedules of one schema.

    Attributes:
        schema: The schema as PostgreSQL names it.
        schedules: The number of schedules that will run again.
        due: When the scheduler reads the first of them; None while all are held until they are released.
        held: Why they are held, or empty.
    """

    schema: str
    schedules: int
    due: datetime | None
    held: str


def served_clusters() -> list[str]:
    """Return the clusters whose due schedules this one fires: the site's own also fires those that name none."""
    return [conf().cluster, *([""] if conf().cluster == conf().site else [])]


def look(*, but: Collection[str] = ()) -> list[Due]:
    """Look into the due index: return the schemas with due schedules, the longest due first, then the one due next.

    It costs one statement.

    Args:
        but: Schemas whose due schedules are left out.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    return [Due(*row) for row in fetch(look_query(but=but))]


def look_query(*, but: Collection[str] = ()) -> sql.Composed:
    """Return the statement with which `look` reads the due index."""
    return sql.SQL(statement("due")).format(
        table=in_public(DueSchedule._meta.db_table),
        clusters=sql.Literal(served_clusters()),
        but=sql.Literal(sorted(but)),
        limit=sql.Literal(LOOK),
    )


def plans() -> list[Plans]:
    """Return the plans of each schema in the due index, with one statement. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        found = entries().values_list("schema_name").annotate(Count("pk"), Min("due"), Max("held")).order_by()
        return [Plans(*row) for row in found]


def late_clusters(seconds: float) -> dict[str, int]:
    """Return from the due index the number of schedules that are late, by cluster, with one statement.

    The site's own cluster serves schedules that name none. The result is empty if the index is not migrated.

    Args:
        seconds: A schedule is late when it is due for longer than this.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    try:
        with tenancy.detect_outages(), tenancy.as_owner_in_public():
            late = entries().filter(due__lte=Now() - timedelta(seconds=seconds))
            found = dict(late.values_list("cluster").annotate(Count("pk")).order_by())
    except DatabaseAway:
        raise
    except tenancy.DATABASE_ERRORS:
        return {}
    own = found.pop("", 0) + found.pop(conf().site, 0)
    return found | ({conf().site: own} if own else {})


def hold(schema: str, why: str, seconds: float | None) -> None:
    """Hold a schema's due schedules back in the due index: `look` does not return them.

    Args:
        schema: The schema as PostgreSQL names it.
        why: `EXCLUDED`, `PAUSED`, `UNREADY` or `FAILED`.
        seconds: How long; None until `release()`.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    due = None if seconds is None else Now() + timedelta(seconds=seconds)
    _update_unlocked(Q(schema_name=schema, due__lte=Now()), due=due, held=why)


def release(why: str, *, but: Collection[str] = ()) -> None:
    """Release the schedules that are held in the due index for a reason.

    Args:
        why: The reason, as for `hold`.
        but: Schemas whose schedules stay held.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    if _update_unlocked(Q(held=why) & ~Q(schema_name__in=but), due=F("next_run"), held=""):
        execute(sql.SQL("SELECT pg_catalog.pg_notify({}, '')").format(sql.Literal(CHANNEL)))


def _update_unlocked(which: Q, **values: Any) -> int:
    """Update the entries of the due index that no transaction is writing: waiting for one could end in a deadlock."""
    return tenancy.retry_conflicts(lambda: _update(which, values))


def _update(which: Q, values: Mapping[str, Any]) -> int:
    with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=tenancy.database_alias()):
        free = entries().select_for_update(skip_locked=True).filter(which)
        return int(entries().filter(pk__in=free.values("pk")).update(**values))


def subscribe(*others: str) -> None:
    """Subscribe this session to the channels of the due index, `CHANNEL` and `UNSURE`, and to others.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    channels = [sql.SQL("LISTEN {}").format(sql.Identifier(name)) for name in (CHANNEL, UNSURE, *others)]
    execute(sql.SQL("; ").join(channels))
