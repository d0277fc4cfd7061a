"""`mstenant probe`: find out whether the roles of tenants can reach anything outside of their schemas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from tenant_q import audit, tenancy
from tenant_q.management.console import table
from tenant_q.management.progress import progress_line
from tenant_q.management.tenant_action import TenantAction
from tenant_q.provisioning.probe import Finding, ProbeReport, probe_tenants
from tenant_q.support.plurals import counted

# How many tenants of a finding a table names.
_NAMED = 3


class Action(TenantAction):
    help = "Checks every right of tenants' roles and attempts what they must not do. Exits with 1 if anything is open."
    all_help = "Probe every tenant that has a role."

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        self._probe([schema], options)

    def perform_all(self, options: dict[str, Any]) -> None:
        self._probe(None, options)

    def _probe(self, schemas: Sequence[str] | None, options: dict[str, Any]) -> None:
        total = 2 * (len(tenancy.tenant_names()) if schemas is None else len(schemas))
        with progress_line(self.command.stderr, total, as_json=options["json"]) as line:

            def advance(text: str, count: int) -> None:
                line.at(text)
                line.done(count)

            report = probe_tenants(schemas, actor=audit.operator(), progress=advance)
        if options["json"]:
            self.command.write_json(_as_json(report))
        else:
            self._show(report)
        if not report.is_closed:
            raise CommandError(report.sentence)

    def _show(self, report: ProbeReport) -> None:
        for title, findings in (("Crossings", report.crossings), ("Warnings", report.warnings)):
            if findings:
                self.command.write_line(f"{title}:")
                self.command.show(table(["tenants", "what", "through", "closed by"], map(_row, findings)))
        for problem in report.problems:
            self.command.write_line(f"Problem: {problem.text}")
        self.command.write_line(
            f"{counted(len(report.tenants), 'tenant')}, {counted(report.rights, 'right')} and "
            f"{counted(report.attempts, 'attempt')} ({counted(len(report.kinds), 'kind')}, isolation {report.mode}) in "
            f"{report.seconds:.1f} s: {counted(len(report.crossings), 'crossing')}, "
            f"{counted(len(report.warnings), 'warning')}, {counted(len(report.problems), 'problem')}."
        )


def _row(one: Finding) -> list[str]:
    named = ", ".join(one.tenants[:_NAMED]) + (f" and {len(one.tenants) - _NAMED} more" if one.tenants[_NAMED:] else "")
    return [named, one.right if one.kind == "attempt" else f"{one.right} on {one.object}", one.through, one.closes]


def _as_json(report: ProbeReport) -> dict[str, Any]:
    return asdict(report) | {"is_closed": report.is_closed}
