"""Schedules: turning a tenant's due ones into tasks.

A fire is one occurrence: (schema, schedule, planned time). Its package id is made of these, so a fire that is pushed
and then rolled back, by a crash before the commit, is pushed again under the same id, which the broker knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from django.conf import settings
from django.db import IntegrityError
from django.db.models import Q
from django.db.models.functions import Now
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.utils import timezone
from django_q.models import Schedule
from psycopg import sql

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import BadSchedule, EnqueueError, ScheduleFailed, TenantQError
from tenant_q.lifecycle import enqueue, save_results
from tenant_q.lifecycle.failures import give_up
from tenant_q.package.options import take_q_options
from tenant_q.package.package import SCHEDULE, Outcome, Package, build, deterministic_id
from tenant_q.schedules import catch_up, due_index, recurrence
from tenant_q.schedules.arguments import parse_arguments
from tenant_q.scrubbing import entering
from tenant_q.sql import statement
from tenant_q.support.log_labels import get_logger
from tenant_q.support.receivers import receivers_of

logger = get_logger("tenant_q.schedules")

# A locked tenant holds up the others' schedules for this long at most.
LOCK_MS = 250
# At most this many fires of one tenant in one transaction.
FIRES_A_PASS = 100
# And of several tenants in one transaction; a lock is waited for less long there, for each would hold up all of them.
FIRES_TOGETHER = 1000
LOCK_MS_TOGETHER = 50


def fire_due(schema: str) -> int:
    """Turn a tenant's due schedules into tasks and move their next runs on, in one transaction.

    Due is what the database's clock says, which all clusters share. The packages are enqueued before the commit.

    Returns how many fired. Raises `TenantUnavailable`, `DatabaseError`, `DatabaseAway` or `BrokerError`; then nothing
    is changed and all of them stay due.
    """
    tenancy.require_ready(schema)
    return tenancy.insist(lambda: _fire_due(schema))


def _fire_due(schema: str) -> int:
    with tenancy.told_when_away(), tenancy.in_verified_schema(schema), tenancy.in_patient_transaction(LOCK_MS):
        tenancy.require_plain_tables([schema], Schedule._meta.db_table)
        tenant = _tenants([schema])[schema]
        fires = [_fire(row, tenant) for row in _claim()]
        _store([fire.row for fire in fires])
        save_results.save_or_raise([fire.what for fire in fires if isinstance(fire.what, Outcome)])
        _push_or_fail(schema, fires)
        return len(fires)


def _push_or_fail(schema: str, fires: Sequence[_Fire]) -> None:
    """Enqueue fires; one by one if one of them is refused, which becomes a failed task."""
    pushed = [(fire.row, fire.what) for fire in fires if isinstance(fire.what, Package)]
    try:
        push([package for _, package in pushed])
    except EnqueueError:
        for row, package in pushed:
            try:
                push([package])
            except EnqueueError as error:
                failed = _failed(row, schema, package.id, error)
                failed.package.task["tenant"] = package.tenant
                save_results.save_or_raise([failed])


def fire_due_together(schemas: Sequence[str]) -> Counter[str]:
    """As `fire_due`, of several tenants in one transaction: some statements for all of them, not for each.

    Returns how many fired of each. Raises what `fire_due` raises, whichever tenant is the reason; then nothing is
    changed, and the caller takes the tenants one by one, so that one holds up no other.
    """
    for schema in schemas:
        tenancy.require_ready(schema)
    return tenancy.insist(lambda: _fire_due_together(schemas))


def _fire_due_together(schemas: Sequence[str]) -> Counter[str]:
    with tenancy.told_when_away(), tenancy.in_public(), tenancy.in_patient_transaction(LOCK_MS_TOGETHER):
        tenancy.require_migrated(schemas)
        tenancy.require_plain_tables(schemas, Schedule._meta.db_table)
        tenants = _tenants(schemas)
        fires = [(schema, _fire(row, tenants[schema])) for schema, row in _claim_together(schemas)]
        _store_together([(schema, fire.row) for schema, fire in fires])
        save_results.save_or_raise([fire.what for _, fire in fires if isinstance(fire.what, Outcome)])
        push([fire.what for _, fire in fires if isinstance(fire.what, Package)])
        return Counter(schema for schema, _ in fires)


def push(packages: Sequence[Package]) -> None:
    """Enqueue fires. The broker knows their ids, so the same fire twice is one task."""
    for schema, own in groupby(packages, key=attrgetter("schema")):
        with nullcontext() if schema == tenancy.current_schema() else tenancy.in_schema(schema):
            begin(schema)
            enqueue.announce(list(own))
    enqueue.push(packages, once=True)


def begin(schema: str) -> None:
    """Prepare for code of the project that may be called for a tenant, which is current."""
    entering.forget_other_tenants()
    if entering.has_receivers():
        entering.announce(schema)


def rows() -> Any:
    """Return the schedules of the current schema, on the tenants' connection, whatever the project's routers say."""
    return Schedule.objects.using(tenancy.database_alias())


def create(func: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Schedule:
    """Create a schedule in the current schema, as `django_q.tasks.schedule` does, on the tenants' connection.

    Parameters: `kwargs`, the keywords of the function and the fields of the schedule. Raises `IntegrityError` if there
    is a schedule of that name, `ValidationError` if a field is wrong.
    """
    given = {name: kwargs.pop(name) for name in _CREATED if name in kwargs}
    fields = _CREATED | {"next_run": timezone.now()} | given
    if fields["name"] and rows().filter(name=fields["name"]).exists():
        raise IntegrityError("A schedule with the same name already exists.")
    row = Schedule(func=func, args=args, kwargs=kwargs, **fields)
    row.full_clean()
    row.save(using=tenancy.database_alias())
    return row


# The fields that callers pass beside the function's own arguments, with Django-Q2's defaults.
_CREATED: dict[str, Any] = {
    "name": None,
    "hook": None,
    "schedule_type": Schedule.ONCE,
    "minutes": None,
    "repeats": -1,
    "next_run": None,
    "cron": None,
    "cluster": None,
    "intended_date_kwarg": None,
}


def is_watched() -> bool:
    """Whether the project listens to what is saved of schedules, which only `fire_due` tells."""
    signals = (pre_save, post_save, pre_delete, post_delete)
    found = [receiver for signal in signals for receiver in receivers_of(signal, sender=Schedule)]
    # That of django-tenants looks at all that is deleted, for tenants.
    return not all(map(tenancy.is_of_tenancy_package, found))


def _claim() -> Any:
    """The due rows of this cluster that no other is working on; `clock` is the moment by the database's clock."""
    served = due_index.served_clusters()
    own = Q(cluster__in=served) | (Q(cluster__isnull=True) if "" in served else Q(pk__in=[]))
    # A moment before the year 1, as '-infinity' is, cannot be read.
    first = datetime.min.replace(tzinfo=UTC if settings.USE_TZ else None) + timedelta(days=1)
    due = rows().select_for_update(skip_locked=True).filter(own, next_run__gte=first, next_run__lte=Now())
    return due.exclude(repeats=0).annotate(clock=Now()).order_by("next_run")[:FIRES_A_PASS]


def _store(moved: Sequence[Schedule]) -> None:
    """Write the rows that have moved on, and delete those that are done: two statements, unless somebody listens."""
    kept, gone = _kept_and_gone(moved)
    fields = ["next_run", "repeats", "task"]
    if pre_save.has_listeners(Schedule) or post_save.has_listeners(Schedule):
        for row in kept:
            row.save(using=tenancy.database_alias(), update_fields=fields)
    elif kept:
        rows().bulk_update(kept, fields)
    if gone:
        rows().filter(pk__in=gone).delete()


def _kept_and_gone(rows: Sequence[Schedule]) -> tuple[list[Schedule], list[int]]:
    """The rows that stay, and the keys of those that have run once and for all."""
    gone = {row.pk for row in rows if row.repeats < 0 and row.schedule_type == Schedule.ONCE}
    return [row for row in rows if row.pk not in gone], sorted(gone)


# Several tenants, with their tables' full names


def _claim_together(schemas: Sequence[str]) -> Iterator[tuple[str, Schedule]]:
    clusters, limit = tuple(due_index.served_clusters()), max(1, FIRES_TOGETHER // len(schemas))
    claims = b" UNION ALL ".join(_claim_text(schema, clusters, limit) for schema in schemas)
    names = [field.attname for field in Schedule._meta.concrete_fields]
    with tenancy.raw_cursor() as cursor:
        found = cursor.execute(claims).fetchall()
    for schema, clock, *values in found:
        row = Schedule.from_db(tenancy.database_alias(), names, values)
        row.clock = clock
        yield schema, row


@lru_cache(maxsize=4096)
def _claim_text(schema: str, clusters: tuple[str, ...], limit: int) -> bytes:
    columns = [sql.Identifier(field.column) for field in Schedule._meta.concrete_fields]
    return (
        sql.SQL(statement("claim_due"))
        .format(
            schema=sql.Literal(schema),
            table=_table(schema),
            columns=sql.SQL(", ").join(columns),
            clusters=sql.Literal(list(clusters)),
            limit=sql.Literal(limit),
        )
        .as_bytes()
    )


def _store_together(fires: Sequence[tuple[str, Schedule]]) -> None:
    statements = []
    for schema in dict.fromkeys(schema for schema, _ in fires):
        kept, gone = _kept_and_gone([row for name, row in fires if name == schema])
        if kept:
            rows = [sql.SQL("({}, {}, {}, {})").format(row.pk, row.next_run, row.repeats, row.task) for row in kept]
            values = sql.SQL(", ").join(rows)
            statements.append(sql.SQL(statement("move_schedules")).format(table=_table(schema), rows=values))
        if gone:
            statements.append(
                sql.SQL("DELETE FROM {} WHERE id OPERATOR(pg_catalog.=) ANY ({})").format(_table(schema), gone)
            )
    if statements:
        with tenancy.raw_cursor() as cursor:
            cursor.execute(sql.SQL(";\n").join(statements))


def _table(schema: str) -> sql.Identifier:
    return sql.Identifier(tenancy.physical_schema(schema), Schedule._meta.db_table)


@dataclass(frozen=True, slots=True)
class _Fire:
    """One occurrence: the row, moved on, and the package, or the failure that takes its place."""

    row: Schedule
    what: Package | Outcome


@dataclass(frozen=True, slots=True)
class _Tenant:
    """Whose schedules fire. `scope` stands for the tenant in the ids of its fires."""

    schema: str
    key: str
    scope: str


def _tenants(schemas: Sequence[str]) -> dict[str, _Tenant]:
    """The tenants that have these schemas in this transaction. Raises `UnknownTenant`."""
    keys = tenancy.keys_now(schemas)
    made = tenancy.since_of(keys)
    return {schema: _Tenant(schema, key, tenancy.scope(schema, key, made[schema])) for schema, key in keys.items()}


def _fire(row: Schedule, tenant: _Tenant) -> _Fire:
    schema, planned = tenant.schema, row.next_run
    # With the id of the fire before: a row that somebody sets back to a time it had fires again.
    id = deterministic_id("fire", tenant.scope, row.pk, planned.isoformat(), row.task)
    try:
        package: Package | Outcome = package_of(row, schema, id)
    except (BadSchedule, EnqueueError) as error:
        package = _failed(row, schema, id, error)
    row.task, repeats = id, row.repeats
    try:
        _move_on(row)
        catch_up.note(schema, row, planned, repeats)
    except BadSchedule as error:
        # It has no next occurrence, so it stops; its row and its failed task say why.
        package = _failed(row, schema, id, error)
        row.repeats = 0
    fired = package if isinstance(package, Package) else package.package
    fired.task["tenant"] = tenant.key
    return _Fire(row, package)


def package_of(row: Schedule, schema: str, id: str) -> Package:
    """The package of a schedule's occurrence at its `next_run`. Raises `BadSchedule` or `EnqueueError`."""
    args, kwargs = parse_arguments(row.args, row.kwargs)
    kwargs.pop("schema_name", None)  # the 2020 package left it in the row
    options = take_q_options(kwargs)
    if row.intended_date_kwarg:
        kwargs[row.intended_date_kwarg] = row.next_run.isoformat()
    if row.hook:
        options["hook"] = row.hook
    if row.cluster:
        options["cluster"] = row.cluster
    options.setdefault("cluster", options.pop("broker_name", None))
    options.setdefault("group", row.name or str(row.pk))
    package = build(row.func, args, kwargs | {"q_options": options}, schema=schema, id=id, origin=SCHEDULE)
    if conf().schedule_spread:
        package.task["delay"] = package.delay + _offset(schema, row)
    return package


def _offset(schema: str, row: Schedule) -> float:
    """Where in `schedule_spread` seconds this schedule has its place: always the same, and another one's elsewhere."""
    place = int(deterministic_id("spread", schema, row.pk)[:8], 16) / 16**8
    return place * conf().schedule_spread


def _move_on(row: Schedule) -> None:
    """Set the next occurrence, count down, or end the row, as Django-Q2 does for its kind."""
    if row.schedule_type == Schedule.ONCE:
        row.repeats = min(row.repeats, 0)
        return
    row.next_run = following(row, row.next_run, row.clock, catch_up=conf().catch_up)
    row.repeats = max(-1, row.repeats) - (1 if row.repeats > 0 else 0)


def following(row: Schedule, planned: datetime, now: datetime, *, catch_up: bool) -> datetime:
    """The occurrence of a schedule to store once `planned` has been fired at `now`. Raises `BadSchedule`."""
    return recurrence.following(
        row.schedule_type, planned, now, catch_up=catch_up, zone=conf().zone, minutes=row.minutes, cron=row.cron
    )


def planned_anew(row: Schedule, planned: datetime, now: datetime) -> datetime:
    """Return the next run of a schedule with a new recurrence; `planned` is its next run by the previous one.

    Raises `BadSchedule`.
    """
    if row.schedule_type == Schedule.ONCE:
        return planned
    zone = conf().zone
    return recurrence.planned_anew(row.schedule_type, planned, now, zone=zone, minutes=row.minutes, cron=row.cron)


def upcoming(row: Schedule, now: datetime, count: int) -> list[datetime]:
    """The next occurrences of a schedule, at most `count`, if each is fired on time from `now` on.

    The first is its `next_run`, also when that has passed. None while it is paused or has run as often as it should.
    Raises `BadSchedule` when not even the second run can be computed.
    """
    if row.next_run is None or row.repeats == 0:
        return []
    moments, left = [row.next_run], row.repeats
    while len(moments) < count and left != 1 and row.schedule_type != Schedule.ONCE:
        try:
            moments.append(following(row, moments[-1], max(now, moments[-1]), catch_up=conf().catch_up))
        except BadSchedule:
            if len(moments) == 1:
                raise
            break
        left -= left > 0
    return moments


def _failed(row: Schedule, schema: str, id: str, error: TenantQError) -> Outcome:
    label = f"{row.name!r} (id {row.pk})" if row.name else f"id {row.pk}"
    logger.error(
        "Schedule %s of %s failed: %s", label, schema, error, extra={"schema": schema, "task_id": id, "func": row.func}
    )
    words = {"task_name": str(row.name or f"schedule {row.pk}")[:100], "group": row.name or str(row.pk)}
    package = build(row.func.strip() or "?", (), {"q_options": words}, schema=schema, id=id, origin=SCHEDULE)
    why = f"schedule {label}, planned for {row.next_run.isoformat()}: {error}"
    return give_up(package, ScheduleFailed(why))
