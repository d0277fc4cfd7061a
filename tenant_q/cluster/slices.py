"""A tenant's part of a batch: whose it is, and its schema, entered before it and left clean after each task."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tenant_q import tenancy
from tenant_q.brokers.protocol import Lease, queue_names
from tenant_q.exceptions import BadPackage
from tenant_q.package.package import Package, labels
from tenant_q.scrubbing import entering, sessions


@dataclass(frozen=True, slots=True)
class Slice:
    """The packages of one tenant in a batch. `tenant` is the tenant's key, None where its packages name none."""

    schema: str
    tenant: str | None
    waiting: list[tuple[Lease, Package]]


def slices_of(opened: Sequence[tuple[Lease, Package]]) -> list[Slice]:
    """Return a batch by tenant, each tenant's packages in their order, in the order of the tenants' turns."""
    slices: dict[tuple[str, str | None], Slice] = {}
    for lease, package in opened:
        tenant = package.tenant or None
        one = slices.setdefault((package.schema, tenant), Slice(package.schema, tenant, []))
        one.waiting.append((lease, package))
    return list(slices.values())


def located(one: Slice) -> Slice:
    """Return the slice with the name that the tenant's schema has now, where it was renamed."""
    if one.tenant is None or tenancy.keys_of([one.schema]).get(one.schema) == one.tenant:
        return one
    name = tenancy.current_name(one.schema, one.tenant)
    if name is None or name == one.schema:
        return one
    one.waiting[:] = [(lease, Package(package.task | {"schema_name": name})) for lease, package in one.waiting]
    return replace(one, schema=name)


def check_queue(lease: Lease, package: Package) -> None:
    """Raise `BadPackage` where a package was found in another queue than its tenant's."""
    tenant = package.tenant or None
    if not lease.schema or lease.schema in queue_names(package.schema, tenant):
        return
    names = tenancy.names_of(tenant) if tenant else []
    if not any(lease.schema in queue_names(name, tenant) for name in names):
        raise BadPackage(
            f"it belongs to tenant {package.schema!r} and was found in the queue of {lease.schema!r}; purge it, "
            "and find out who moved it"
        )


@contextlib.contextmanager
def in_verified_schema(schema: str, tenant: str | None) -> Iterator[None]:
    """Enter a schema, sure of it. Afterwards no tenant is current."""
    try:
        begin(schema, tenant)
        yield
    finally:
        tenancy.leave()


def begin(schema: str, tenant: str | None) -> None:
    """Enter a schema after another one: what the process remembers of that is forgotten."""
    _enter(schema, tenant=tenant)
    entering.forget_other_tenants()
    if entering.has_receivers():
        announce(schema)
        _enter(schema, tenant=tenant)


def announce(schema: str) -> None:
    """Have the project's receivers clear its caches; what they leave in the session reaches no task or hook."""
    sessions.watch()
    try:
        entering.announce(schema)
    finally:
        sessions.clean_up()
        tenancy.leave()


def _enter(schema: str, databases: tenancy.Databases = None, *, tenant: str | None = None) -> None:
    tenancy.enter(schema, databases)
    if schema != tenancy.public_schema():
        tenancy.require_ready(schema)
        tenancy.verify_entered(schema, databases, tenant=tenant)


def enter_as_asked(package: Package) -> None:
    """Follow the options of a task about its tenant's row and its databases."""
    seconds, databases = package.option("tenant_cache_seconds"), package.option("databases")
    if seconds is not None:
        tenancy.refresh_tenant(package.schema, seconds)
    if seconds is not None or databases:
        _enter(package.schema, databases, tenant=package.tenant or None)


def clean_up(schema: str, package: Package, *, is_last: bool) -> None:
    """After a task: nothing of it is left, and the next one of its tenant finds the schema verified."""
    entering.forget_other_tenants()
    if sessions.clean_up(labels(package), is_last=is_last):
        tenancy.leave()
        _enter(schema, tenant=package.tenant or None)
        sessions.watch()
    else:
        tenancy.enter_again(schema)
