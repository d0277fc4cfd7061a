"""`mstenant resume`: start a paused tenant's tasks again."""

from __future__ import annotations

from typing import Any

from tenant_q.management import tenant_policies
from tenant_q.management.tenant_action import TenantAction


class Action(TenantAction):
    help = "Resumes a tenant that was paused."

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        tenant_policies.change(self.command, schema, self.name, as_json=options["json"], paused=False)
