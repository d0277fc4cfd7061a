"""The rows of the current schema's schedules, on the tenants' connection."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.utils import timezone
from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.exceptions import BadSchedule
from tenant_q.package import declarations
from tenant_q.package.functions import is_path, stored_name
from tenant_q.package.option_types import Func
from tenant_q.schedules import code_entries
from tenant_q.support.receivers import receivers_of

# The fields that callers pass beside the function's own arguments, with Django-Q2's defaults.
_DEFAULTS: dict[str, Any] = {
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


def rows() -> Any:
    """Return the rows of the current schema's schedules on the tenants' connection, whatever the routers say."""
    return Schedule.objects.using(tenancy.database_alias())


def path_of(func: Func) -> str:
    """Return the text by which a schedule's row names a function: its declared name, or its dotted path.

    Args:
        func: The function, its dotted path, or the name of a declared task. A text is returned unchanged.

    Raises:
        ValidationError: The function has no path, by which a worker could find it.
    """
    if isinstance(func, str):
        return func
    declaration = declarations.find(func)
    if declaration is not None:
        return declaration.name
    name = stored_name(func)
    if not is_path(name) or "." not in name:
        raise ValidationError({"func": f"{name} has no path of its own; use a function at the top level of a module."})
    return name


def create(func: Func, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Schedule:
    """Create a schedule's row in the current schema, as `django_q.tasks.schedule` does, on the tenants' connection.

    Args:
        func: The function, its dotted path, or the name of a declared task.
        args: The positional arguments of the function.
        kwargs: The keyword arguments of the function, and the fields of the schedule.

    Returns:
        The saved schedule.

    Raises:
        IntegrityError: There is a schedule of that name.
        ValidationError: A field is wrong, or the schedule could only fail.
    """
    given = {name: kwargs.pop(name) for name in _DEFAULTS if name in kwargs}
    fields = _DEFAULTS | {"next_run": timezone.now()} | given
    if fields["name"] and rows().filter(name=fields["name"]).exists():
        raise IntegrityError("A schedule with the same name already exists.")
    row = Schedule(func=path_of(func), args=args, kwargs=kwargs, **fields)
    row.full_clean()
    row.save(using=tenancy.database_alias())
    return row


def ensure(name: str, func: Func, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Schedule:
    """Create the schedule of a name in the current schema, or change its row to these values.

    Args:
        name: The name of the schedule. If several rows have it, the oldest one is changed.
        func: As for `create`.
        args: As for `create`.
        kwargs: As for `create`, without the name.

    Returns:
        The saved schedule.

    Raises:
        BadSchedule: The schedule comes from code.
        ValidationError: A field is wrong, or the schedule could only fail.
    """
    given = {field: kwargs.pop(field) for field in _DEFAULTS if field in kwargs}
    kept = {field for field in ("next_run", "repeats") if field not in given}
    fields = {**_DEFAULTS, "next_run": timezone.now(), **given, "name": name}
    wanted = Schedule(func=path_of(func), args=str(args), kwargs=str(kwargs), **fields)  # as they are stored
    wanted.full_clean()
    with transaction.atomic(using=tenancy.database_alias()):
        _lock_name(name)
        row = rows().select_for_update().filter(name=name).order_by("pk").first()
        if row is None:
            wanted.save(using=tenancy.database_alias())
            return wanted
        if code_entries.entry_of(row):
            raise BadSchedule(f"The schedule {name!r} comes from code; change it there, or choose another name.")
        names = {"func", "args", "kwargs", *_DEFAULTS} - kept
        changed = [field for field in sorted(names) if getattr(row, field) != getattr(wanted, field)]
        for field in changed:
            setattr(row, field, getattr(wanted, field))
        if changed:
            row.save(using=tenancy.database_alias(), update_fields=changed)
            row.refresh_from_db()
    return row


def _lock_name(name: str) -> None:
    """Let one transaction after another ensure the schedule of a name: no constraint keeps names apart."""
    with tenancy.raw_cursor() as cursor:
        text = f"{tenancy.physical_schema(tenancy.current_schema())}.{name}"
        cursor.execute("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))", [text])


def has_receivers() -> bool:
    """Return whether the project has receivers for rows of schedules that are saved or deleted."""
    signals = (pre_save, post_save, pre_delete, post_delete)
    found = [receiver for signal in signals for receiver in receivers_of(signal, sender=Schedule)]
    # The receiver of django-tenants looks for tenants among everything that is deleted.
    return not all(map(tenancy.is_of_tenancy_package, found))
