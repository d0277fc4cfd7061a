"""Signals of tenant_q's own."""

from __future__ import annotations

from django.dispatch import Signal

# Sent in a worker before a tenant's tasks or a hook run there, and in the scheduler before it calls code of the project
# for a tenant. Arguments: `schema`, the tenant's schema name. The tenant is current.
tenant_entered = Signal()
