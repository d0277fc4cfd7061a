"""Find what would keep a schedule from running, before it is saved, with the code that will run it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from copy import copy
from keyword import iskeyword
from typing import Any

from django.core.exceptions import ValidationError
from django.utils import timezone
from django_q.models import Schedule

from tenant_q.conf import conf
from tenant_q.exceptions import BadSchedule, TenantQError
from tenant_q.lifecycle import execute, hooks
from tenant_q.package import declarations
from tenant_q.package.functions import is_path
from tenant_q.schedules import fired_packages, row_runs
from tenant_q.schedules.arguments import parse_arguments
from tenant_q.support.visible import one_line

_CODE = ("func", "hook")
"""The fields that name code, which may be deployed on another cluster."""
VALIDATED = frozenset({"func", "hook", "args", "kwargs", "intended_date_kwarg", "schedule_type", "minutes", "cron"})
"""The fields of a schedule in which a wrong value makes every run fail."""


def refuse_hopeless(row: Schedule, schema: str, fields: Collection[str]) -> None:
    """Refuse a schedule that could only fail, before its row is saved. No module is imported to find that out.

    Args:
        row: The schedule.
        schema: The tenant.
        fields: The names of the fields that were set or changed. What the others have is not the caller's doing.

    Raises:
        ValidationError: By field, what is wrong.
    """
    fields = {name for name in fields if not hasattr(getattr(row, name, None), "resolve_expression")}
    row = _as_stored(row)
    checks = {field: check for field, check in _checks(row).items() if field in fields and field not in _CODE}
    if "func" in fields:
        checks["func"] = lambda: _check_path(row.func)
    if row.hook and "hook" in fields:
        checks["hook"] = lambda: _check_path(row.hook)
    found = {field: [reason] for field, check in checks.items() if (reason := _reason(check))}
    if not found and fields & {"kwargs", "intended_date_kwarg"} and (reason := _reason(lambda: _whole(row, schema))):
        found = {"kwargs": [reason]}
    if found:
        raise ValidationError(found)


def _as_stored(row: Schedule) -> Schedule:
    """Return a copy of a schedule with the values that its row will have: texts for arguments, for example."""
    stored = copy(row)
    for field in Schedule._meta.concrete_fields:
        value = getattr(row, field.attname)
        with suppress(ValidationError, TypeError):  # an expression, or a value that the database will refuse
            setattr(stored, field.attname, field.to_python(value))
    return stored


def _check_path(path: str) -> None:
    if is_path(path) and ("." in path or declarations.find(path) is not None):
        return
    raise BadSchedule(f"{path!r} is not the dotted path of a function, such as 'shop.tasks.send'")


def problems(row: Schedule, schema: str, *, imports: bool = True) -> Iterator[tuple[str | None, str]]:
    """Validate a schedule before it is saved: yield what would keep it from running.

    Function and hook are only checked if this project's own cluster serves the schedule, because another cluster may
    have other code. Modules are imported, but nothing is called.

    Args:
        row: The schedule.
        schema: The tenant.
        imports: False to skip the fields that name code, so that no module is imported.

    Yields:
        The name of a field, or None for several fields together, and what is wrong, with its place.
    """
    found = not imports
    for field, check in _checks(row).items():
        if field in _CODE and not imports:
            continue
        reason = _reason(check)
        if reason:
            found = True
            yield field, reason
    # The schedule as a whole, if each field is right by itself.
    if not found and (reason := _reason(lambda: _whole(row, schema))):
        yield None, reason


def _checks(row: Schedule) -> dict[str, Callable[[], Any]]:
    checks: dict[str, Callable[[], Any]] = {
        "args": lambda: parse_arguments(row.args, None),
        "kwargs": lambda: parse_arguments(None, row.kwargs),
        "intended_date_kwarg": lambda: _check_keyword(row.intended_date_kwarg),
    }
    if row.schedule_type not in (Schedule.ONCE, Schedule.CRON):
        field = "minutes" if row.schedule_type == Schedule.MINUTES else "schedule_type"
        checks[field] = lambda: _check_recurrence(row)
    if row.schedule_type == Schedule.CRON or row.cron:
        as_cron = copy(row)
        as_cron.schedule_type = Schedule.CRON
        checks["cron"] = lambda: _check_recurrence(as_cron)
    if not row.cluster or row.cluster == conf().cluster:
        checks["func"] = lambda: execute.resolve(row.func)
        if row.hook:
            checks["hook"] = lambda: _check_hook(row.hook)
    return checks


def _reason(check: Callable[[], Any]) -> str:
    try:
        check()
    except TenantQError as error:
        return _sentence(str(error))
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        return _sentence(f"it cannot be imported: {type(error).__name__}: {error}")
    return ""


def _sentence(text: str) -> str:
    text = one_line(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _check_recurrence(row: Schedule) -> None:
    now = timezone.now()
    row_runs.after_fire(row, row.next_run or now, now, catch_up=False)


def _check_keyword(name: str | None) -> None:
    if name and (not name.isidentifier() or iskeyword(name)):
        raise BadSchedule(f"{name!r} cannot be the name of an argument")


def _check_hook(path: str) -> None:
    if not callable(hooks.resolve_hook(path)):
        raise BadSchedule(f"{path} is not a function")


def _whole(row: Schedule, schema: str) -> None:
    row = copy(row)
    row.next_run = row.next_run or timezone.now()
    fired_packages.package_of(row, schema, "0" * 32)
