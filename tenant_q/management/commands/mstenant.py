"""`python manage.py mstenant`: how tenants share the workers, shown and changed while clusters run."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit, policies
from tenant_q.brokers import site_brokers, uses_redis
from tenant_q.conf import conf
from tenant_q.management.console import OperatorCommand, table, words
from tenant_q.models import LEAST_WEIGHT, MOST_WEIGHT, TenantPolicy
from tenant_q.operations import renaming

_OPTIONS = {name: f"--{name.replace('_', '-')}" for name in policies.FIELDS if name != "paused"}
_COLUMNS = ("schema", "weight", "max_running", "max_queued", "max_results", "paused", "queued")


class Command(OperatorCommand):
    help = "Shows tenants' policies; pauses, resumes, weighs and limits a tenant, in force at once; renames a tenant."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("act", nargs="?", choices=("list", "pause", "resume", "limit", "rename"), default="list")
        parser.add_argument("schema", nargs="?", metavar="SCHEMA", help="The tenant.")
        parser.add_argument("new", nargs="?", metavar="NEW", help="With rename: the new name of its schema.")
        parser.add_argument(
            "--wait",
            type=float,
            default=None,
            metavar="SECONDS",
            help="With rename: how long to wait for its running tasks; TENANT_Q['grace'] by default.",
        )
        limits: dict[str, Any] = {"type": _limit, "default": argparse.SUPPRESS, "metavar": "N"}
        parser.add_argument(
            "--weight",
            type=_weight,
            default=argparse.SUPPRESS,
            metavar="W",
            help=f"Its share of worker time against others', from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}; 1 by default.",
        )
        parser.add_argument("--max-running", help="Workers that may be busy with it at once. 0: no limit.", **limits)
        parser.add_argument("--max-queued", help="Tasks of it that may wait. 0: no limit.", **limits)
        parser.add_argument("--max-results", help="Successes kept. 0: as many as save_limit says.", **limits)
        parser.add_argument("--all", action="store_true", help="List every tenant, also those without a policy.")
        parser.add_argument("--schema", dest="named", metavar="SCHEMA", help="The tenant, as with the other commands.")
        super().add_arguments(parser)

    def act(self, options: dict[str, Any]) -> None:
        act, schema = options["act"], options["schema"] or options["named"]
        if options["named"] not in (None, schema):
            raise CommandError(f"Two tenants are named, {schema} and {options['named']}; name one.")
        values = {name: options[name] for name in _OPTIONS if name in options}
        _refuse_what_does_not_fit(act, schema, values, every_tenant=options["all"])
        _refuse_other_than_rename(act, options["new"], options["wait"])
        if act == "rename":
            self._rename(schema, options["new"], options["wait"], as_json=options["json"])
        elif act == "list":
            self._list(schema, every_tenant=options["all"], as_json=options["json"])
        else:
            self._change(act, schema, values, as_json=options["json"])

    def _list(self, schema: str | None, *, every_tenant: bool, as_json: bool) -> None:
        found = [policies.policy_of(schema)] if schema else policies.policies(every_tenant=every_tenant)
        rows = [_row(policy, queued) for policy, queued in zip(found, _queued(found), strict=True)]
        if as_json:
            self.answer(rows)
        elif rows:
            heads = [name.replace("_", " ") for name in _COLUMNS]
            self.show(table(heads, [[row[name] for name in _COLUMNS] for row in rows], numbers=heads[1:]))
        else:
            self.say("No tenant has a policy; `mstenant list --all` shows those without one.")

    def _rename(self, old: str, new: str, wait: float | None, *, as_json: bool) -> None:
        seconds = conf().grace if wait is None else wait
        renaming.rename(old, new, actor=audit.operator(), wait=seconds)
        if as_json:
            self.answer({"schema": new, "was": old})
        else:
            self.stdout.write(f"{old} is {new} now; its tasks, schedules and results came along.")

    def _change(self, act: str, schema: str, values: dict[str, Any], *, as_json: bool) -> None:
        if act != "limit":
            values = {"paused": act == "pause"}
        policy = policies.change(schema, actor=audit.operator(), act=act, **values)
        row = _row(policy, *_queued([policy]))
        if as_json:
            self.answer(row)
        else:
            self.say(_sentence(act, row))


def _refuse_what_does_not_fit(act: str, schema: str | None, values: dict[str, Any], *, every_tenant: bool) -> None:
    if values and act != "limit":
        raise CommandError(f"{_OPTIONS[next(iter(values))]} belongs to `mstenant limit`, not to `mstenant {act}`.")
    if every_tenant and (act != "list" or schema):
        raise CommandError("--all belongs to `mstenant list` without a tenant; all else takes one tenant at a time.")
    if act != "list" and not schema:
        raise CommandError(f"Say which tenant: `mstenant {act} SCHEMA`; `mstenant list --all` shows those there are.")
    if act == "limit" and not values:
        raise CommandError(f"Nothing is to change for {schema}: give {', '.join(_OPTIONS.values())}.")


def _refuse_other_than_rename(act: str, new: str | None, wait: float | None) -> None:
    if act == "rename" and not new:
        raise CommandError("Give both names: `mstenant rename SCHEMA NEW`.")
    if act != "rename" and (new or wait is not None):
        raise CommandError(f"{new or '--wait'} belongs to `mstenant rename`, not to `mstenant {act}`.")


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
    """Return the number of queued tasks of each tenant, over all clusters; None if the broker has one queue for all."""
    if not uses_redis():
        return [None] * len(found)
    if len(found) == 1:
        return [sum(broker.queue_size(found[0].schema_name) for broker in site_brokers())]
    sizes: Counter[str] = Counter()
    for broker in site_brokers():
        sizes.update({schema: load.queued for schema, load in broker.loads().items()})
    return [sizes[policy.schema_name] for policy in found]


def _row(policy: TenantPolicy, queued: int | None) -> dict[str, Any]:
    return {"schema": policy.schema_name, **policies.values_of(policy), "queued": queued}


def _sentence(act: str, row: dict[str, Any]) -> str:
    """What is in force now."""
    schema, queued = row["schema"], row["queued"]
    head = f"{schema} is {'paused' if row['paused'] else 'not paused'}"
    if act == "limit":
        said = [f"{name.replace('_', ' ')} {words(row[name])}" for name in _OPTIONS]
        head = f"{schema} has {', '.join(said)}{' and is paused' if row['paused'] else ''}"
    if queued is None:
        return f"{head}."
    return f"{head}: " + ("1 task waits." if queued == 1 else f"{queued or 'no'} tasks wait.")
