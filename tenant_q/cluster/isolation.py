"""Isolate the tenants in a worker, as `TENANT_Q["isolation"]` says."""

from __future__ import annotations

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.scrubbing import sessions


def isolate_tenants() -> None:
    """Isolate the tenants in this process, which must be a worker, before it serves the first one."""
    mode = conf().isolation
    if mode == "path":
        return
    tenancy.isolate(mode, [connection.alias for connection in tenancy.switched_connections()])
    if mode == "login":
        tenancy.hide_secrets()
        sessions.watch_opened()
