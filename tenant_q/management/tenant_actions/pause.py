"""`mstenant pause`: start none of a tenant's tasks."""

from __future__ import annotations

from typing import Any

from tenant_q.management import tenant_policies
from tenant_q.management.tenant_action import TenantAction


class Action(TenantAction):
    help = "Pauses a tenant: no worker starts any of its tasks, and those that run continue."

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        tenant_policies.change(self.command, schema, self.name, as_json=options["json"], paused=True)
