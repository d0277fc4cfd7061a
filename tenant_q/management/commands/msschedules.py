"""`python manage.py msschedules`: show the next runs of all tenants, check the index, synchronize with the code."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.management.console import OperatorCommand, moment, positive_integer, table
from tenant_q.operations import schedule_check
from tenant_q.operations.schedule_check import Behind, Finding, Unlisted
from tenant_q.schedules import catch_up, code_sync, index_rights
from tenant_q.schedules.code_changes import SyncOptions
from tenant_q.schedules.planned_runs import PlannedRun, planned_runs
from tenant_q.support.plurals import counted

LISTED = 50
_COLUMNS = ("schema", "name", "function", "type", "next run", "last", "held")
_LAST = {True: "success", False: "failure", None: None}


class Command(OperatorCommand):
    help = (
        "Shows what runs next, over all tenants. With --check, compares the index of all schedules with them. With "
        "--sync, brings the tenants' schedules up to date with those in code."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--schema", help="Only this tenant.")
        parser.add_argument(
            "--limit", type=positive_integer, metavar="N", help=f"The number of runs to list; {LISTED} by default."
        )
        super().add_arguments(parser)
        parser.add_argument("--check", action="store_true", help="Compare the index with the schedules of each schema.")
        parser.add_argument("--repair", action="store_true", help="With --check: repair the index.")
        parser.add_argument("--sync", action="store_true", help="Bring the schedules up to date with those in code.")
        parser.add_argument("--dry-run", action="store_true", help="With --sync: only show what would be done.")
        parser.add_argument("--delete", action="store_true", help="With --sync: delete schedules that left the code.")
        parser.add_argument(
            "--adopt", action="store_true", help="With --sync: take over schedules of the same names, made otherwise."
        )

    def perform(self, options: dict[str, Any]) -> None:
        if options["repair"] and not options["check"]:
            raise CommandError("--repair belongs to `msschedules --check`; give both.")
        if options["limit"] and options["check"]:
            raise CommandError("--limit is for the list, and --check always checks everything; leave one of them out.")
        if options["sync"]:
            self._sync(options)
            return
        for name in ("dry_run", "delete", "adopt"):
            if options[name]:
                raise CommandError(f"--{name.replace('_', '-')} belongs to `msschedules --sync`; give both.")
        index_rights.require_index()
        schema = _physical(options["schema"])
        if options["check"]:
            self._check(schema, repair=options["repair"], as_json=options["json"])
        else:
            self._list(schema, options["limit"] or LISTED, as_json=options["json"])

    # The list

    def _list(self, schema: str | None, limit: int, *, as_json: bool) -> None:
        found = planned_runs(limit, schema)
        if as_json:
            self.write_json([_as_json(one) for one in found])
        elif found:
            self.show(table(_COLUMNS, [_cells(one) for one in found]))
            if len(found) == limit:
                self.write_line(f"The first {limit}; --limit N lists more, if there are.")
        else:
            self.write_line(f"Nothing is planned{f' in {schema}' if schema else ''}.")

    # The schedules in code

    def _sync(self, options: dict[str, Any]) -> None:
        for name in ("check", "limit", "schema"):
            if options[name]:
                raise CommandError(f"--{name} does not belong to `msschedules --sync`; leave it out.")
        given = {name: options[name] for name in ("delete", "adopt", "dry_run")}
        chosen = SyncOptions(**given, all_tenants=True)
        report = code_sync.Sync(chosen).run()
        if options["json"]:
            self.write_json(asdict(report))
        else:
            verb = "would be" if chosen.dry_run else "was"
            for schema, name, act in report.details:
                self.write_line(f"{schema}: {name} {verb} {act}")
        if problem := _unsynced(report):
            raise CommandError(problem)
        if not options["json"] and not chosen.dry_run:
            self.write_line(f"The schedules of {counted(report.tenants, 'tenant')} are those of the code.")

    # The check

    def _check(self, schema: str | None, *, repair: bool, as_json: bool) -> None:
        found = schedule_check.check(schema, repair=repair)
        if as_json:
            self.write_json(asdict(found))
        else:
            self._list_wrong(found.schemas, found.wrong)
            self._list_unlisted(found.unlisted)
            self._list_behind(found.behind)
        left = [one.schema for one in found.wrong if not one.repaired]
        if left:
            raise CommandError(_way_out(left, repair=repair))

    def _list_wrong(self, count: int, findings: list[Finding]) -> None:
        for finding in findings:
            self.write_line(f"{finding.schema}: {finding.problem}{'; repaired' if finding.repaired else ''}")
        if not findings:
            self.write_line(f"The index agrees with the schedules of {counted(count, 'schema')}.")

    def _list_unlisted(self, unlisted: list[Unlisted]) -> None:
        """Print the schedules that are not offered. This is no error: code may have made them.

        They fire, except with isolation "login", where each of their runs is a failed task.
        """
        if unlisted:
            self.write_line(_about_unlisted(len(unlisted)))
        for one in unlisted:
            self.write_line(f"{_named(one)}: {' '.join(one.reasons)}")

    def _list_behind(self, behind: list[Behind]) -> None:
        """Print the schedules that have many missed runs to make up for. This is no error: it may be intended."""
        if behind:
            self.write_line(
                "Each missed run is made up for. To leave these runs out, set next_run to a moment in the future:"
            )
        for one in behind:
            runs = catch_up.in_words(one.runs)
            self.write_line(f"{_named(one)}, is behind by {runs}, since {moment(one.next_run)}")


def _unsynced(report: code_sync.Report) -> str:
    """Return in one sentence why schedules in code are not in force everywhere; empty if they are."""
    if report.newer:
        return (
            f"Nothing was changed, because release {report.newer} is newer; deploy that, or give this one a newer "
            "TENANT_Q['release']."
        )
    if report.put_off:
        reasons = "; ".join(f"{schema}: {reason}" for schema, reason in sorted(report.put_off.items()))
        count = counted(len(report.put_off), "tenant was", "tenants were")
        return f"{count} left out ({reasons}); correct this and repeat."
    if report.conflicts:
        names = ", ".join(f"{schema}: {name}" for schema, name in report.conflicts)
        return f"Schedules of the same names were not made from code ({names}); rename them, or repeat with --adopt."
    return ""


def _about_unlisted(count: int) -> str:
    """Return the line above the schedules that are not offered, with what becomes of their runs."""
    if conf().isolation == "login":
        return (
            f"{counted(count, 'schedule names', 'schedules name')} code that is not offered to the tenants' staff, so "
            "each run is a failed task (TENANT_Q['isolation'] is 'login'); name the code in "
            "TENANT_Q['admin_functions'], or declare the schedules in code:"
        )
    runs = counted(count, "schedule runs", "schedules run")
    return f"{runs} code that is not offered to the tenants' staff (TENANT_Q['admin_functions']):"


def _named(one: Unlisted | Behind) -> str:
    name = f"schedule {one.id} ({one.name})" if one.name else f"schedule {one.id}"
    return f"{one.schema}: {name}, function {one.func}"


def _physical(schema: str | None) -> str | None:
    """Return the schema that `msschedules` was given as PostgreSQL names it. Raises `UnknownTenant`."""
    if schema is None:
        return None
    if schema != tenancy.public_schema():
        tenancy.get_tenant(schema)
    return tenancy.physical_schema(schema)


def _kind(one: PlannedRun) -> str | None:
    """Return the type of a listed schedule in words, with its interval or its cron text."""
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


def _way_out(left: list[str], *, repair: bool) -> str:
    count = counted(len(left), "schema")
    if not repair:
        return f"The index is wrong about {count}: `msschedules --check --repair` repairs it."
    return (
        f"The index is still wrong about {count} ({', '.join(left)}), because a table is locked or cannot be read, or "
        "a right is missing; end the lock, migrate the table, or grant the rights above, and repeat."
    )
