"""Find what would keep a schedule from running, before it is saved, with the code that will run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from keyword import iskeyword
from typing import Any

from django.utils import timezone
from django_q.models import Schedule

from tenant_q.conf import conf
from tenant_q.exceptions import BadSchedule, TenantQError
from tenant_q.lifecycle import execute, hooks
from tenant_q.schedules import fired_packages, row_runs
from tenant_q.schedules.arguments import parse_arguments
from tenant_q.support.visible import one_line


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
        if field in ("func", "hook") and not imports:
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
