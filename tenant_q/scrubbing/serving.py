"""Serve a tenant: enter its schema for a number of its tasks, and leave the schema clean after each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tenant_q import tenancy
from tenant_q.package.package import Package
from tenant_q.scrubbing import sessions, shared_caches


@contextlib.contextmanager
def in_schema(schema: str, tenant: str | None) -> Iterator[None]:
    """Run a block of the project's code for a tenant, in its verified schema and as its role; then leave it.

    Arguments and errors are those of `serving`. The tenant need not be ready, and no cache is cleared.
    """
    try:
        tenancy.enter(schema)
        tenancy.verify_entered(schema, tenant=tenant, role=tenancy.role_to_verify(schema))
        tenancy.serve(schema)
        yield
    finally:
        _leave()


@contextlib.contextmanager
def serving(schema: str, tenant: str | None) -> Iterator[None]:
    """Run a block that serves a tenant, in its verified schema. No tenant is current afterwards.

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
        _leave()


def begin(schema: str, tenant: str | None) -> None:
    """Begin to serve a tenant: enter its schema, and clear the caches of the tenant served before."""
    _enter(schema, tenant=tenant)
    shared_caches.clear_known_caches()
    if shared_caches.project_clears_caches():
        announce(schema)
        _enter(schema, tenant=tenant)


def announce(schema: str) -> None:
    """Announce the tenant that is served from now on, so that the project clears its caches.

    What the project's receivers leave in a session reaches no task and no hook.
    """
    sessions.watch()
    try:
        shared_caches.have_project_clear_caches(schema)
    finally:
        sessions.clean_up()
        tenancy.leave()


def follow_options(package: Package) -> None:
    """Serve a tenant as the options of its task say: with a fresh row, or on more databases."""
    seconds, databases = package.option("tenant_cache_seconds"), package.option("databases")
    if seconds is not None:
        tenancy.refresh_tenant(package.schema, seconds)
    if seconds is not None or databases:
        _enter(package.schema, databases, tenant=package.tenant or None)
        if tenancy.is_isolated():  # the connections and their settings are others now
            sessions.watch()


def clean_up(schema: str, package: Package, *, is_last: bool) -> None:
    """Clean up after a task of the served tenant, so that its next task finds the schema verified.

    Args:
        schema: The tenant's schema.
        package: The task that ran.
        is_last: Whether other code than this tenant's tasks may run next.
    """
    shared_caches.clear_known_caches()
    if sessions.clean_up(package.log_labels, is_last=is_last):
        if tenancy.logs_in():  # the rights of the tenant's own session need no further verification
            tenancy.enter(schema)
        else:
            tenancy.leave()
            _enter(schema, tenant=package.tenant or None)
        sessions.watch()
    else:
        tenancy.enter_again(schema)


def _leave() -> None:
    """Leave the served tenant. A session that a thread of its task has opened since the last clean-up ends with it."""
    tenancy.leave()
    if tenancy.is_isolated():
        tenancy.leave_in_other_threads()


def _enter(schema: str, databases: tenancy.Databases = None, *, tenant: str | None = None) -> None:
    """Enter a schema as the owner, verify it, and act as the tenant's role from then on."""
    tenancy.leave_role()
    tenancy.admit_owner(databases or ())
    tenancy.enter(schema, databases)
    if schema == tenancy.public_schema():
        tenancy.require_public_tasks()
    else:
        tenancy.require_ready(schema)
        tenancy.verify_entered(schema, databases, tenant=tenant, role=tenancy.role_to_verify(schema))
    tenancy.serve(schema, databases)
