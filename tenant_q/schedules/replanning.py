"""Validate a schedule in `Schedule.save()`, and plan its next run again when the recurrence changes.

A schedule that could only fail is refused where it is made. Fixtures (`loaddata`), `bulk_create()`,
`QuerySet.update()`, `bulk_update()` and SQL are not intercepted: their broken schedules leave failed tasks.

Django-Q2 only computes it for a new cron schedule. A changed schedule would run once more at the time of its previous
recurrence. `update_or_create()`, `save(update_fields=...)` and forms all call `save()`. `QuerySet.update()`,
`bulk_update()` and SQL do not, and keep the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from copy import copy
from datetime import datetime
from functools import wraps
from typing import Any

from django.core.exceptions import ValidationError
from django.db import router, transaction
from django.db.models import Model
from django.utils import timezone
from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.exceptions import BadSchedule
from tenant_q.schedules import row_runs, schedule_rows, validation

RECURRENCE = frozenset({"schedule_type", "minutes", "cron"})
"""The fields of a schedule that determine its next run."""
_LOADED = "_tenant_q_loaded_next_run"
_POSITIONAL = ("force_insert", "force_update", "using", "update_fields")


def install() -> None:
    """Replace `Schedule.save()` by one that plans the next run again. A second call has no effect."""
    if not hasattr(Schedule.save, "tenant_q_original"):
        Schedule.save = _planning(Schedule.save)
        Schedule.from_db = classmethod(_from_db)


def _from_db(cls: Any, /, db: str | None, field_names: Any, values: Any, **options: Any) -> Any:
    # Django 6.1 passes `fetch_mode`.
    row = Model.from_db.__func__(cls, db, field_names, values, **options)  # type: ignore[attr-defined]
    row.__dict__[_LOADED] = row.__dict__.get("next_run")
    return row


def _planning(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def save(self: Schedule, *args: Any, **kwargs: Any) -> None:
        options = dict(zip(_POSITIONAL, args, strict=False)) | kwargs
        fields = options.get("update_fields")
        changing = validation.VALIDATED if fields is None else validation.VALIDATED.intersection(fields)
        if "func" in changing and callable(self.func):
            self.func = schedule_rows.path_of(self.func)
        if self.pk is None or options.get("force_insert"):
            validation.refuse_hopeless(self, tenancy.current_schema(), validation.VALIDATED)
            original(self, **options)
        elif not changing:
            original(self, **options)
        else:
            _save_planned(original, self, options)
        self.__dict__[_LOADED] = self.__dict__.get("next_run")

    save.tenant_q_original = original  # type: ignore[attr-defined]
    return save


def _save_planned(original: Callable[..., None], row: Schedule, options: dict[str, Any]) -> None:
    """Save a schedule, and plan its next run again. Lock its row first, so that no scheduler changes it meanwhile."""
    using, fields = options.get("using") or router.db_for_write(type(row), instance=row), options.get("update_fields")
    with transaction.atomic(using=using):
        stored = Schedule._base_manager.using(using).select_for_update().filter(pk=row.pk).first()
        validation.refuse_hopeless(row, tenancy.current_schema(), _changed(stored, row, fields))
        if stored is not None and not _is_next_run_given(stored, row, fields):
            changed = _with_new_recurrence(stored, row, fields)
            if row_runs.recurrence_of(changed) != row_runs.recurrence_of(stored):
                row.next_run = _next_run(changed)
                if fields is not None:
                    options["update_fields"] = {*fields, "next_run"}
        original(row, **options)


def _changed(stored: Schedule | None, row: Schedule, fields: Any) -> Collection[str]:
    """Return which of the validated fields `Schedule.save()` changes. A row that was broken before may stay so."""
    saved = validation.VALIDATED if fields is None else validation.VALIDATED.intersection(fields)
    if stored is None:
        return saved
    changed = {name for name in saved if getattr(stored, name) != getattr(row, name)}
    if changed & {"schedule_type", "minutes", "cron"}:
        changed |= {"schedule_type", "minutes", "cron"}
    return changed


def _is_next_run_given(stored: Schedule, row: Schedule, fields: Any) -> bool:
    """Return whether the caller of `Schedule.save()` set a next run, which is not to be planned again.

    `update_or_create()` always names the field, so the value decides. A value from before the last run does not count.
    """
    if fields is not None and "next_run" not in fields:
        return False
    return row.next_run not in (stored.next_run, row.__dict__.get(_LOADED, stored.next_run))


def _with_new_recurrence(stored: Schedule, row: Schedule, fields: Any) -> Schedule:
    """Return a copy of the stored schedule with the new recurrence, by which it is planned again."""
    changed = copy(stored)
    for name in RECURRENCE if fields is None else RECURRENCE.intersection(fields):
        value = getattr(row, name)
        with suppress(ValidationError, TypeError):  # an expression, or a value that the database will refuse
            value = Schedule._meta.get_field(name).to_python(value)
        setattr(changed, name, value)
    return changed


def _next_run(row: Schedule) -> datetime | None:
    if row.next_run is None:  # paused
        return None
    try:
        return row_runs.after_change(row, row.next_run, timezone.now())
    except BadSchedule:  # the next run will leave a failed task that says why
        return row.next_run  # type: ignore[no-any-return]
