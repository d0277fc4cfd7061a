"""Clear the caches that all tenants share when another tenant is entered.

Their keys do not distinguish tenants, so they may hold rows of the tenant before.

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
def _cache_clearers() -> tuple[Callable[[], object], ...]:
    """Return the functions that clear those caches of installed apps that all tenants share."""
    if not apps.is_installed("django.contrib.sites"):
        return ()
    from django.contrib.sites.models import Site

    return (Site.objects.clear_cache,)


def clear_known_caches() -> None:
    """Clear the known caches that all tenants share, which may hold rows of the tenant before."""
    for clear in _cache_clearers():
        clear()


def project_clears_caches() -> bool:
    """Return whether the project has a receiver of `tenant_entered` to clear the caches that its tenants share."""
    return bool(tenant_entered.receivers)


def have_project_clear_caches(schema: str) -> None:
    """Send `tenant_entered`, so that the project clears the caches that its tenants share.

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
