"""Serve a tenant: enter its schema for a number of its tasks, and leave the schema clean after each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tenant_q import tenancy
from tenant_q.package.package import Package
from tenant_q.scrubbing import sessions, shared_caches


@contextlib.contextmanager
def serving(schema: str, tenant: str | None) -> Iterator[None]:
    """Run a block in a tenant's verified schema. No tenant is current afterwards.

    Args:
        schema: The schema.
        tenant: The key of the tenant that must have it; None for the tenant that has it now.

    Raises:
        TenantUnavailable: The tenant cannot be served.
    """
    try:
        begin(schema, tenant)
        yield
    finally:
        tenancy.leave()


def begin(schema: str, tenant: str | None) -> None:
    """Enter a schema, and forget what the process remembers of the tenant before."""
    _enter(schema, tenant=tenant)
    shared_caches.forget_other_tenants()
    if shared_caches.has_receivers():
        announce(schema)
        _enter(schema, tenant=tenant)


def announce(schema: str) -> None:
    """Have the project's receivers clear its caches. What they leave in a session reaches no task and no hook."""
    sessions.watch()
    try:
        shared_caches.announce(schema)
    finally:
        sessions.clean_up()
        tenancy.leave()


def follow_options(package: Package) -> None:
    """Refresh the tenant's row, and enter the schema on more databases, where the options of a task say so."""
    seconds, databases = package.option("tenant_cache_seconds"), package.option("databases")
    if seconds is not None:
        tenancy.refresh_tenant(package.schema, seconds)
    if seconds is not None or databases:
        _enter(package.schema, databases, tenant=package.tenant or None)


def clean_up(schema: str, package: Package, *, is_last: bool) -> None:
    """Remove what a task left, so that the next task of its tenant finds the schema verified.

    Args:
        schema: The tenant's schema.
        package: The task that ran.
        is_last: Whether other code than this tenant's tasks may run next.
    """
    shared_caches.forget_other_tenants()
    if sessions.clean_up(package.log_labels, is_last=is_last):
        tenancy.leave()
        _enter(schema, tenant=package.tenant or None)
        sessions.watch()
    else:
        tenancy.enter_again(schema)


def _enter(schema: str, databases: tenancy.Databases = None, *, tenant: str | None = None) -> None:
    tenancy.enter(schema, databases)
    if schema != tenancy.public_schema():
        tenancy.require_ready(schema)
        tenancy.verify_entered(schema, databases, tenant=tenant)
