"""What `mstenant show` and `mstenant configure` write about a tenant. None of it is secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from tenant_q import policies
from tenant_q.conf import conf
from tenant_q.management.console import facts, moment, styled, words
from tenant_q.models import TenantRole
from tenant_q.operations.tenant_details import TenantDetails
from tenant_q.tenancy import TenantConfig

SHOWN = 1000
"""The characters of a value of a configuration that are shown."""
_STATE_STYLES: dict[str, str] = {
    TenantRole.State.PROVISIONING: "yellow",
    TenantRole.State.ACTIVE: "green",
    TenantRole.State.REPAIR: "bold red",
    TenantRole.State.LEAVING: "yellow",
}
_ROLE = ("role", "version", "state", "connection_limit", "problem", "probed", "crossings")
_OPERATION = ("kind", "step", "actor", "started")  # without its arguments, which are the project's


def details_as_json(details: TenantDetails) -> dict[str, Any]:
    """Return for `mstenant show` what is kept about a tenant as plain data."""
    role, operation = details.role, details.operation
    return {
        "schema": details.schema,
        "is_known": details.is_known,
        "policy": policies.values_of(details.policy),
        "configuration": details.configuration.as_json(),
        "isolation": conf().isolation,
        "role": None if role is None else {name: getattr(role, name) for name in _ROLE},
        "operation": None if operation is None else {name: getattr(operation, name) for name in _OPERATION},
        "advice": details.advice,
    }


def detail_tables(details: TenantDetails) -> Iterator[RenderableType]:
    """Yield the parts of the screen of `mstenant show`: what is kept about a tenant, and what it needs."""
    yield facts(
        {
            "tenant": details.schema if details.is_known else f"{details.schema} (no tenant)",
            **{name.replace("_", " "): value for name, value in policies.values_of(details.policy).items()},
            "isolation": conf().isolation,
            **_role_facts(details.role),
            **_operation_facts(details),
        }
    )
    if configured := configured_words(details.configuration):
        yield ""
        yield facts(configured)
    if details.advice:
        yield ""
        yield details.advice


def configured_words(config: TenantConfig) -> dict[str, str]:
    """Return a tenant's configuration by the keys that `mstenant configure` takes, with values as it takes them."""
    found = {"display_name": config.display_name} if config.display_name else {}
    for part in ("settings", "features", "limits"):
        found |= {f"{part}.{key}": value_words(value) for key, value in getattr(config, part).items()}
    return found


def value_words(value: Any) -> str:
    """Return a value of a tenant's configuration as JSON, of which the beginning is shown if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters; --json shows all)"


def _role_facts(role: TenantRole | None) -> dict[str, Any]:
    if role is None:
        return {"role": "none"}
    return {
        "role": f"{role.role}, version {role.version} of its password",
        "state": styled(role.state, _STATE_STYLES.get(role.state)),
        "connection limit": words(role.connection_limit),
        "problem": role.problem,
        "probe": _probe(role),
    }


def _probe(role: TenantRole) -> Any:
    if role.probed is None:
        return "never"
    crossings = role.crossings or 0
    counted = "1 crossing" if crossings == 1 else f"{crossings or 'no'} crossings"
    return styled(f"{moment(role.probed)}, {counted}", "bold red" if crossings else "green")


def _operation_facts(details: TenantDetails) -> dict[str, Any]:
    operation = details.operation
    if operation is None:
        return {}
    step = f"after step {operation.step}" if operation.step else "before its first step"
    return {"operation": f"{operation.kind}, {step}, since {moment(operation.started)}, by {operation.actor}"}
