"""`python manage.py msschedules`: the next runs over all tenants, and whether the index of them is right."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.exceptions import ForeignCode
from tenant_q.management.console import OperatorCommand, moment, table
from tenant_q.schedules import catch_up, index_rights, index_upkeep, offered
from tenant_q.schedules.planned_runs import PlannedRun, planned_runs
from tenant_q.support.visible import one_line

LISTED = 50
# So many schemas are compared in one round trip.
AT_ONCE = 100
# The number of schedules that are searched for missed runs: those that have been due longest.
DUE = 1000
_COLUMNS = ("schema", "name", "function", "type", "next run", "last", "held")
_LAST = {True: "success", False: "failure", None: None}


@dataclass(frozen=True)
class Finding:
    """What is wrong in the index about one schema, and whether it is right now."""

    schema: str
    problem: str
    repaired: bool


@dataclass(frozen=True)
class Unlisted:
    """A schedule that its tenant's staff could not have made, since what it runs is not offered to them."""

    schema: str
    id: int
    name: str | None
    func: str
    hook: str | None
    reasons: list[str]


@dataclass(frozen=True)
class Behind:
    """A schedule that has many missed runs to make up for. `next_run` is the first of them."""

    schema: str
    id: int
    name: str | None
    func: str | None
    next_run: datetime
    runs: int


class Command(OperatorCommand):
    help = "Shows what runs next, over all tenants; with --check, whether the index of all schedules is right."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--schema", help="Only this tenant's.")
        parser.add_argument("--limit", type=_limit, metavar="N", help=f"How many are listed; {LISTED} by default.")
        super().add_arguments(parser)
        parser.add_argument("--check", action="store_true", help="Compare the index with the schedules of each schema.")
        parser.add_argument("--repair", action="store_true", help="With --check: put right what is wrong.")

    def act(self, options: dict[str, Any]) -> None:
        if options["repair"] and not options["check"]:
            raise CommandError("--repair belongs to `msschedules --check`; give both.")
        if options["limit"] and options["check"]:
            raise CommandError(
                "--limit is for the list, and --check always looks at everything; leave one of them out."
            )
        index_upkeep.require_tables()
        schema = _physical(options["schema"])
        if options["check"]:
            self._check(schema, repair=options["repair"], as_json=options["json"])
        else:
            self._list(schema, options["limit"] or LISTED, as_json=options["json"])

    # The list

    def _list(self, schema: str | None, limit: int, *, as_json: bool) -> None:
        found = planned_runs(limit, schema)
        if as_json:
            self.answer([_as_json(one) for one in found])
        elif found:
            self.show(table(_COLUMNS, [_cells(one) for one in found]))
            if len(found) == limit:
                self.say(f"The first {limit}; --limit N lists more, if there are.")
        else:
            self.say(f"Nothing is planned{f' in {schema}' if schema else ''}.")

    # The check

    def _check(self, schema: str | None, *, repair: bool, as_json: bool) -> None:
        schemas = [name for name in index_upkeep.indexed_schemas() if schema in (None, name)]
        wrong = _problems(schemas)
        why = _repair(wrong) if repair else {}
        left = _problems(list(wrong)) if repair else wrong
        findings = [
            Finding(name, f"{problem}: {why[name]}" if name in why else problem, name not in left)
            for name, problem in wrong.items()
        ]
        unlisted, behind = _unlisted(schemas), _behind(schema)
        if as_json:
            found = {"wrong": [vars(one) for one in findings], "unlisted": [vars(one) for one in unlisted]}
            self.answer({"schemas": len(schemas), **found, "behind": [vars(one) for one in behind]})
        else:
            self._tell(len(schemas), findings)
            self._tell_unlisted(unlisted)
            self._tell_behind(behind)
        if left:
            raise CommandError(_way_out(left, repair=repair))

    def _tell(self, count: int, findings: list[Finding]) -> None:
        for finding in findings:
            self.say(f"{finding.schema}: {finding.problem}{'; repaired' if finding.repaired else ''}")
        if not findings:
            looked_at = "1 schema" if count == 1 else f"{count} schemas"
            self.say(f"The index agrees with the schedules of {looked_at}.")

    def _tell_unlisted(self, unlisted: list[Unlisted]) -> None:
        """List the schedules that are not offered. That is no error: code may have made them, and they go on firing."""
        if unlisted:
            count = "1 schedule runs" if len(unlisted) == 1 else f"{len(unlisted)} schedules run"
            self.say(f"{count} what is not offered to the tenants' staff (TENANT_Q['admin_functions']):")
        for one in unlisted:
            name = f"schedule {one.id} ({one.name})" if one.name else f"schedule {one.id}"
            self.say(f"{one.schema}: {name}, function {one.func}: {' '.join(one.reasons)}")

    def _tell_behind(self, behind: list[Behind]) -> None:
        """List the schedules that have many missed runs to make up for. This is not an error: it may be intended."""
        if behind:
            self.say("Each missed run is made up for. To leave these runs out, set next_run to a moment in the future:")
        for one in behind:
            name = f"schedule {one.id} ({one.name})" if one.name else f"schedule {one.id}"
            runs = catch_up.in_words(one.runs)
            self.say(f"{one.schema}: {name}, function {one.func}, is behind by {runs}, since {moment(one.next_run)}")


def _limit(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")


def _physical(schema: str | None) -> str | None:
    """The schema as PostgreSQL names it. Raises `UnknownTenant`."""
    if schema is None:
        return None
    if schema != tenancy.public_schema():
        tenancy.get_tenant(schema)
    return tenancy.physical_schema(schema)


def _kind(one: PlannedRun) -> str | None:
    """The type in words, with what it needs to be understood."""
    if one.kind == Schedule.CRON:
        return f"cron {one.cron}"
    if one.kind == Schedule.MINUTES:
        return f"every {one.minutes or 1} min"
    label = dict(Schedule.TYPE).get(one.kind)
    return str(label).lower() if label else one.kind


def _as_json(one: PlannedRun) -> dict[str, Any]:
    return {
        "schema": one.schema,
        "id": one.id,
        "name": one.name,
        "func": one.func,
        "type": _kind(one),
        "cluster": one.cluster or None,
        "next_run": one.next_run,
        "last_result": _LAST[one.last],
        "held": one.held or None,
    }


def _cells(one: PlannedRun) -> tuple[Any, ...]:
    return (one.schema, one.name or one.id, one.func, _kind(one), one.next_run, _LAST[one.last], one.held)


def _problems(schemas: list[str]) -> dict[str, str]:
    """What is wrong, by schema."""
    stale = dict(index_upkeep.stale_schemas(thorough=True))
    found = {}
    for first in range(0, len(schemas), AT_ONCE):
        some = schemas[first : first + AT_ONCE]
        counts = _errors([schema for schema in some if not stale.get(schema)])
        for schema in some:
            if problem := _problem(stale.get(schema), counts.get(schema, 0)):
                found[schema] = problem + _needed(schema if stale.get(schema) is False else None)
    return found


def _needed(schema: str | None) -> str:
    """What has to be granted so that a schema can be put into the index, as the end of a sentence; often nothing."""
    grants = index_rights.missing_grants(schema) if schema else []
    return f"; run as the owner of what is named: {'; '.join(grants)};" if grants else ""


def _errors(schemas: list[str]) -> dict[str, int | str]:
    """Return the number of wrong entries of the index, by schema, or why it cannot be found out."""
    if not schemas:
        return {}
    try:
        return dict(index_upkeep.errors_of(schemas))
    except tenancy.DATABASE_ERRORS as error:
        if len(schemas) > 1:  # at least one of them
            return {schema: count for one in schemas for schema, count in _errors([one]).items()}
        return {schemas[0]: f"its table django_q_schedule cannot be read: {one_line(error)}"}


def _behind(schema: str | None) -> list[Behind]:
    """Return the schedules with many missed runs to make up for, among those that have been due longest."""
    now = timezone.now()
    found = []
    for one in planned_runs(DUE, schema):
        runs = catch_up.runs_behind(one.kind, one.next_run, now, minutes=one.minutes, cron=one.cron)
        if runs >= catch_up.MANY:
            found.append(Behind(one.schema, one.id, one.name, one.func, one.next_run, runs))
    return found


def _unlisted(schemas: list[str]) -> list[Unlisted]:
    """Schedules of tenants that are not offered to their staff; schemas that cannot be read are reported elsewhere."""
    gone = {schema for schema, is_gone in index_upkeep.stale_schemas() if is_gone}
    there = [schema for schema in schemas if schema not in gone | {tenancy.public_schema()}]
    found: list[Unlisted] = []
    for first in range(0, len(there), AT_ONCE):
        for schema, row, reasons in _rows_unlisted(there[first : first + AT_ONCE]):
            found.append(Unlisted(schema, row.pk, row.name, row.func, row.hook, reasons))
    return sorted(found, key=lambda one: (one.schema, one.id))


def _rows_unlisted(schemas: list[str]) -> list[tuple[str, Schedule, list[str]]]:
    try:
        return offered.unlisted(schemas)
    except (*tenancy.DATABASE_ERRORS, ForeignCode):
        if len(schemas) == 1:
            return []
        return [row for schema in schemas for row in _rows_unlisted([schema])]


def _problem(is_gone: bool | None, errors: int | str) -> str | None:
    """In words; `is_gone` is None of a schema that the index knows as it is."""
    if is_gone:
        return "no tenant has this schema, or its table django_q_schedule is gone, and it is still in the index"
    if isinstance(errors, str):
        return errors
    wrong = "1 schedule is wrong in the index" if errors == 1 else f"{errors} schedules are wrong in the index"
    if is_gone is not None:
        return "not in the index as it is now, or without its triggers" + (f"; {wrong}" if errors else "")
    return wrong if errors else None


def _repair(wrong: dict[str, str]) -> dict[str, str]:
    """Put right what can be. Returns why the others could not, by schema."""
    gone = dict(index_upkeep.stale_schemas(thorough=True))
    return dict(index_upkeep.bring_up_to_date([(schema, gone.get(schema, False)) for schema in wrong]))


def _way_out(left: dict[str, str], *, repair: bool) -> str:
    count = "1 schema" if len(left) == 1 else f"{len(left)} schemas"
    if not repair:
        return f"The index is wrong about {count}: `msschedules --check --repair` puts it right."
    return (
        f"The index is still wrong about {count} ({', '.join(left)}): a table that is locked is not waited for long; "
        "end what locks it, migrate a table that cannot be read, or grant what is named above, and repeat."
    )
