"""`python manage.py mstenant`: show and change tenants' policies while clusters run, and rename tenants."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit, policies
from tenant_q.brokers import site_brokers
from tenant_q.conf import conf
from tenant_q.management.console import OperatorCommand, table, words
from tenant_q.models import LEAST_WEIGHT, MOST_WEIGHT, TenantPolicy
from tenant_q.operations import renaming

_OPTIONS = {name: f"--{name.replace('_', '-')}" for name in policies.FIELDS if name != "paused"}
_COLUMNS = ("schema", "weight", "max_running", "max_queued", "max_results", "paused", "queued")


class Command(OperatorCommand):
    help = "Shows tenants' policies; pauses, resumes, weights and limits a tenant, at once; renames a tenant."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=("list", "pause", "resume", "limit", "rename"), default="list")
        parser.add_argument("schema", nargs="?", metavar="SCHEMA", help="The tenant.")
        parser.add_argument("new", nargs="?", metavar="NEW", help="With rename: the new name of its schema.")
        parser.add_argument(
            "--wait",
            type=float,
            default=None,
            metavar="SECONDS",
            help="With rename: the longest wait for its running tasks; TENANT_Q['grace'] by default.",
        )
        limits: dict[str, Any] = {"type": _limit, "default": argparse.SUPPRESS, "metavar": "N"}
        parser.add_argument(
            "--weight",
            type=_weight,
            default=argparse.SUPPRESS,
            metavar="W",
            help=f"Its share of worker time relative to others, {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}; 1 by default.",
        )
        parser.add_argument("--max-running", help="The most workers that it may occupy at once. 0: no limit.", **limits)
        parser.add_argument("--max-queued", help="The most tasks of it that may wait. 0: no limit.", **limits)
        parser.add_argument("--max-results", help="The number of its successes to keep. 0: save_limit.", **limits)
        parser.add_argument("--all", action="store_true", help="List every tenant, even without a policy.")
        parser.add_argument("--schema", dest="named", metavar="SCHEMA", help="The tenant, as in the other commands.")
        super().add_arguments(parser)

    def perform(self, options: dict[str, Any]) -> None:
        action, schema = options["action"], options["schema"] or options["named"]
        if options["named"] not in (None, schema):
            raise CommandError(f"Two tenants are named, {schema} and {options['named']}; name one.")
        values = {name: options[name] for name in _OPTIONS if name in options}
        _check_options(action, schema, values, every_tenant=options["all"])
        _check_rename_options(action, options["new"], options["wait"])
        if action == "rename":
            self._rename(schema, options["new"], options["wait"], as_json=options["json"])
        elif action == "list":
            self._list(schema, every_tenant=options["all"], as_json=options["json"])
        else:
            self._change(action, schema, values, as_json=options["json"])

    def _list(self, schema: str | None, *, every_tenant: bool, as_json: bool) -> None:
        found = [policies.policy_of(schema)] if schema else policies.policies(every_tenant=every_tenant)
        rows = [_row(policy, queued) for policy, queued in zip(found, _queued(found), strict=True)]
        if as_json:
            self.write_json(rows)
        elif rows:
            heads = [name.replace("_", " ") for name in _COLUMNS]
            self.show(table(heads, [[row[name] for name in _COLUMNS] for row in rows], numbers=heads[1:]))
        else:
            self.write_line("No tenant has a policy; `mstenant list --all` lists every tenant.")

    def _rename(self, old: str, new: str, wait: float | None, *, as_json: bool) -> None:
        seconds = conf().grace if wait is None else wait
        renaming.rename(old, new, actor=audit.operator(), wait=seconds)
        if as_json:
            self.write_json({"schema": new, "was": old})
        else:
            self.stdout.write(f"Renamed {old} to {new}, and kept its tasks, schedules and results.")

    def _change(self, action: str, schema: str, values: dict[str, Any], *, as_json: bool) -> None:
        if action != "limit":
            values = {"paused": action == "pause"}
        policy = policies.change(schema, actor=audit.operator(), act=action, **values)
        row = _row(policy, *_queued([policy]))
        if as_json:
            self.write_json(row)
        else:
            self.write_line(_sentence(action, row))


def _check_options(action: str, schema: str | None, values: dict[str, Any], *, every_tenant: bool) -> None:
    if values and action != "limit":
        raise CommandError(f"{_OPTIONS[next(iter(values))]} belongs to `mstenant limit`, not to `mstenant {action}`.")
    if every_tenant and (action != "list" or schema):
        raise CommandError("--all belongs to `mstenant list` without a tenant; all else takes one tenant at a time.")
    if action != "list" and not schema:
        raise CommandError(f"Name the tenant: `mstenant {action} SCHEMA`; `mstenant list --all` lists every tenant.")
    if action == "limit" and not values:
        raise CommandError(f"Nothing to change for {schema}: give one of {', '.join(_OPTIONS.values())}.")


def _check_rename_options(action: str, new: str | None, wait: float | None) -> None:
    if action == "rename" and not new:
        raise CommandError("Give both names: `mstenant rename SCHEMA NEW`.")
    if action != "rename" and (new or wait is not None):
        raise CommandError(f"{new or '--wait'} belongs to `mstenant rename`, not to `mstenant {action}`.")


def _limit(text: str) -> int | None:
    if text.lower() in ("0", "none"):
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; give 1 or more, or 0 for no limit") from None


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number; give one from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}"
        ) from None


def _queued(found: Sequence[TenantPolicy]) -> list[int | None]:
    """Return for `mstenant` each tenant's queued tasks in all clusters; None if the broker has one queue for all."""
    brokers = site_brokers()
    if not all(broker.supports_tenant_queues for broker in brokers):
        return [None] * len(found)
    if len(found) == 1:
        return [sum(broker.queue_size(found[0].schema_name) for broker in brokers)]
    sizes: Counter[str] = Counter()
    for broker in brokers:
        sizes.update({schema: load.queued for schema, load in broker.loads().items()})
    return [sizes[policy.schema_name] for policy in found]


def _row(policy: TenantPolicy, queued: int | None) -> dict[str, Any]:
    return {"schema": policy.schema_name, **policies.values_of(policy), "queued": queued}


def _sentence(action: str, row: dict[str, Any]) -> str:
    """Return in a sentence of `mstenant` the policy of the tenant that is in force now."""
    schema, queued = row["schema"], row["queued"]
    head = f"{schema} is {'paused' if row['paused'] else 'not paused'}"
    if action == "limit":
        said = [f"{name.replace('_', ' ')} {words(row[name])}" for name in _OPTIONS]
        head = f"{schema} has {', '.join(said)}{' and is paused' if row['paused'] else ''}"
    if queued is None:
        return f"{head}."
    return f"{head}: " + ("1 task waits." if queued == 1 else f"{queued or 'no'} tasks wait.")
