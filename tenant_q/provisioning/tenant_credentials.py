"""The credentials of a tenant's role. They are computed, and neither stored nor shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from tenant_q import tenancy
from tenant_q.tenancy.credentials import password_of


@dataclass(frozen=True, slots=True)
class TenantCredentials:
    """What code that works for one tenant only needs to log in as its role. The `repr` hides what is secret.

    Attributes:
        schema: The schema name of the tenant.
        role: The name of its role; None if tenants have no roles, and then there are no password and no URL.
        password: The password of the role, until the next rotation.
        url: A URL of the tenants' database for the role.
    """

    schema: str
    role: str | None
    password: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)


def credentials_of(schema: str, role: str, version: int, database: str) -> TenantCredentials:
    """Return the credentials of a tenant's role. Raises `ConfigurationError` as `password_of`."""
    password = password_of(database, role, version)
    return TenantCredentials(schema, role, password, _url(role, password, database))


def _url(role: str, password: str, database: str) -> str:
    settings = tenancy.tenant_connection().settings_dict
    host, port = str(settings.get("HOST") or ""), str(settings.get("PORT") or "")
    login = f"{quote(role, safe='')}:{quote(password, safe='')}"
    if host.startswith("/"):  # the directory of a socket
        options = {"host": host} | ({"port": port} if port else {})
        return f"postgresql://{login}@/{quote(database, safe='')}?{urlencode(options)}"
    place = f"[{host}]" if ":" in host else host
    return f"postgresql://{login}@{place}{':' + port if port else ''}/{quote(database, safe='')}"
