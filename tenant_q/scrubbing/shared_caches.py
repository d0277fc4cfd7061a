"""Clear caches that do not distinguish tenants when another tenant is entered.

The tenancy packages themselves clear the cache of content types. A project clears its own caches in receivers of
`tenant_entered`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from django.apps import apps

from tenant_q.exceptions import TenantNotReady
from tenant_q.signals import tenant_entered
from tenant_q.support.forks import no_return


@functools.cache
def _clearers() -> tuple[Callable[[], object], ...]:
    """Return the functions that clear the caches of installed apps."""
    if not apps.is_installed("django.contrib.sites"):
        return ()
    from django.contrib.sites.models import Site

    return (Site.objects.clear_cache,)


def forget_other_tenants() -> None:
    """Clear the known caches, which may hold rows of the previous tenant."""
    for clear in _clearers():
        clear()


def has_receivers() -> bool:
    """Return whether the project has a receiver of `tenant_entered`."""
    return bool(tenant_entered.receivers)


def announce(schema: str) -> None:
    """Send `tenant_entered`.

    Raises:
        TenantNotReady: A receiver failed, so a cache may still hold rows of another tenant.
    """
    try:
        with no_return():
            tenant_entered.send(sender="tenant_q", schema=schema)
    except Exception as error:
        raise TenantNotReady(
            f"A receiver of tenant_entered failed for tenant {schema!r} ({type(error).__name__}: {error}); "
            "its tasks wait until the receiver succeeds."
        ) from error
