"""Tasks that read the configuration of their tenant."""

from __future__ import annotations

from typing import Any

from tenant_q import policies, tenancy


def feature(name: str) -> Any:
    return tenancy.config().features.get(name)


async def feature_in_a_coroutine(name: str) -> Any:
    return tenancy.config().features.get(name)


async def feature_of_another(schema: str, name: str) -> Any:
    return tenancy.config(schema).features.get(name)


def spoil_the_list() -> list[Any]:
    tenancy.config().settings["list"].append("spoilt")
    return tenancy.config().settings["list"]


def configure(schema: str, **features: Any) -> Any:
    policies.configure(schema, actor="a task", features=features)
    return dict(tenancy.config(schema).features)
