"""How `mstenant` shows and changes tenants' policies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Unpack

from tenant_q import audit, policies
from tenant_q.brokers import site_brokers
from tenant_q.management.console import OperatorCommand, words
from tenant_q.models import TenantPolicy

LIMITS = tuple(name for name in policies.FIELDS if name != "paused")
"""The values of a policy that `mstenant limit` sets."""
RARE = ("success_days", "max_failures", "failure_days")
"""Those that are only shown where they are set."""


def change(
    command: OperatorCommand, schema: str, act: str, *, as_json: bool, **values: Unpack[policies.Values]
) -> None:
    """Change a tenant's policy for `mstenant`, and write which one is in force now.

    Args:
        command: The command that runs.
        schema: The tenant.
        act: The name of the change in the audit trail, such as "pause".
        as_json: Whether to write JSON.
        values: The new values.

    Raises:
        TenantQError: The policy could not be changed or put in force.
    """
    policy = policies.change(schema, actor=audit.operator(), act=act, **values)
    (row,) = policy_rows([policy])
    if as_json:
        command.write_json(row)
    else:
        command.write_line(_sentence(act, row))


def policy_rows(found: Sequence[TenantPolicy]) -> list[dict[str, Any]]:
    """Return policies as `mstenant` lists them, each with the number of the tenant's queued tasks."""
    return [
        {"schema": policy.schema_name, **policies.values_of(policy), "queued": queued}
        for policy, queued in zip(found, _queued(found), strict=True)
    ]


def _queued(found: Sequence[TenantPolicy]) -> list[int | None]:
    """Return for `mstenant` each tenant's queued tasks in all clusters; None if the broker has one queue for all."""
    brokers = site_brokers()
    if not all(broker.supports_tenant_queues for broker in brokers):
        return [None] * len(found)
    if len(found) == 1:
        return [sum(broker.queue_size(found[0].schema_name) for broker in brokers)]
    sizes: Counter[str] = Counter()
    for broker in brokers:
        sizes.update({schema: load.queued for schema, load in broker.loads().items()})
    return [sizes[policy.schema_name] for policy in found]


def _sentence(act: str, row: dict[str, Any]) -> str:
    """Return in a sentence of `mstenant` the policy of the tenant that is in force now."""
    schema, queued = row["schema"], row["queued"]
    head = f"{schema} is {'paused' if row['paused'] else 'not paused'}"
    if act == "limit":
        shown = [name for name in LIMITS if name not in RARE or row[name] is not None]
        said = [f"{name.replace('_', ' ')} {words(row[name])}" for name in shown]
        head = f"{schema} has {', '.join(said)}{' and is paused' if row['paused'] else ''}"
    if queued is None:
        return f"{head}."
    return f"{head}: " + ("1 task waits." if queued == 1 else f"{queued or 'no'} tasks wait.")
