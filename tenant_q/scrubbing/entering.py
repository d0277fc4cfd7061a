"""What a process remembers of one tenant and must not answer another with: caches that know no tenants.

Content types are forgotten by the tenancy packages themselves. A project's own caches are cleared by its receivers of
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
    """What clears the caches of apps that are installed."""
    if not apps.is_installed("django.contrib.sites"):
        return ()
    from django.contrib.sites.models import Site

    return (Site.objects.clear_cache,)


def forget_other_tenants() -> None:
    """Clear the known caches that hold rows of the tenant that was current."""
    for clear in _clearers():
        clear()


def has_receivers() -> bool:
    """Whether the project listens to `tenant_entered`."""
    return bool(tenant_entered.receivers)


def announce(schema: str) -> None:
    """Send `tenant_entered`. Raises `TenantNotReady` when a receiver fails: what it was to clear is still there."""
    try:
        with no_return():
            tenant_entered.send(sender="tenant_q", schema=schema)
    except Exception as error:
        raise TenantNotReady(
            f"A receiver of tenant_entered failed for tenant {schema!r} ({type(error).__name__}: {error}); "
            "its tasks wait until it does not."
        ) from error
