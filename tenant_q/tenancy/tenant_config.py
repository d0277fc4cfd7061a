"""The configuration of a tenant, and how it is read together with the tenant's row."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from django.apps import apps
from django.db import ProgrammingError, transaction
from django.db.models import BooleanField, Func, OuterRef, Subquery, Value
from django.db.models.functions import JSONObject
from psycopg import sql

from tenant_q.tenancy.tenancy_package import database_alias, public_schema, tenant_connection

_MOST = 2**31 - 1
_NAMES = ("display_name", "settings", "features", "limits")


@dataclass(frozen=True)
class TenantConfig:
    """The configuration of a tenant. It is read-only: change it with `tenant_q.policies.configure`.

    Attributes:
        display_name: The tenant's name for people; empty if none is set.
        settings: What the project configures for the tenant.
        features: The features that are switched on or off for the tenant.
        limits: The limits of the tenant. tenant_q enforces `max_items`, `max_open_workflows` and `max_connections`;
            others are the project's.
    """

    display_name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _NAMES[1:]:  # copied, so that no task changes what another one gets
            object.__setattr__(self, name, MappingProxyType(copy.deepcopy(dict(getattr(self, name)))))

    def __reduce__(self) -> tuple[Any, ...]:
        return TenantConfig.from_json, (self.as_json(),)  # Python copies and pickles no read-only mapping

    def limit(self, name: str) -> int | None:
        """Return one of the limits that tenant_q enforces; None if the configuration has none.

        Args:
            name: `max_items`, `max_open_workflows` or `max_connections`. The database takes only whole numbers of at
                least 1 for these, but 5.0 is one too in JSON. One that PostgreSQL's integers cannot hold is cut.
        """
        found = self.limits.get(name)
        if isinstance(found, bool) or not isinstance(found, int | float) or found < 1:
            return None
        return min(int(found), _MOST)

    def as_json(self) -> dict[str, Any]:
        """Return the configuration as a JSON value, of which `from_json` makes an equal configuration."""
        values = {name: copy.deepcopy(dict(getattr(self, name))) for name in _NAMES[1:]}
        return {"display_name": self.display_name, **values}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> TenantConfig:
        """Return the configuration of which `as_json` made a value.

        Args:
            value: The value. Names that this version does not know are ignored, and missing ones are empty; None is
                an empty configuration.
        """
        return cls(**{name: found for name, found in (value or {}).items() if name in _NAMES})


EMPTY = TenantConfig()

# Whether the table of configurations was seen. An older version beside this one may not have migrated yet.
_is_table_there = False


def read_with_config(tenants: Any) -> list[tuple[Any, TenantConfig]]:
    """Read tenants, each with its configuration, by one statement. Tenants without a configuration have an empty one.

    The first time in a process, another statement finds the table of configurations. As long as the migration that
    makes it is not applied, all configurations are empty.

    Args:
        tenants: A queryset of tenants on the tenants' connection, which is in the public schema.
    """
    if not _is_table_there:
        found = _read_without(tenants)
        return _read(tenants) if _is_table_there else found
    try:
        return _read(tenants)
    except ProgrammingError:  # the migration may have been reversed
        forget()
        if tenant_connection().in_atomic_block:
            raise
    found = _read_without(tenants)
    return _read(tenants) if _is_table_there else found


def _read(tenants: Any) -> list[tuple[Any, TenantConfig]]:
    rows = apps.get_model("tenant_q", "TenantConfiguration")._default_manager.using(database_alias())
    own = rows.filter(schema_name=OuterRef("schema_name")).values(value=JSONObject(**{name: name for name in _NAMES}))
    found = list(tenants.annotate(tenant_q_config=Subquery(own)))
    return [(tenant, _config_of(vars(tenant).pop("tenant_q_config"))) for tenant in found]


def _config_of(value: dict[str, Any] | None) -> TenantConfig:
    return EMPTY if value is None else TenantConfig.from_json(value)


def _read_without(tenants: Any) -> list[tuple[Any, TenantConfig]]:
    """Read tenants with empty configurations, and find out whether the table of configurations is there."""
    global _is_table_there
    table = apps.get_model("tenant_q", "TenantConfiguration")._meta.db_table
    is_there: Func = Func(
        Value(sql.Identifier(public_schema(), table).as_string()),
        function="pg_catalog.to_regclass",
        template="%(function)s(%(expressions)s) IS NOT NULL",
        output_field=BooleanField(),
    )
    found = list(tenants.annotate(tenant_q_config=is_there))
    for tenant in found:
        _is_table_there = vars(tenant).pop("tenant_q_config")
    return [(tenant, EMPTY) for tenant in found]


class _AfterCommit:
    """A call after the commit of a changed configuration. Until then, what a look-up reads may yet be rolled back."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def __call__(self) -> None:
        self._act()


def note_change(act: Callable[[], None]) -> None:
    """Call `act` now, and when the transaction on the tenants' connection commits, which changes a configuration."""
    act()
    transaction.on_commit(_AfterCommit(act), using=database_alias())


def is_change_open() -> bool:
    """Return whether the open transaction on the tenants' connection has changed a configuration."""
    return any(isinstance(act, _AfterCommit) for _, act, _ in tenant_connection().run_on_commit)


def forget() -> None:
    """Forget whether the table of configurations is there."""
    global _is_table_there
    _is_table_there = False
