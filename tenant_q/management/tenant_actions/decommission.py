"""`mstenant decommission`: remove a tenant with all that it has."""

from __future__ import annotations

import argparse
import math
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit
from tenant_q.management.progress import progress_line
from tenant_q.management.tenant_action import TenantAction
from tenant_q.provisioning import Decommissioned, decommission_tenant
from tenant_q.support.plurals import counted


class Action(TenantAction):
    help = "Removes a tenant with its schema, role, tasks and all else that it has. The audit trail stays."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--yes", action="store_true", help="Do it. Without this option nothing is removed.")
        parser.add_argument("--keep-schema", action="store_true", help="Keep the schema with its data.")
        parser.add_argument(
            "--drain",
            type=_seconds,
            default=30.0,
            metavar="SECONDS",
            help="The longest wait for its running tasks; 30 by default.",
        )

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        keep_schema, as_json = options["keep_schema"], options["json"]
        if not options["yes"]:
            data = "; its schema is kept" if keep_schema else " with its schema and all data in it"
            raise CommandError(f"This removes tenant {schema}{data}; add --yes to do it.")
        with progress_line(self.command.stderr, None, as_json=as_json) as line:
            done = decommission_tenant(
                schema,
                actor=audit.operator(),
                keep_schema=keep_schema,
                drain=options["drain"],
                progress=lambda text: line.at(f"{schema}: {text}"),
            )
        if as_json:
            self.command.write_json(
                {"schema": schema, "role": done.role, "kept_schema": done.kept_schema, "cancelled": done.cancelled}
            )
        else:
            self.command.write_line(_sentence(done))


def _sentence(done: Decommissioned) -> str:
    """Return in a sentence of `mstenant` what a decommissioning has removed."""
    if not done.is_new:
        return f"{done.schema} was decommissioned before; nothing of it is left."
    parts = ["its row" if done.kept_schema else "its row, its schema"]
    parts += [f"its role {done.role}"] if done.role else []
    parts += [f"{counted(done.cancelled, 'task')} that waited"]
    kept = "; its schema is kept" if done.kept_schema else ""
    return f"Decommissioned {done.schema}: removed {', '.join(parts[:-1])} and {parts[-1]}{kept}."


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds; give 0 or more")
    return seconds
