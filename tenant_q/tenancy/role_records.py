"""The roles of tenants as tenant_q has recorded them, read together with the tenants' rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db.models import OuterRef, Subquery
from django.db.models.functions import JSONObject

from tenant_q.conf import conf
from tenant_q.tenancy.tenancy_package import database_alias

_NAMES = ("role", "version", "state", "connection_limit")


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """The role of a tenant. See `tenant_q.models.TenantRole` for the attributes."""

    role: str
    version: int
    state: str
    connection_limit: int | None

    @property
    def is_active(self) -> bool:
        """Whether the tenant may be served as its role."""
        return self.state == "active"


def rows() -> Any:
    """Return a queryset of the records of roles. The tenants' connection must act as the owner, in public."""
    return apps.get_model("tenant_q", "TenantRole")._default_manager.using(database_alias())


def with_role(tenants: Any) -> Any:
    """Return a queryset of tenants that also reads their roles; the same queryset if no tenant has a role."""
    if conf().isolation == "path":
        return tenants
    own = rows().filter(schema_name=OuterRef("schema_name")).values(value=JSONObject(**{name: name for name in _NAMES}))
    return tenants.annotate(tenant_q_role=Subquery(own))


def pop_role(tenant: Any) -> RoleRecord | None:
    """Remove the role from a tenant that `with_role` has read, and return it."""
    value = vars(tenant).pop("tenant_q_role", None)
    return None if value is None else RoleRecord(**value)
