"""`python manage.py msinfo`: clusters, their processes and the tenants, on one screen."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser
from rich.console import RenderableType

from tenant_q import tenancy
from tenant_q.management import shown
from tenant_q.management.console import OperatorCommand, styled
from tenant_q.operations.site import Site, read_site

LISTED = 20


class Command(OperatorCommand):
    help = "Shows what runs and waits: clusters and their processes, and the tenants by load."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--schema", help="Only this tenant, and the processes that run something of it.")
        parser.add_argument("--limit", type=_limit, metavar="N", help=f"How many tenants; {LISTED} by default.")
        parser.add_argument("--sort", choices=shown.ORDERS, default="load", help="The order of the tenants.")
        super().add_arguments(parser)

    def act(self, options: dict[str, Any]) -> None:
        schema = options["schema"]
        site = read_site()
        if schema and site.tenant(schema) is None:
            tenancy.get_tenant(schema)  # says what is wrong with the name
        if options["json"]:
            self.answer(shown.as_json(site, schema))
        else:
            self.show(*self._parts(site, schema, options["sort"], options["limit"] or LISTED))

    def _parts(self, site: Site, schema: str | None, order: str, limit: int) -> list[RenderableType]:
        parts: list[RenderableType] = [shown.headline(site), ""]
        found = shown.processes(site.clusters, schema)
        if site.clusters:
            parts += [shown.cluster_table(site.clusters), "", shown.process_table(found), ""]
        else:
            parts += [styled("No cluster runs; start one with `python manage.py mscluster`.", "bold red"), ""]
        if deaths := shown.death_lines(site.clusters):
            parts += [*deaths, ""]
        tenants = [one for one in site.tenants if schema in (None, one.schema)]
        parts.append(shown.tenant_table(shown.in_order(tenants, order)[:limit]))
        if len(tenants) > limit:
            parts.append(f"The first {limit} of {len(tenants)} tenants; --limit N shows more, --sort another order.")
        return parts


def _limit(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
