"""`python manage.py msdead`: the packages that were given up without a row, and what to do with them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import dead_letters, policies
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Broker, Dead
from tenant_q.conf import use_cluster
from tenant_q.management.console import OperatorCommand, at, table

# So many are listed unless all are asked for.
LISTED = 1000
EVERYTHING = 10**9


class Command(OperatorCommand):
    help = "Lists, retries or purges dead packages: of dropped tenants, with bad signatures, or that cannot be saved."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("act", nargs="?", choices=("list", "retry", "purge"), default="list")
        parser.add_argument("ids", nargs="*", metavar="ID", help="The packages to retry or purge.")
        parser.add_argument("--schema", help="Those of this tenant, also of one that is gone.")
        parser.add_argument("--all", action="store_true", help="All of them.")
        super().add_arguments(parser)
        parser.add_argument("-n", "--name", help="The cluster, instead of Q_CLUSTER's.")

    def act(self, options: dict[str, Any]) -> None:
        use_cluster(options["name"])
        broker = get_broker()
        if options["act"] == "list":
            self._list(broker, options)
        else:
            found = broker.dead(options["schema"], limit=EVERYTHING, ids=options["ids"] or None)
            self._act(broker, options["act"], _chosen(found, options), as_json=options["json"])

    def _list(self, broker: Broker, options: dict[str, Any]) -> None:
        found = broker.dead(options["schema"], limit=EVERYTHING if options["all"] else LISTED)
        if options["json"]:
            rows = [{name: getattr(dead, name) for name in ("id", "schema", "func", "cause")} for dead in found]
            self.answer([row | {"died": at(dead.died)} for row, dead in zip(rows, found, strict=True)])
            return
        if found:
            rows_shown = [(dead.id, dead.schema, at(dead.died), dead.func, dead.cause) for dead in found]
            self.show(table(("id", "schema", "died", "function", "cause"), rows_shown))
        more = " (--all lists more, if there are)" if len(found) == LISTED and not options["all"] else ""
        self.stdout.write(f"{len(found)} dead{more}" if found else "No dead packages.")

    def _act(self, broker: Broker, act: str, chosen: list[Dead], *, as_json: bool) -> None:
        do = dead_letters.retry if act == "retry" else dead_letters.purge
        count = do(broker, chosen, actor=policies.operator())
        if as_json:
            self.answer({"act": act, "count": count})
        else:
            self.stdout.write(f"{count} queued again" if act == "retry" else f"{count} purged")


def _chosen(found: list[Dead], options: dict[str, Any]) -> list[Dead]:
    ids = options["ids"]
    if not (ids or options["schema"] or options["all"]):
        raise CommandError(f"Say which packages to {options['act']}: their ids, --schema NAME, or --all.")
    missing = sorted(set(ids) - {dead.id for dead in found})
    if missing:
        raise CommandError(f"No dead package has the id {missing[0]}; `msdead list` shows those there are.")
    return found
