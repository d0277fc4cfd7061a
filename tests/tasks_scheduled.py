"""Functions with schedules in code, which the tests declare themselves."""

from __future__ import annotations

from typing import Any


def report(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def other() -> None:
    """Do nothing."""


def north(tenants: Any) -> Any:
    """Choose tenants by a queryset."""
    return tenants.filter(schema_name="acme_corp")


def by_name(tenants: Any) -> list[str]:
    """Choose tenants by their schema names."""
    return ["globex_inc", "nobody"]


def fails(tenants: Any) -> Any:
    """Choose no tenants."""
    raise LookupError("no list")
