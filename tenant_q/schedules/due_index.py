"""The due index: what is due next over all tenants, in one statement that reads a few index pages.

The table is `DueSchedule`, in the public schema. Triggers on each tenant's schedules keep it, whoever writes them:
admin, ORM or SQL. What fires no trigger (a restored, renamed or dropped schema) is found by `stale_schemas()`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Max, Min, Q
from django.db.models.functions import Now
from psycopg import sql

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError, DatabaseAway, ForeignCode
from tenant_q.models import DueSchedule
from tenant_q.schedules import index_rights
from tenant_q.sql import statement
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.due_index")

# Why a schema's schedules are held back.
EXCLUDED, PAUSED, UNREADY, FAILED = "excluded", "paused", "unready", "failed"
CHANNEL = "tenant_q_due"
# On this channel a trigger names a schema whose entries it could not keep.
UNSURE = "tenant_q_unsure"
# At most so many due schedules are looked at in one go.
LOOK = 1000
# A table that is locked holds up the other schemas for this long at most.
LOCK_MS = 250


@dataclass(frozen=True, slots=True)
class Due:
    """A schema, as PostgreSQL names it, and the seconds until its earliest schedule (0 or less: it is due).

    `count` is how many of its schedules were looked at.
    """

    schema: str
    seconds: float
    count: int


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A schedule that will run, with what its row says; that is None where the row cannot be read.

    `held` is why it does not run on time, or empty; `last` whether its last task was a success, None without a result.
    """

    schema: str
    id: int
    cluster: str
    next_run: datetime
    held: str
    name: str | None = None
    func: str | None = None
    kind: str | None = None
    minutes: int | None = None
    cron: str | None = None
    last: bool | None = None


def served_clusters() -> list[str]:
    """The clusters whose schedules this one serves; the site's own cluster serves those that name none."""
    return [conf().cluster, *([""] if conf().cluster == conf().site else [])]


def look(*, but: Collection[str] = ()) -> list[Due]:
    """The schemas with due schedules, the longest due first, and behind them the one that is due next.

    One statement. Parameters: `but`, schemas whose due schedules are left out. Raises `DatabaseAway`.
    """
    return [Due(*row) for row in _fetch(look_query(but=but))]


def look_query(*, but: Collection[str] = ()) -> sql.Composed:
    """The statement of `look()`."""
    return sql.SQL(statement("due")).format(
        table=_table(),
        clusters=sql.Literal(served_clusters()),
        but=sql.Literal(sorted(but)),
        limit=sql.Literal(LOOK),
    )


def upcoming(limit: int, schema: str | None = None) -> list[Upcoming]:
    """The next `limit` runs over all tenants and clusters, or of one schema.

    One statement, and one for each schema among them. Raises `DatabaseAway`.
    """
    with tenancy.told_when_away(), tenancy.in_public():
        entries = _rows() if schema is None else _rows().filter(schema_name=schema)
        columns = ("schema_name", "schedule_id", "cluster", "next_run", "held")
        found = [Upcoming(*row) for row in entries.order_by("next_run", "pk").values_list(*columns)[:limit]]
    details: dict[tuple[str, int], list[Any]] = {}
    for name in {one.schema for one in found}:
        ids = [one.id for one in found if one.schema == name]
        details |= {(name, id): row for id, *row in _details(name, ids)}
    fields = ("name", "func", "kind", "minutes", "cron", "last")
    return [
        replace(one, **dict(zip(fields, details[one.schema, one.id], strict=True)))
        if (one.schema, one.id) in details
        else one
        for one in found
    ]


def _details(schema: str, ids: list[int]) -> list[tuple[Any, ...]]:
    query = sql.SQL(statement("due_details")).format(
        schedules=sql.Identifier(schema, "django_q_schedule"),
        tasks=sql.Identifier(schema, tenancy.TASK_TABLE),
        ids=sql.Literal(ids),
    )
    try:
        with tenancy.in_patient_transaction():
            tenancy.require_plain_tables([schema], "django_q_schedule", tenancy.TASK_TABLE)
            return _fetch(query)
    except (*tenancy.DATABASE_ERRORS, ForeignCode):  # the schema is gone, say, and the index does not know it yet
        return []


@dataclass(frozen=True, slots=True)
class Plans:
    """What is planned in one schema: how many schedules, when the first is looked at, and why it is held back, if so.

    `due` is None when nothing of it is looked at until it is let go.
    """

    schema: str
    schedules: int
    due: datetime | None
    held: str


def plans() -> list[Plans]:
    """What is planned in each schema that has schedules. One statement. Raises `DatabaseAway`."""
    with tenancy.told_when_away(), tenancy.in_public():
        found = _rows().values_list("schema_name").annotate(Count("pk"), Min("due"), Max("held")).order_by()
        return [Plans(*row) for row in found]


def late_clusters(seconds: float) -> dict[str, int]:
    """Return the number of schedules that are more than `seconds` late, by cluster, with one statement.

    The site's own cluster serves schedules that name none. The result is empty if the index is not migrated. Raises
    `DatabaseAway`.
    """
    try:
        with tenancy.told_when_away(), tenancy.in_public():
            late = _rows().filter(due__lte=Now() - timedelta(seconds=seconds))
            found = dict(late.values_list("cluster").annotate(Count("pk")).order_by())
    except DatabaseAway:
        raise
    except tenancy.DATABASE_ERRORS:
        return {}
    own = found.pop("", 0) + found.pop(conf().site, 0)
    return found | ({conf().site: own} if own else {})


def hold(schema: str, why: str, seconds: float | None) -> None:
    """Do not look at a schema's due schedules for `seconds`, or with None until `release()`."""
    due = None if seconds is None else Now() + timedelta(seconds=seconds)
    _update_unlocked(Q(schema_name=schema, due__lte=Now()), due=due, held=why)


def release(why: str, *, but: Collection[str] = ()) -> None:
    """Look again at what was held for this reason, `but` that of some schemas."""
    if _update_unlocked(Q(held=why) & ~Q(schema_name__in=but), due=F("next_run"), held=""):
        _execute(sql.SQL("SELECT pg_catalog.pg_notify({}, '')").format(sql.Literal(CHANNEL)))


def _update_unlocked(which: Q, **values: Any) -> int:
    """Update the entries that no transaction is writing: to wait for one could be to wait in a circle."""
    return tenancy.insist(lambda: _update(which, values))


def _update(which: Q, values: Mapping[str, Any]) -> int:
    with tenancy.told_when_away(), tenancy.in_public(), transaction.atomic(using=tenancy.database_alias()):
        free = _rows().select_for_update(skip_locked=True).filter(which)
        return int(_rows().filter(pk__in=free.values("pk")).update(**values))


def install(schema: str) -> bool:
    """Put a schema's schedules into the index, and the triggers on its table. Returns whether that could be done.

    Raises `DatabaseAway`.
    """
    return _install(schema) is None


def _install(schema: str) -> str | None:
    """As `install`. Returns why it could not be done."""
    try:
        tenancy.insist(lambda: _install_in_transaction(schema))
    except DatabaseAway:
        raise
    except tenancy.DATABASE_ERRORS as error:  # locked by a migration, say: the next look finds it still stale
        return index_rights.why_not(schema, error)
    return None


def _install_in_transaction(schema: str) -> None:
    with tenancy.in_patient_transaction(LOCK_MS):
        _execute(_call("SELECT {}({})", "tenant_q_install_index", schema))


def install_now(schema: str) -> None:
    """As `install`, in the caller's transaction. Raises `DatabaseError` where its table is locked."""
    _execute(_call("SELECT {}({})", "tenant_q_install_index", schema))


def forget(schema: str) -> None:
    """Take a schema that is gone out of the index. Raises `DatabaseAway`."""
    _execute(_call("SELECT {}({})", "tenant_q_forget_schema", schema))


def stale_schemas(*, thorough: bool = False) -> list[tuple[str, bool]]:
    """Return the schemas that the index does not know as they are, each with whether it is to be forgotten.

    A schema is forgotten when it is gone, and when it is no tenant's: another application may have a table of that
    name. One statement while nothing is stale. Parameters: `thorough`, whether to look besides for schemas that are no
    tenant's among those that the index knows as they are. Raises `DatabaseAway`.
    """
    found: dict[str, bool] = dict(_fetch(_call("SELECT * FROM {}({})", "tenant_q_stale_schemas")))
    unsure = {schema for schema, is_gone in found.items() if not is_gone}
    if not unsure and not thorough:
        return list(found.items())
    known = known_schemas()
    looked_at = unsure | known if thorough else unsure
    strangers = looked_at - tenancy.scheduled_among(looked_at)
    found |= dict.fromkeys(strangers & known, True)
    return [(schema, is_gone) for schema, is_gone in found.items() if schema not in strangers - known]


def bring_up_to_date(stale: Sequence[tuple[str, bool]]) -> list[tuple[str, str]]:
    """Install or forget these schemas.

    Returns those that could not be installed now, each with the reason. Raises `DatabaseAway`.
    """
    left = []
    for schema, is_gone in stale:
        if is_gone:
            forget(schema)
        elif reason := _install(schema):
            left.append((schema, reason))
    return left


def indexed_schemas() -> list[str]:
    """Every schema that the index knows, or should know. Raises `DatabaseAway`."""
    return sorted(known_schemas() | {schema for schema, _ in stale_schemas()})


def known_schemas() -> set[str]:
    """Return the schemas that the index knows. Raises `DatabaseAway`."""
    return {schema for (schema,) in _fetch(sql.SQL("SELECT schema_name FROM {}").format(_public(_KNOWN)))}


def errors(schema: str) -> int:
    """How many schedules of a schema the index has wrong.

    Raises `DatabaseAway`, and `DatabaseError` when its table is locked or cannot be read.
    """
    return errors_of([schema])[schema]


def errors_of(schemas: Sequence[str]) -> dict[str, int]:
    """As `errors`, of several schemas in one round trip. Raises if one of them cannot be read."""
    query = sql.SQL("SELECT name, {}(name) FROM pg_catalog.unnest({}::pg_catalog.text[]) AS asked (name)").format(
        _public("tenant_q_index_errors"), sql.Literal(list(schemas))
    )
    with tenancy.in_patient_transaction(LOCK_MS):
        return {schema: int(count) for schema, count in _fetch(query)}


def listen() -> None:
    """Listen for notifications of fires that are earlier than before, and of schemas to compare."""
    channels = sql.Identifier(CHANNEL), sql.Identifier(UNSURE)
    _execute(sql.SQL("LISTEN {}; LISTEN {}").format(*channels))


def require_tables() -> None:
    """Raise `ConfigurationError` where the index has not been migrated, or this role may not use it."""
    public = tenancy.public_schema()
    has_table = are_there(("regclass", None, DueSchedule._meta.db_table))
    if not has_table:
        raise ConfigurationError(
            f"The schema {public!r} has no table {DueSchedule._meta.db_table}, the index of all tenants' schedules; "
            "run `python manage.py migrate_schemas --shared`."
        )
    index_rights.require_functions()


def install_where_migrated(*, app_config: Any, using: str, **_: Any) -> None:
    """Receiver of `post_migrate`: puts the schema that was just migrated into the index, if both have their tables."""
    if using != tenancy.database_alias() or app_config.name != "django_q":  # the signal comes once for each app
        return
    schema = tenancy.physical_schema(tenancy.current_schema())
    if not tenancy.scheduled_among([schema]):
        return
    if are_there(*_INSTALLED, ("regclass", schema, "django_q_schedule")):
        _install_as_migrating_role(schema, using)


def _install_as_migrating_role(schema: str, using: str) -> None:
    """Do what this role may; the cluster does the rest. A migration does not fail for it."""
    try:
        with transaction.atomic(using=using):
            _execute(_call("SELECT {}({})", "tenant_q_install_index", schema))
        return
    except tenancy.DATABASE_ERRORS as error:
        if not isinstance(error.__cause__ or error, index_rights.REFUSED):
            raise
    try:
        with transaction.atomic(using=using):
            _execute(_call("SELECT {}({})", "tenant_q_install_triggers", schema))
    except tenancy.DATABASE_ERRORS as error:
        if not isinstance(error.__cause__ or error, index_rights.REFUSED):
            raise
        why = index_rights.why_not(schema, error)
        logger.warning(
            "Schedules of %s are put into the index by the cluster, not by this migration: %s",
            schema,
            why,
            extra={"schema": schema},
        )


_KNOWN = "tenant_q_indexedschema"
_INSTALLED = ("regclass", None, _KNOWN), ("regproc", None, "tenant_q_install_index")


def has_schema(schema: str) -> bool:
    """Whether the database has a schema of this name. Raises `DatabaseAway`."""
    name = sql.Literal(sql.Identifier(schema).as_string())
    ((found,),) = _fetch(sql.SQL("SELECT pg_catalog.to_regnamespace({}) IS NOT NULL").format(name))
    return bool(found)


def are_there(*wanted: Any) -> bool:
    """Whether relations and functions are there: kind, schema (None: the public one) and name of each."""
    tests = [
        sql.SQL("pg_catalog.to_{}({}) IS NOT NULL").format(
            sql.SQL(kind), sql.Literal(sql.Identifier(schema or tenancy.public_schema(), name).as_string())
        )
        for kind, schema, name in wanted
    ]
    ((found,),) = _fetch(sql.SQL("SELECT {}").format(sql.SQL(" AND ").join(tests)))
    return bool(found)


def _rows() -> Any:
    return DueSchedule.objects.using(tenancy.database_alias())


def _public(name: str) -> sql.Identifier:
    return sql.Identifier(tenancy.public_schema(), name)


def _table() -> sql.Identifier:
    return _public(DueSchedule._meta.db_table)


def _call(form: Any, function: str, *arguments: Any) -> sql.Composed:
    return sql.SQL(form).format(_public(function), sql.SQL(", ").join(map(sql.Literal, arguments)))


def _fetch(query: sql.Composed) -> list[Any]:
    with tenancy.told_when_away(), tenancy.raw_cursor() as cursor:
        return list(cursor.execute(query).fetchall())


def _execute(query: sql.Composed) -> None:
    with tenancy.told_when_away(), tenancy.raw_cursor() as cursor:
        cursor.execute(query)
