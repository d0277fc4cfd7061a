"""Compare the schedules that code declares with the rows of one tenant: what is to be added, changed and withdrawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils import timezone
from django_q.models import Schedule

from tenant_q.exceptions import BadSchedule
from tenant_q.models import CodeSchedule
from tenant_q.schedules import row_runs
from tenant_q.schedules.code_rows import Changes
from tenant_q.schedules.declared import DeclaredSchedule


@dataclass(slots=True)
class Comparison:
    """What a synchronization does for one tenant.

    Attributes:
        schema: The tenant.
        key: Its key.
        changes: What is written in its schema.
        noted: The entries of its schedules to write, by name. Those of new rows get their ids afterwards.
        forgotten: The names whose entries are deleted.
        done: What was done, by the name of the schedule: "added", "changed", "adopted", "withdrawn" or "deleted".
        conflicts: The names that other rows have.
    """

    schema: str
    key: str
    changes: Changes = field(default_factory=Changes)
    noted: dict[str, CodeSchedule] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    done: dict[str, str] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """The options of a synchronization.

    Attributes:
        delete: Whether withdrawn schedules are deleted.
        adopt: Whether rows of the same names that other code or staff made are taken over.
        dry_run: Whether nothing is written.
        all_tenants: Whether the rows of all tenants are read, also where the fingerprint is that of the code. They
            differ after a restore, or if rows were deleted.
    """

    delete: bool = False
    adopt: bool = False
    dry_run: bool = False
    all_tenants: bool = False


class _Tenant:
    """The comparison for one tenant."""

    def __init__(self, result: Comparison, site: str, known: Iterable[CodeSchedule], rows: Sequence[Schedule]) -> None:
        self.result = result
        self.site = site
        self.known = {one.name: one for one in known}
        self.rows = {row.pk: row for row in rows}
        self.now = timezone.now()

    def want(self, declared: DeclaredSchedule, options: SyncOptions) -> None:
        """Compare a declared schedule with its row."""
        entry = self.known.get(declared.name)
        row = self._row_of(entry) if entry else None
        if row is None and (other := self._row_of_others(declared.name)):
            if not options.adopt:
                self.result.conflicts.append(declared.name)
                return
            row = other
            self.result.done[declared.name] = "adopted"
        values = declared.row_values(self.result.key)
        if row is None:
            self._add(declared.name, values)
        else:
            self._change(row, declared.name, values, entry)

    def _row_of(self, entry: CodeSchedule) -> Schedule | None:
        """Return the row of an entry; None if it is gone, or if a schema made anew has given its id to another one."""
        row = self.rows.get(entry.schedule_id)
        return row if row is not None and row.name == entry.name else None

    def _row_of_others(self, name: str) -> Schedule | None:
        return next((row for row in self.rows.values() if row.name == name), None)

    def _add(self, name: str, values: dict[str, Any]) -> None:
        row = Schedule(name=name, repeats=-1, **values)
        row.next_run = self._first_run(row)
        self.result.changes.added.append(row)
        self._note(name, 0)
        self.result.done[name] = "added"

    def _change(self, row: Schedule, name: str, values: dict[str, Any], entry: CodeSchedule | None) -> None:
        wanted = {"repeats": -1, **values}
        changed = {column: value for column, value in wanted.items() if getattr(row, column) != value}
        if next_run := self._new_next_run(row, values, entry):
            changed["next_run"] = next_run
        if changed:
            self.result.changes.changed[row.pk] = changed
            self.result.done.setdefault(name, "changed")
        if entry is None or entry.withdrawn or entry.schedule_id != row.pk:
            self._note(name, row.pk)
            self.result.done.setdefault(name, "changed")

    def _new_next_run(self, row: Schedule, values: dict[str, Any], entry: CodeSchedule | None) -> datetime | None:
        """Return the next run to store; None to keep what the row has, also that it is paused."""
        after = Schedule(next_run=row.next_run, **values)
        if entry is not None and entry.withdrawn:
            return None if entry.was_paused else self._first_run(after)
        if row.next_run is None or row_runs.recurrence_of(after) == row_runs.recurrence_of(row):
            return None
        try:
            return row_runs.after_change(after, row.next_run, self.now)
        except BadSchedule:
            return self._first_run(after)

    def _first_run(self, row: Schedule) -> datetime:
        return row_runs.after_fire(row, self.now, self.now, catch_up=False)

    def withdraw(self, entry: CodeSchedule, options: SyncOptions) -> None:
        """Pause the row of a schedule that has left the code, or delete it."""
        row = self._row_of(entry)
        if row is None or options.delete:
            self.result.forgotten.append(entry.name)
            if row is not None:
                self.result.changes.deleted.append(row.pk)
                self.result.done[entry.name] = "deleted"
        elif not entry.withdrawn:
            if row.next_run is not None:
                self.result.changes.changed[row.pk] = {"next_run": None}
            self._note(entry.name, row.pk, withdrawn=self.now, was_paused=row.next_run is None)
            self.result.done[entry.name] = "withdrawn"

    def _note(self, name: str, id: int, **more: Any) -> None:
        self.result.noted[name] = CodeSchedule(
            site=self.site, tenant=self.result.key, name=name, schedule_id=id, **more
        )


def compare(
    schema: str,
    key: str,
    site: str,
    declared: Iterable[DeclaredSchedule],
    known: Iterable[CodeSchedule],
    rows: Sequence[Schedule],
    options: SyncOptions,
) -> Comparison:
    """Compare the schedules in code with those of one tenant.

    Args:
        schema: The tenant.
        key: Its key.
        site: The site.
        declared: The schedules that code declares for it.
        known: The entries of those that it has from code.
        rows: Its rows with the names or the ids of these.
        options: The options of the synchronization.
    """
    tenant = _Tenant(Comparison(schema, key), site, known, rows)
    wanted = list(declared)
    for one in wanted:
        tenant.want(one, options)
    names = {one.name for one in wanted}
    for name, entry in tenant.known.items():
        if name not in names:
            tenant.withdraw(entry, options)
    return tenant.result
