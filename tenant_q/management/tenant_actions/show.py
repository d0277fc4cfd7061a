"""`mstenant show`: show what is kept about a tenant."""

from __future__ import annotations

from typing import Any

from tenant_q.management import tenant_facts
from tenant_q.management.tenant_action import TenantAction
from tenant_q.operations.tenant_details import read_details


class Action(TenantAction):
    help = "Shows a tenant: policy, configuration, the state of its database role, its last probe, an open operation."

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        details = read_details(schema)
        if options["json"]:
            self.command.write_json(tenant_facts.details_as_json(details))
        else:
            self.command.show(*tenant_facts.detail_tables(details))
