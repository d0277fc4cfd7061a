"""Divide a batch into slices, one for each tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tenant_q import tenancy
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.package.package import Package


@dataclass(frozen=True, slots=True)
class Slice:
    """The deliveries of one tenant in a batch, in the order in which they run.

    `tenant` is the tenant's key, or None if its packages name none. `waiting` are the deliveries that have not been
    started; the worker removes each when it has run.
    """

    schema: str
    tenant: str | None
    waiting: list[Delivery]


def by_tenant(deliveries: Sequence[Delivery]) -> list[Slice]:
    """Divide a batch into slices, one for each tenant, in the order of their first deliveries."""
    slices: dict[tuple[str, str | None], Slice] = {}
    for delivery in deliveries:
        schema, tenant = delivery.package.schema, delivery.package.tenant or None
        slices.setdefault((schema, tenant), Slice(schema, tenant, [])).waiting.append(delivery)
    return list(slices.values())


def located(one: Slice) -> Slice:
    """Return a slice with the present name of its tenant's schema.

    It may have been renamed. The slice of the public schema may belong to the tenant to which its tables were moved.
    """
    if one.schema == tenancy.public_schema():
        return _moved_from_public(one)
    if one.tenant is None or tenancy.keys_of([one.schema]).get(one.schema) == one.tenant:
        return one
    name = tenancy.current_name(one.schema, one.tenant)
    if name is None or name == one.schema:
        return one
    return _readdressed(one, name, one.tenant)


def _moved_from_public(one: Slice) -> Slice:
    """Return the slice of the public schema, or the one of the tenant that has its tasks now."""
    successor = tenancy.successor_of_public()
    return one if successor is None else _readdressed(one, *successor)


def _readdressed(one: Slice, schema: str, tenant: str) -> Slice:
    """Return a slice whose packages are those of a tenant under its present name."""
    address = {"schema_name": schema, "tenant": tenant}
    one.waiting[:] = [replace(delivery, package=Package(delivery.package.task | address)) for delivery in one.waiting]
    return replace(one, schema=schema, tenant=tenant)
