"""The signals that tenant_q sends."""

from __future__ import annotations

from django.dispatch import Signal

# Sent in a worker before it runs tasks or a hook of a tenant, and in the scheduler before it calls code of the project
# for a tenant. The argument `schema` is the tenant's schema name. The tenant is current.
tenant_entered = Signal()
