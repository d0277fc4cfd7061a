"""The names of tenants' database roles. Roles belong to a server, so a name contains that of the database."""

from __future__ import annotations

import hashlib

# PostgreSQL cuts longer names without an error.
MOST_BYTES = 63
_HASH = 10


def role_name(database: str, schema: str) -> str:
    """Return the name of a tenant's role: the database and the schema, cut to 63 bytes with a hash if it is longer.

    Args:
        database: The name of the database in PostgreSQL.
        schema: The name of the schema in PostgreSQL.
    """
    return _cut(f"{database}_{schema}")


def group_name(database: str) -> str:
    """Return the name of the group of all tenants' roles of a database, for lines of `pg_hba.conf`."""
    return _cut(f"tq_{database}")


def _cut(name: str) -> str:
    whole = name.encode()
    if len(whole) <= MOST_BYTES:
        return name
    end = hashlib.sha256(whole).hexdigest()[:_HASH]
    return f"{whole[: MOST_BYTES - _HASH - 1].decode(errors='ignore')}_{end}"
