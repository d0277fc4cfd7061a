"""The tables of the public schema that tenants' roles may use: `TENANT_Q["shared_read"]` and `["shared_write"]`."""

from __future__ import annotations

from dataclasses import dataclass

from django.apps import apps
from psycopg import sql

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError


@dataclass(frozen=True, slots=True)
class SharedTables:
    """The shared tables, qualified and quoted. Those that may be written may be read too, and are not in `readable`."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]

    def named(self) -> tuple[str, ...]:
        """Return all of the shared tables."""
        return (*self.readable, *self.writable)


def shared_tables() -> SharedTables:
    """Return the tables that the settings share with all tenants.

    Raises:
        ConfigurationError: A setting names a model that is not installed, or a table of tenant_q.
    """
    writable = _paths("shared_write", conf().shared_write)
    readable = _paths("shared_read", conf().shared_read)
    return SharedTables(tuple(path for path in readable if path not in writable), writable)


def _paths(key: str, names: tuple[str, ...]) -> tuple[str, ...]:
    tables = sorted({_table(key, name) for name in names})
    return tuple(sql.Identifier(tenancy.public_schema(), table).as_string() for table in tables)


def _table(key: str, name: str) -> str:
    table = name
    if "." in name:
        try:
            table = apps.get_model(name)._meta.db_table
        except LookupError as error:
            raise ConfigurationError(
                f"TENANT_Q[{key!r}] names {name!r}, which is no installed model; name one as 'app_label.Model', or a "
                "table of the public schema by its name."
            ) from error
    if table.startswith("tenant_q_"):
        raise ConfigurationError(
            f"TENANT_Q[{key!r}] names {name!r}, a table of tenant_q, through which a tenant would reach others; "
            "remove it."
        )
    return table
