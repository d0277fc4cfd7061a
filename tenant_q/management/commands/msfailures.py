"""`python manage.py msfailures`: show the failures of all tenants, run them again, or delete them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, time, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from tenant_q import audit, tenancy
from tenant_q.management.console import OperatorCommand, positive_integer, table
from tenant_q.management.progress import progress_line
from tenant_q.management.question import require_consent
from tenant_q.models import Failure
from tenant_q.operations import failures
from tenant_q.operations.failures import FailureFilter, FailureGroup, FailuresDone
from tenant_q.schedules import index_rights
from tenant_q.support.moments import at, aware

LISTED = 50
_GROUP = ("cause", "function", "count", "tenants", "schedules", "first", "last")
_FAILURE = ("schema", "id", "function", "cause", "schedule", "attempts", "ended")
_ERROR = ("schema", "id", "error")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# What each act is in a question and in an answer, and the operation that does it.
_ACTS: dict[str, tuple[str, str, Callable[..., FailuresDone]]] = {
    "retry": ("Run {} again?", "run again", failures.retry),
    "delete": ("Delete {}?", "deleted", failures.delete),
}


class Command(OperatorCommand):
    help = (
        "Shows the failed tasks of all tenants that were not run again, by cause and function. `list` shows each of "
        "them, `retry` runs them again, `delete` deletes their rows."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=("groups", "list", *_ACTS), default="groups")
        parser.add_argument(
            "--since",
            type=_moment,
            metavar="WHEN",
            help="Those that ended since then: an age such as 90m, 12h or 3d, a date, or a date and a time.",
        )
        parser.add_argument("--cause", default="", help="Those with this cause: the name of a class; '?' if unknown.")
        parser.add_argument("--func", default="", metavar="PATH", help="Those of this function.")
        parser.add_argument("--schema", help="Those of this tenant.")
        parser.add_argument("--schedule", default="", metavar="NAME", help="Those that this schedule led to.")
        parser.add_argument(
            "--limit", type=positive_integer, metavar="N", help=f"The number to show; {LISTED} by default."
        )
        parser.add_argument("--yes", action="store_true", help="Retry or delete without a question.")
        super().add_arguments(parser)

    def perform(self, options: dict[str, Any]) -> None:
        action, acts = options["action"], options["action"] in _ACTS
        if options["limit"] and acts:
            raise CommandError(f"--limit is for what is shown, and `msfailures {action}` acts on all; leave it out.")
        if options["yes"] and not acts:
            raise CommandError("--yes belongs to `msfailures retry` and `msfailures delete`; leave it out.")
        index_rights.require_index()
        wanted = _filter(options)
        if acts:
            self._act(action, wanted, is_sure=options["yes"], as_json=options["json"])
        elif action == "list":
            self._list(wanted, options["limit"] or LISTED, as_json=options["json"])
        else:
            self._list_groups(wanted, options["limit"] or LISTED, as_json=options["json"])

    # What is shown

    def _list_groups(self, wanted: FailureFilter, limit: int, *, as_json: bool) -> None:
        found = failures.groups(wanted, limit=limit)
        if as_json:
            self.write_json([asdict(one) for one in found])
        elif found:
            self.show(table(_GROUP, [_group_cells(one) for one in found], numbers=("count", "tenants", "schedules")))
            self._say_how_many(len(found), limit)
        else:
            self.write_line("No failures.")

    def _list(self, wanted: FailureFilter, limit: int, *, as_json: bool) -> None:
        found = failures.failures(wanted, limit=limit)
        if as_json:
            self.write_json([_as_json(one) for one in found])
        elif found:
            self.show(table(_FAILURE, [_cells(one) for one in found], numbers=("attempts",)))
            self._say_how_many(len(found), limit)
        else:
            self.write_line("No failures.")

    def _say_how_many(self, shown: int, limit: int) -> None:
        if shown == limit:
            self.write_line(f"The first {limit}; --limit N shows more, if there are.")

    # What is done

    def _act(self, action: str, wanted: FailureFilter, *, is_sure: bool, as_json: bool) -> None:
        question, done_word, act = _ACTS[action]
        count = failures.count(wanted)
        if count and not is_sure:
            text = question.format(_tasks(count) if _is_limited(wanted) else f"{_tasks(count)} of all tenants")
            require_consent(self.stderr, text, way_out=f"add --yes to {action} them")
        with progress_line(self.stderr, count, as_json=as_json) as line:
            line.at(action)
            done = act(wanted, actor=audit.operator(), progress=line.done)
        self._report(done, action, done_word, as_json=as_json)
        if done.errors:
            could = "run again" if action == "retry" else "deleted"
            raise CommandError(f"{_tasks(len(done.errors))} could not be {could}; see the reasons above.")

    def _report(self, done: FailuresDone, action: str, done_word: str, *, as_json: bool) -> None:
        errors = [(schema, id, reason) for (schema, id), reason in done.errors.items()]
        if as_json:
            listed = [dict(zip(_ERROR, one, strict=True)) for one in errors]
            self.write_json({"act": action, "done": done.done, "skipped": done.skipped, "errors": listed})
            return
        if errors:
            self.show(table(_ERROR, errors))
        meanwhile = f"; {done.skipped} had been run again or deleted meanwhile" if done.skipped else ""
        self.write_line(f"{_tasks(done.done)} {done_word}{meanwhile}")


def _filter(options: dict[str, Any]) -> FailureFilter:
    """Return which failures the options of `msfailures` name. Raises `UnknownTenant`."""
    schema = options["schema"] or ""
    if schema and schema != tenancy.public_schema():
        tenancy.get_tenant(schema)
    return FailureFilter(
        since=options["since"],
        until=timezone.now(),
        func=options["func"],
        cause=options["cause"],
        schema=schema,
        schedule=options["schedule"],
    )


def _is_limited(wanted: FailureFilter) -> bool:
    return bool(wanted.since or wanted.func or wanted.cause or wanted.schema or wanted.schedule)


def _tasks(count: int) -> str:
    return "1 failed task" if count == 1 else f"{count} failed tasks"


def _group_cells(one: FailureGroup) -> tuple[Any, ...]:
    return (one.cause, one.func, one.count, one.tenants, one.schedules or None, one.first, one.last)


def _cells(one: Failure) -> tuple[Any, ...]:
    return (one.schema_name, one.task_id, one.func, one.cause, one.schedule, one.attempts, one.stopped)


def _as_json(one: Failure) -> dict[str, Any]:
    return {
        "schema": one.schema_name,
        "id": one.task_id,
        "func": one.func,
        "cause": one.cause,
        "schedule": one.schedule or None,
        "attempts": one.attempts,
        "stopped": one.stopped,
    }


def _moment(text: str) -> datetime:
    """Return the moment that `--since` names."""
    if age := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        return timezone.now() - timedelta(**{_UNITS[age[2]]: int(age[1])})
    try:
        moment = parse_datetime(text)
        if moment is None and (day := parse_date(text)):
            moment = datetime.combine(day, time.min)
    except ValueError:
        moment = None
    if moment is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an age, such as 90m, 12h or 3d, nor a date or a moment")
    return at(aware(moment).timestamp())
