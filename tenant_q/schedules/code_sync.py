"""Bring the tenants' schedules up to date with those that code declares.

A plan costs a few statements, whatever the number of tenants: for each tenant a fingerprint of what it has is kept in
the public schema. Only tenants with another fingerprint are read and written, many in one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q
from django.utils.module_loading import import_string
from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError, DatabaseAway, TenantUnavailable
from tenant_q.models import CodeSchedule, SyncedTenant
from tenant_q.package import declarations
from tenant_q.schedules import code_releases, code_rows, declared
from tenant_q.schedules.code_changes import Comparison, SyncOptions, compare
from tenant_q.schedules.code_releases import Outranked, Release
from tenant_q.schedules.declared import DeclaredSchedule
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted
from tenant_q.support.visible import error_line, one_line

logger = get_logger("tenant_q.schedules")

TOGETHER = 100
"""The most tenants in one transaction."""
TOGETHER_LOCK_MS, ALONE_LOCK_MS = 50, 250
"""The longest wait for a locked row or table, in milliseconds: of many tenants, and of one."""

# What was logged of each tenant, so that it is logged once.
_logged: set[tuple[str, str]] = set()
_MOST_LOGGED = 10_000


@dataclass(slots=True)
class Report:
    """What a synchronization has done.

    Attributes:
        tenants: The number of tenants that are served.
        newer: The label of a newer release, because of which nothing was done; empty if there is none.
        done: The number of schedules by what was done: "added", "changed", "adopted", "withdrawn" and "deleted".
        details: The schema, the name of the schedule and what was done, for each of them.
        conflicts: The schema and the name of each row that has the name of a schedule in code and was made otherwise.
        put_off: Why a tenant could not be synchronized, by schema.
    """

    tenants: int = 0
    newer: str = ""
    done: Counter[str] = field(default_factory=Counter)
    details: list[tuple[str, str, str]] = field(default_factory=list)
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    put_off: dict[str, str] = field(default_factory=dict)


class Sync:
    """One synchronization: `plan` finds the tenants to be changed, and each `step` changes some of them."""

    def __init__(self, options: SyncOptions | None = None, *, retries_conflicts: bool = True) -> None:
        self.options = options or SyncOptions()
        self.report = Report()
        self._retries_conflicts = retries_conflicts
        self.release = Release("", False)
        self._wanted: dict[str, tuple[str, list[DeclaredSchedule], str]] = {}
        self._batches: list[list[str]] = []

    @property
    def is_done(self) -> bool:
        """Whether no tenant is left to be changed."""
        return not self._batches

    def plan(self) -> None:
        """Find the tenants whose schedules differ from the code.

        Raises:
            ConfigurationError: A module of tasks cannot be imported, a schedule in the settings is wrong, or a function
                that chooses tenants fails. Nothing is changed then.
            TenantNotReady: The project's `ready_tenants` fails.
            DatabaseAway: The database cannot be reached.
        """
        all_declared = _discover()
        if not all_declared and not code_releases.is_used():
            return
        given = conf().release
        label = declared.release_of(all_declared) if given is None else str(given)
        self.release = Release(label, given is not None)
        newer = code_releases.enter(self.release, write=not self.options.dry_run)
        if newer is not None:
            self.report.newer = newer
            return
        self._choose(all_declared)
        self.report.tenants = len(self._wanted)
        stale = self._stale()
        self._batches = [stale[first : first + TOGETHER] for first in range(0, len(stale), TOGETHER)][::-1]

    def _choose(self, all_declared: Sequence[DeclaredSchedule]) -> None:
        """Choose the schedules of each tenant. The public schema, which may have a row too, has none from code."""
        keys = tenancy.keys_to_schedule()
        keys.pop(tenancy.public_schema(), None)
        chosen = {one.tenants: _chosen(one) for one in all_declared if one.tenants is not None}
        prints = {one.name: one.fingerprint() for one in all_declared}
        hashes: dict[tuple[str, ...], str] = {}
        for schema, key in keys.items():
            own = [one for one in all_declared if one.tenants is None or schema in chosen[one.tenants]]
            names = tuple(one.name for one in own)
            if names not in hashes:
                hashes[names] = declared.hash_of([[name, prints[name]] for name in names]) if names else ""
            self._wanted[schema] = key, own, hashes[names]

    def _stale(self) -> list[str]:
        """Return the schemas of the tenants that differ from the code, with one statement, or of all tenants."""
        if self.options.all_tenants:
            return sorted(self._wanted)
        with tenancy.detect_outages(), tenancy.as_owner_in_public():
            rows = _rows(SyncedTenant).values_list("tenant", "fingerprint", "conflicts")
            synced = {tenant: (fingerprint, conflicts) for tenant, fingerprint, conflicts in rows}
            withdrawn: set[str] = set()
            if self.options.delete:
                withdrawn = set(_rows(CodeSchedule).exclude(withdrawn=None).values_list("tenant", flat=True))
        return sorted(
            schema
            for schema, (key, _own, fingerprint) in self._wanted.items()
            if synced.get(key, ("", 0))[0] != fingerprint
            or (self._retries_conflicts and synced.get(key, ("", 0))[1])
            or key in withdrawn
        )

    def step(self) -> list[str]:
        """Change the schedules of some tenants, in one transaction, and return their schemas.

        If it fails, it is tried again with fewer of them. A tenant for which it fails alone is put off to the next
        synchronization.

        Raises:
            DatabaseAway: The database cannot be reached.
        """
        schemas = self._batches.pop()
        try:
            comparisons = tenancy.retry_conflicts(lambda: self._change(schemas))
        except DatabaseAway:
            raise
        except Outranked as newer:
            self.report.newer = str(newer)
            self._batches.clear()
            return []
        except (*tenancy.DATABASE_ERRORS, TenantUnavailable) as error:
            self._put_off(schemas, error)
            return schemas
        for one in comparisons:
            self._count(one)
        self._log(comparisons)
        return schemas

    def _put_off(self, schemas: list[str], error: Exception) -> None:
        if len(schemas) > 1:
            middle = len(schemas) // 2
            self._batches += [schemas[middle:], schemas[:middle]]
            return
        (schema,) = schemas
        self.report.put_off[schema] = one_line(error)
        if _is_new(schema, "put off"):
            logger.warning(
                "Put off the schedules from code of %s: %s",
                schema,
                one_line(error),
                event="schedule.code_put_off",
                extra={"schema": schema},
            )

    def _change(self, schemas: Sequence[str]) -> list[Comparison]:
        lock_ms = TOGETHER_LOCK_MS if len(schemas) > 1 else ALONE_LOCK_MS
        with tenancy.detect_outages(), tenancy.as_owner_in_public(), tenancy.in_patient_transaction(lock_ms):
            if not self.options.dry_run:
                code_releases.require_newest(self.release)
            tenancy.require_migrated(schemas)
            tenancy.require_plain_tables(schemas, Schedule._meta.db_table)
            keys = tenancy.keys_now(schemas)
            same = [schema for schema in schemas if keys[schema] == self._wanted[schema][0]]
            comparisons = self._compare(same)
            if not self.options.dry_run:
                _write(comparisons, {one.schema: self._wanted[one.schema][2] for one in comparisons})
            return comparisons

    def _compare(self, schemas: Sequence[str]) -> list[Comparison]:
        known: dict[str, list[CodeSchedule]] = {self._wanted[schema][0]: [] for schema in schemas}
        for entry in _rows(CodeSchedule).filter(tenant__in=known):
            known[entry.tenant].append(entry)
        asked = {}
        for schema in schemas:
            key, own, _fingerprint = self._wanted[schema]
            asked[schema] = [one.name for one in own], [entry.schedule_id for entry in known[key]]
        rows = code_rows.read(asked) if asked else {}
        return [
            compare(schema, key, conf().site, own, known[key], rows[schema], self.options)
            for schema in schemas
            for key, own, _fingerprint in [self._wanted[schema]]
        ]

    def _count(self, one: Comparison) -> None:
        """Add what was done for a tenant to the report."""
        self.report.done.update(one.done.values())
        self.report.details += [(one.schema, name, act) for name, act in sorted(one.done.items())]
        self.report.conflicts += [(one.schema, name) for name in one.conflicts]
        _logged.discard((one.schema, "put off"))

    def _log(self, comparisons: Sequence[Comparison]) -> None:
        """Log what was done for some tenants, in one line, and each conflict once."""
        if self.options.dry_run:
            return
        some = [one for one in comparisons if one.done]
        acts = Counter(act for one in some for act in one.done.values())
        if some:
            logger.info(
                "Synchronized the schedules of %s with the code: %s",
                some[0].schema if len(some) == 1 else counted(len(some), "tenant"),
                ", ".join(f"{count} {act}" for act, count in sorted(acts.items())),
                event="schedule.code_synced",
            )
        for schema, name in ((one.schema, name) for one in comparisons for name in one.conflicts):
            if _is_new(schema, name):
                logger.warning(
                    "Left the schedule %r of %s alone, which was not made from code: rename one of them, or take it "
                    "over with `msschedules --sync --adopt`",
                    name,
                    schema,
                    event="schedule.code_conflict",
                    extra={"schema": schema},
                )

    def run(self) -> Report:
        """Plan and change everything. Raises as `plan` and `step`."""
        self.plan()
        while not self.is_done:
            self.step()
        return self.report


def _discover() -> list[DeclaredSchedule]:
    """Import the modules of tasks, and return what they and the settings declare.

    Modules that could not be imported before are imported again.

    Raises:
        ConfigurationError: A module cannot be imported, or what is declared is wrong.
    """
    for module, error in declarations.discover(again=True).items():
        raise ConfigurationError(
            f"The schedules in code were not synchronized, because {module} cannot be imported: {error_line(error)}; "
            "correct it."
        ) from error
    return declared.all_declared()


def _chosen(one: DeclaredSchedule) -> frozenset[str]:
    """Return the schemas that a declared schedule chooses. Raises `ConfigurationError` if its function fails."""
    tenants: Any = one.tenants
    if isinstance(tenants, tuple):
        return frozenset(tenants)
    try:
        return frozenset(tenancy.choose_tenants(import_string(tenants) if isinstance(tenants, str) else tenants))
    except DatabaseAway:
        raise
    except Exception as error:  # the project's function
        raise ConfigurationError(
            f"The schedules in code were not synchronized, because the tenants of {one.place} cannot be chosen: "
            f"{error_line(error)}; correct it."
        ) from error


def _write(comparisons: Iterable[Comparison], fingerprints: dict[str, str]) -> None:
    """Write the changes of several tenants, and what is known of them then."""
    some = list(comparisons)
    made = code_rows.write({one.schema: one.changes for one in some})
    noted, synced, forgotten = [], [], Q(pk__in=[])
    for one in some:
        for name, entry in one.noted.items():
            entry.schedule_id = made.get((one.schema, name), entry.schedule_id)
            noted.append(entry)
        if one.forgotten:
            forgotten |= Q(tenant=one.key, name__in=one.forgotten)
        synced.append(
            SyncedTenant(
                site=conf().site,
                tenant=one.key,
                fingerprint=fingerprints[one.schema],
                conflicts=len(one.conflicts),
            )
        )
    if any(one.forgotten for one in some):
        _rows(CodeSchedule).filter(forgotten).delete()
    _upsert(CodeSchedule, noted, ["site", "tenant", "name"], ["schedule_id", "withdrawn", "was_paused"])
    _upsert(SyncedTenant, synced, ["site", "tenant"], ["fingerprint", "conflicts"])


def _upsert(model: Any, rows: Sequence[Any], unique: list[str], fields: list[str]) -> None:
    if rows:
        _rows(model).bulk_create(rows, update_conflicts=True, unique_fields=unique, update_fields=fields)


def _rows(model: Any) -> Any:
    return model.objects.using(tenancy.database_alias()).filter(site=conf().site)


def _is_new(schema: str, what: str) -> bool:
    """Return whether this is to be logged of a tenant for the first time."""
    if (schema, what) in _logged:
        return False
    if len(_logged) >= _MOST_LOGGED:
        _logged.clear()
    _logged.add((schema, what))
    return True


def forget_logged() -> None:
    """Forget what was logged of each tenant, so that it is logged again."""
    _logged.clear()
