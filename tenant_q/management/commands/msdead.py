"""`python manage.py msdead`: list, retry or purge dead packages."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit
from tenant_q.brokers import get_broker, site_brokers
from tenant_q.brokers.protocol import Broker, Dead
from tenant_q.conf import use_cluster
from tenant_q.management.console import OperatorCommand, table
from tenant_q.operations import dead_letters
from tenant_q.support.moments import at

LISTED = 1000
"""The most packages that are listed without `--all`."""
EVERYTHING = 10**9


class Command(OperatorCommand):
    help = "Lists, retries or purges dead packages: of dropped tenants, with bad signatures, or that cannot be saved."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=("list", "retry", "purge"), default="list")
        parser.add_argument("ids", nargs="*", metavar="ID", help="The packages to retry or purge.")
        parser.add_argument("--schema", help="The packages of this tenant, which may be gone.")
        parser.add_argument("--all", action="store_true", help="All packages.")
        super().add_arguments(parser)
        parser.add_argument("-n", "--name", help="The packages of this cluster, instead of all clusters of the site.")

    def perform(self, options: dict[str, Any]) -> None:
        use_cluster(options["name"])
        brokers = [get_broker()] if options["name"] else site_brokers()
        if options["action"] == "list":
            self._list(brokers, options)
        else:
            ids = options["ids"] or None
            found = {one: one.dead(options["schema"], limit=EVERYTHING, ids=ids) for one in brokers}
            _require_choice(found, options)
            self._change(found, options["action"], as_json=options["json"])

    def _list(self, brokers: list[Broker], options: dict[str, Any]) -> None:
        limit = EVERYTHING if options["all"] else LISTED
        found = [(one.cluster, dead) for one in brokers for dead in one.dead(options["schema"], limit=limit)]
        found = sorted(found, key=lambda one: one[1].died)[:limit]
        if options["json"]:
            self.write_json([_as_json(cluster, dead) for cluster, dead in found])
            return
        if found:
            rows = [(dead.id, dead.schema, cluster, at(dead.died), dead.func, dead.cause) for cluster, dead in found]
            self.show(table(("id", "schema", "cluster", "died", "function", "cause"), rows))
        more = " (--all lists more, if there are)" if len(found) == LISTED and not options["all"] else ""
        self.write_line(f"{len(found)} dead{more}" if found else "No dead packages.")

    def _change(self, found: dict[Broker, list[Dead]], action: str, *, as_json: bool) -> None:
        change = dead_letters.retry if action == "retry" else dead_letters.purge
        count = sum(change(broker, chosen, actor=audit.operator()) for broker, chosen in found.items())
        if as_json:
            self.write_json({"act": action, "count": count})
        else:
            self.write_line(f"{count} queued again" if action == "retry" else f"{count} purged")


def _as_json(cluster: str, dead: Dead) -> dict[str, Any]:
    texts = {"id": dead.id, "schema": dead.schema, "cluster": cluster, "func": dead.func, "cause": dead.cause}
    return texts | {"died": at(dead.died)}


def _require_choice(found: dict[Broker, list[Dead]], options: dict[str, Any]) -> None:
    ids = options["ids"]
    if not (ids or options["schema"] or options["all"]):
        raise CommandError(f"Name the packages to {options['action']}: their ids, --schema NAME, or --all.")
    missing = sorted(set(ids) - {dead.id for own in found.values() for dead in own})
    if missing:
        raise CommandError(f"No dead package has the id {missing[0]}; `msdead list` shows the ids.")
