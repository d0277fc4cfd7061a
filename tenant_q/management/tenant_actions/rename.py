"""`mstenant rename`: rename a tenant's schema and keep its work."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit
from tenant_q.conf import conf
from tenant_q.management.tenant_action import TenantAction
from tenant_q.operations import renaming


class Action(TenantAction):
    help = "Renames a tenant's schema, and keeps its tasks, schedules, results, policy and configuration."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("new", nargs="?", metavar="NEW", help="The new name of its schema.")
        parser.add_argument(
            "--wait",
            type=float,
            default=None,
            metavar="SECONDS",
            help="The longest wait for its running tasks; TENANT_Q['grace'] by default.",
        )

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        new, wait = options["new"], options["wait"]
        if not new:
            raise CommandError("Give both names: `mstenant rename SCHEMA NEW`.")
        renaming.rename(schema, new, actor=audit.operator(), wait=conf().grace if wait is None else wait)
        if options["json"]:
            self.command.write_json({"schema": new, "was": schema})
        else:
            self.command.write_line(f"Renamed {schema} to {new}, and kept its tasks, schedules and results.")
