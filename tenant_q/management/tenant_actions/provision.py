"""`mstenant provision`: make a tenant with all it needs, or give existing tenants their roles."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit, tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import DatabaseAway, TenantQError
from tenant_q.management.console import table
from tenant_q.management.progress import ProgressLine, progress_line
from tenant_q.management.tenant_action import TenantAction
from tenant_q.provisioning import TenantCredentials, database_lock, provision_tenant, sessions_for_many
from tenant_q.support.plurals import counted


class Action(TenantAction):
    help = "Makes a tenant with its schema, tables and database role, or gives an existing one its role."
    all_help = "With --adopt: every tenant, one at a time, while the others run."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--domain", metavar="DOMAIN", help="The domain of the new tenant.")
        parser.add_argument(
            "--field",
            action="append",
            type=_field,
            default=[],
            dest="fields",
            metavar="NAME=VALUE",
            help="A value of the tenant model. May be given several times.",
        )
        parser.add_argument("--adopt", action="store_true", help="The tenant exists; give it its role.")
        parser.add_argument(
            "--no-probe", action="store_true", help="Do not try what the role can reach before it is used."
        )
        parser.add_argument(
            "--lock-database",
            action="store_true",
            help="Then let only roles that were granted CONNECT connect to the database.",
        )
        parser.add_argument(
            "--sure", action="store_true", help="With --lock-database: also if other roles log in, which it lists."
        )

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        self._require_lockable(options)
        with progress_line(self.command.stderr, None, as_json=options["json"]) as line:
            done = self._provision(schema, options, line)
        locked = self._lock(options)
        if options["json"]:
            self.command.write_json(_as_json(done, options) | locked)
            return
        role = f" Its role is {done.role}." if done.role else ""
        self.command.write_line(f"{'Adopted' if options['adopt'] else 'Provisioned'} {schema}.{role}")
        self._say_locked(locked)

    def perform_all(self, options: dict[str, Any]) -> None:
        if not options["adopt"] or options["fields"] or options["domain"]:
            raise CommandError("--all goes with --adopt, and without --domain and --field.")
        self._require_lockable(options)
        schemas, done, failed = tenancy.tenant_names(), [], {}
        with progress_line(self.command.stderr, len(schemas), as_json=options["json"]) as line, sessions_for_many():
            for schema in schemas:
                try:
                    done.append(self._provision(schema, options, line))
                except DatabaseAway:
                    raise
                except TenantQError as error:
                    failed[schema] = str(error)
                line.done()
        locked = {} if failed else self._lock(options)
        self._report(done, failed, locked, options)

    def _provision(self, schema: str, options: dict[str, Any], line: ProgressLine) -> TenantCredentials:
        return provision_tenant(
            schema,
            fields=dict(options["fields"]),
            domain=options["domain"],
            adopt=options["adopt"],
            actor=audit.operator(),
            probe=not options["no_probe"],
            progress=lambda step: line.at(f"{schema}: {step}"),
        )

    def _report(
        self, done: list[TenantCredentials], failed: dict[str, str], locked: dict[str, Any], options: dict[str, Any]
    ) -> None:
        if options["json"]:
            self.command.write_json({"adopted": [_as_json(one, options) for one in done], "failed": failed} | locked)
        else:
            for schema, reason in failed.items():
                self.command.write_line(f"{schema}: {reason}")
            self.command.write_line(f"Adopted {counted(len(done), 'tenant')}.")
            self._say_locked(locked)
        if failed:
            raise CommandError(
                f"Not adopted: {', '.join(failed)}; correct what is said about each, then run the same command again."
            )

    # --lock-database

    def _require_lockable(self, options: dict[str, Any]) -> None:
        """List the other roles that log in, and refuse unless the operator is sure."""
        if options["sure"] and not options["lock_database"]:
            raise CommandError("--sure belongs to --lock-database.")
        if not options["lock_database"]:
            return
        if conf().isolation == "path" and not conf().admin_database:
            raise CommandError("--lock-database needs tenants with roles; set TENANT_Q['admin_database'] first.")
        others = database_lock.roles_to_lock_out()
        if not others or options["sure"]:
            return
        if not options["json"]:
            self.command.show(table(["role", "sessions now"], [[one.name, one.sessions] for one in others]))
        names = ", ".join(one.name for one in others)
        raise CommandError(
            f"These roles could not connect any more: {names}; grant CONNECT to those that need it, or add --sure."
        )

    def _lock(self, options: dict[str, Any]) -> dict[str, Any]:
        if not options["lock_database"]:
            return {}
        database_lock.lock_database(actor=audit.operator())
        return {"locked_database": True}

    def _say_locked(self, locked: dict[str, Any]) -> None:
        if locked:
            self.command.write_line("Locked the database: only roles that were granted CONNECT can connect.")


def _field(text: str) -> tuple[str, str]:
    name, is_given, value = text.partition("=")
    if not is_given or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _as_json(done: TenantCredentials, options: dict[str, Any]) -> dict[str, Any]:
    """Return what `mstenant provision` writes of a tenant as JSON: nothing secret."""
    return {"schema": done.schema, "role": done.role, "adopted": bool(options["adopt"])}
