"""`python manage.py msdead`: the packages that were given up without a row, and what to do with them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenant_q import dead_letters, policies
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Broker, Dead
from tenant_q.conf import use_cluster
from tenant_q.exceptions import TenantQError

# So many are listed unless all are asked for.
LISTED = 1000
EVERYTHING = 10**9


class Command(BaseCommand):
    help = "Lists, retries or purges dead packages: of dropped tenants, with bad signatures, or that cannot be saved."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("act", nargs="?", choices=("list", "retry", "purge"), default="list")
        parser.add_argument("ids", nargs="*", metavar="ID", help="The packages to retry or purge.")
        parser.add_argument("--schema", help="Those of this tenant, also of one that is gone.")
        parser.add_argument("--all", action="store_true", help="All of them.")
        parser.add_argument("--json", action="store_true", help="List as JSON.")
        parser.add_argument("-n", "--name", help="The cluster, instead of Q_CLUSTER's.")

    def handle(self, *args: Any, **options: Any) -> None:
        use_cluster(options["name"])
        try:
            broker = get_broker()
            if options["act"] == "list":
                self._list(broker, options)
            else:
                found = broker.dead(options["schema"], limit=EVERYTHING)
                self._act(broker, options["act"], _chosen(found, options))
        except TenantQError as error:
            raise CommandError(str(error)) from error

    def _list(self, broker: Broker, options: dict[str, Any]) -> None:
        found = broker.dead(options["schema"], limit=EVERYTHING if options["all"] else LISTED)
        if options["json"]:
            rows = [{name: getattr(dead, name) for name in ("id", "schema", "func", "died", "cause")} for dead in found]
            self.stdout.write(json.dumps(rows, indent=2))
            return
        for dead in found:
            when = datetime.fromtimestamp(dead.died, UTC).strftime("%Y-%m-%d %H:%M:%S")
            self.stdout.write(f"{dead.id}  {dead.schema:<20}  {when}  {dead.func}")
            self.stdout.write(f"    {dead.cause}")
        more = " (--all lists more, if there are)" if len(found) == LISTED and not options["all"] else ""
        self.stdout.write(f"{len(found)} dead{more}" if found else "No dead packages.")

    def _act(self, broker: Broker, act: str, chosen: list[Dead]) -> None:
        do = dead_letters.retry if act == "retry" else dead_letters.purge
        count = do(broker, chosen, actor=policies.operator())
        self.stdout.write(f"{count} queued again" if act == "retry" else f"{count} purged")


def _chosen(found: list[Dead], options: dict[str, Any]) -> list[Dead]:
    ids = options["ids"]
    if not (ids or options["schema"] or options["all"]):
        raise CommandError(f"Say which packages to {options['act']}: their ids, --schema NAME, or --all.")
    missing = sorted(set(ids) - {dead.id for dead in found})
    if missing:
        raise CommandError(f"No dead package has the id {missing[0]}; `msdead list` shows those there are.")
    return [dead for dead in found if not ids or dead.id in ids]
