"""`python manage.py msinfo`: show clusters, their processes and the tenants on one screen."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from rich.console import RenderableType

from tenant_q import tenancy
from tenant_q.management import site_tables
from tenant_q.management.console import OperatorCommand, positive_integer, styled
from tenant_q.operations.site import Site, read_site

LISTED = 20


class Command(OperatorCommand):
    help = "Shows the clusters with their processes, and the tenants by load."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--schema", help="Only this tenant, and the processes that run a task of it.")
        parser.add_argument(
            "--limit", type=positive_integer, metavar="N", help=f"The number of tenants; {LISTED} by default."
        )
        parser.add_argument("--sort", choices=site_tables.ORDERS, default="load", help="The order of the tenants.")
        super().add_arguments(parser)

    def perform(self, options: dict[str, Any]) -> None:
        schema = options["schema"]
        site = read_site()
        if schema and site.tenant(schema) is None:
            tenancy.get_tenant(schema)  # raises, with what is wrong with the name
        if options["json"]:
            self.write_json(site_tables.as_json(site, schema))
        else:
            self.show(*self._parts(site, schema, options["sort"], options["limit"] or LISTED))

    def _parts(self, site: Site, schema: str | None, order: str, limit: int) -> list[RenderableType]:
        parts: list[RenderableType] = [site_tables.headline(site), ""]
        found = site_tables.processes(site.clusters, schema)
        if site.clusters:
            parts += [site_tables.cluster_table(site.clusters), "", site_tables.process_table(found), ""]
        else:
            parts += [styled("No cluster is running; start one with `python manage.py mscluster`.", "bold red"), ""]
        if unserved := site_tables.unserved_lines(site):
            parts += [*unserved, ""]
        if deaths := site_tables.death_lines(site.clusters):
            parts += [*deaths, ""]
        tenants = [one for one in site.tenants if schema in (None, one.schema)]
        parts.append(site_tables.tenant_table(site_tables.in_order(tenants, order)[:limit]))
        if len(tenants) > limit:
            parts.append(f"The first {limit} of {len(tenants)} tenants; --limit N shows more, --sort another order.")
        return parts
