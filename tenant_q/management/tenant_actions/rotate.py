"""`mstenant rotate`: give the role of a tenant, or of every tenant, a new password."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit
from tenant_q.management.console import moment
from tenant_q.management.progress import progress_line
from tenant_q.management.tenant_action import TenantAction
from tenant_q.provisioning import Rotation, Rotations, count_to_rotate, rotate_all, rotate_tenant


class Action(TenantAction):
    help = "Gives a tenant's role a new password. The old one is refused at once, and no task fails."
    all_help = "Rotate the passwords of all tenants; after an interruption, of those that are left."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--now",
            action="store_true",
            help="Also end the sessions that were opened with the old password. Tasks that use one fail.",
        )

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        done = rotate_tenant(schema, actor=audit.operator(), now=options["now"])
        if options["json"]:
            self.command.write_json(asdict(done))
        else:
            self.command.write_line(_sentence(done, now=options["now"]))

    def perform_all(self, options: dict[str, Any]) -> None:
        now, as_json = options["now"], options["json"]
        with progress_line(self.command.stderr, count_to_rotate(now=now), as_json=as_json) as line:

            def show(schema: str) -> None:
                line.at(schema)
                line.done()

            done = rotate_all(actor=audit.operator(), now=now, progress=show)
        if as_json:
            self.command.write_json(asdict(done))
        else:
            self._write(done, now=now)
        if done.failed:
            raise CommandError(
                f"{_tenants(len(done.failed))} left with the old password: {', '.join(sorted(done.failed))}; correct "
                "what is said about each, then run `mstenant rotate SCHEMA`."
            )

    def _write(self, done: Rotations, *, now: bool) -> None:
        if done.continues:
            self.command.write_line(f"Continued the rotation that was interrupted; it began {moment(done.continues)}.")
        ended = sum(one.ended for one in done.rotated)
        sessions = f", and ended {_sessions(ended)}" if now else ""
        self.command.write_line(f"Rotated the passwords of {_tenants(len(done.rotated))}{sessions}.")
        for schema, reason in sorted(done.failed.items()):
            self.command.write_line(f"{schema}: {reason}")


def _sentence(done: Rotation, *, now: bool) -> str:
    sessions = f", and ended {_sessions(done.ended)}" if now else ""
    return f"Rotated the password of {done.schema} to version {done.version}{sessions}."


def _sessions(count: int) -> str:
    return "1 session" if count == 1 else f"{count or 'no'} sessions"


def _tenants(count: int) -> str:
    return "1 tenant" if count == 1 else f"{count or 'no'} tenants"
