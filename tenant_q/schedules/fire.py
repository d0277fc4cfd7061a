"""Fire schedules: turn the due schedules of tenants into tasks.

A fire is one run of a schedule: (schema, schedule, planned time). Its package id is made of these. A fire that was
pushed and then rolled back, by a crash before the commit, is pushed again with the same id, which the broker knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.exceptions import BadSchedule, EnqueueError, TenantLeaving
from tenant_q.lifecycle import push, save_results
from tenant_q.package.build import deterministic_id
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package
from tenant_q.schedules import catch_up, claims, offered_schedules, row_runs
from tenant_q.schedules.fired_packages import failed_task, package_of
from tenant_q.scrubbing import shared_caches

FIRE_LOCK_MS = 250
"""The longest wait for a locked table of one tenant, in milliseconds: meanwhile the others' schedules wait too."""
TOGETHER_LOCK_MS = 50
"""The longest wait for each locked table of several tenants, in milliseconds."""


@dataclass(frozen=True, slots=True)
class _Fire:
    """One run: the row, moved on, and its package, or the failed task that takes its place."""

    row: Schedule
    what: Package | Outcome


@dataclass(frozen=True, slots=True)
class _Tenant:
    """A tenant whose schedules fire. `scope` stands for it in the ids of its fires."""

    schema: str
    key: str
    scope: str


def fire_due(schema: str) -> int:
    """Fire a tenant's due schedules: turn them into tasks and store their next runs, in one transaction.

    The database's clock, which all clusters share, decides what is due. The packages are enqueued before the commit.

    Args:
        schema: The tenant.

    Returns:
        The number of schedules that fired.

    Raises:
        TenantLeaving: The tenant is being decommissioned.
        TenantUnavailable: The tenant cannot be served. After this and every other error nothing is changed and all
            schedules stay due.
        DatabaseError: A statement failed.
        DatabaseAway: The database cannot be reached.
        BrokerError: The broker cannot be reached.
    """
    tenancy.require_ready(schema)
    return tenancy.retry_conflicts(lambda: _fire_due(schema))


def _fire_due(schema: str) -> int:
    with tenancy.detect_outages(), tenancy.in_verified_schema(schema), tenancy.in_patient_transaction(FIRE_LOCK_MS):
        tenancy.require_plain_tables([schema], Schedule._meta.db_table)
        tenant = _tenants_to_fire([schema])[schema]
        fires = [_fire(row, tenant) for row in claims.claim()]
        claims.store([fire.row for fire in fires])
        save_results.save_or_raise([fire.what for fire in fires if isinstance(fire.what, Outcome)])
        _push_or_fail(schema, fires)
        return len(fires)


def _push_or_fail(schema: str, fires: Sequence[_Fire]) -> None:
    """Enqueue fires; one by one if one of them is refused, which becomes a failed task."""
    pushed = [(fire.row, fire.what) for fire in fires if isinstance(fire.what, Package)]
    try:
        push_fires([package for _, package in pushed])
    except TenantLeaving:
        raise  # nothing is fired: its schedules go with it
    except EnqueueError:
        for row, package in pushed:
            try:
                push_fires([package])
            except EnqueueError as error:
                failed = failed_task(row, schema, package.id, error)
                failed.package.task["tenant"] = package.tenant
                save_results.save_or_raise([failed])


def fire_due_together(schemas: Sequence[str]) -> Counter[str]:
    """Fire the due schedules of several tenants in one transaction, with a few statements for all of them.

    An error of one tenant rolls back all of them. The caller then serves the tenants one by one, so that one tenant
    blocks no other.

    Args:
        schemas: The tenants.

    Returns:
        The number of schedules that fired, by tenant.

    Raises:
        TenantUnavailable: As for `fire_due`, as are the other errors.
    """
    for schema in schemas:
        tenancy.require_ready(schema)
    return tenancy.retry_conflicts(lambda: _fire_due_together(schemas))


def _fire_due_together(schemas: Sequence[str]) -> Counter[str]:
    with tenancy.detect_outages(), tenancy.as_owner_in_public(), tenancy.in_patient_transaction(TOGETHER_LOCK_MS):
        tenancy.require_migrated(schemas)
        tenancy.require_plain_tables(schemas, Schedule._meta.db_table)
        tenants = _tenants_to_fire(schemas)
        fires = [(schema, _fire(row, tenants[schema])) for schema, row in claims.claim_together(schemas)]
        claims.store_together([(schema, fire.row) for schema, fire in fires])
        save_results.save_or_raise([fire.what for _, fire in fires if isinstance(fire.what, Outcome)])
        push_fires([fire.what for _, fire in fires if isinstance(fire.what, Package)])
        return Counter(schema for schema, _ in fires)


def push_fires(packages: Sequence[Package]) -> None:
    """Enqueue fires. The broker knows their ids, so pushing a fire twice makes one task."""
    for schema, own in groupby(packages, key=attrgetter("schema")):
        with nullcontext() if schema == tenancy.current_schema() else tenancy.in_schema(schema):
            begin(schema)
            push.announce(list(own))
    push.push(packages, once=True)


def begin(schema: str) -> None:
    """Prepare for the project's code that may be called when schedules of the current tenant fire."""
    shared_caches.clear_known_caches()
    if shared_caches.project_clears_caches():
        shared_caches.have_project_clear_caches(schema)


def _tenants_to_fire(schemas: Sequence[str]) -> dict[str, _Tenant]:
    """Return the tenants whose schedules fire, by schema, as they are in this transaction. Raises `UnknownTenant`."""
    keys = tenancy.keys_now(schemas)
    made = tenancy.creations_of(keys)
    return {schema: _Tenant(schema, key, tenancy.scope(schema, key, made[schema])) for schema, key in keys.items()}


def _fire(row: Schedule, tenant: _Tenant) -> _Fire:
    schema, planned = tenant.schema, row.next_run
    # The id of the previous fire is a part of it: a row that is set back to an earlier time fires again.
    id = deterministic_id("fire", tenant.scope, row.pk, planned.isoformat(), row.task)
    try:
        offered_schedules.refuse_foreign(schema, row)
        row.next_run = row_runs.first_to_fire(row, row.clock)
        what: Package | Outcome = package_of(row, schema, id)
    except (BadSchedule, EnqueueError) as error:
        what = failed_task(row, schema, id, error)
    row.task, repeats = id, row.repeats
    try:
        row_runs.move_on(row)
        catch_up.note(schema, row, planned, repeats)
    except BadSchedule as error:
        # It has no next run, so it ends; its row and its failed task say why.
        what = failed_task(row, schema, id, error)
        row.repeats = 0
    package = what if isinstance(what, Package) else what.package
    package.task["tenant"] = tenant.key
    return _Fire(row, what)
