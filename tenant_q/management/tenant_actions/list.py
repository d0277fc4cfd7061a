"""`mstenant list`: list tenants with their policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenant_q import policies
from tenant_q.management.console import table
from tenant_q.management.tenant_action import TenantAction
from tenant_q.management.tenant_policies import RARE, policy_rows
from tenant_q.models import TenantPolicy

_COLUMNS = ("schema", *policies.FIELDS, "queued")


class Action(TenantAction):
    help = "Lists tenants with a policy, and how many of their tasks wait. This is the default."
    needs_tenant = False
    all_help = "List every tenant, even without a policy."

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        self._list([policies.policy_of(schema)], as_json=options["json"])

    def perform_all(self, options: dict[str, Any]) -> None:
        self._list(policies.policies(every_tenant=options["all"]), as_json=options["json"])

    def _list(self, found: Sequence[TenantPolicy], *, as_json: bool) -> None:
        rows = policy_rows(found)
        if as_json:
            self.command.write_json(rows)
        elif rows:
            names = [name for name in _COLUMNS if name not in RARE or any(row[name] is not None for row in rows)]
            heads = [name.replace("_", " ") for name in names]
            self.command.show(table(heads, [[row[name] for name in names] for row in rows], numbers=heads[1:]))
        else:
            self.command.write_line("No tenant has a policy; `mstenant list --all` lists every tenant.")
