"""Separate the tenants in the Django cache that `Q_CLUSTER["cache"]` names."""

from __future__ import annotations

from typing import Any

from django.core.cache import InvalidCacheBackendError, caches

from tenant_q.conf import conf
from tenant_q.tenancy.tenancy_package import current_schema
from tenant_q.tenancy.testing import queue_suffix


class TenantCache:
    """The Django cache that `Q_CLUSTER["cache"]` names, with the current tenant's schema in every key.

    Equal names of two tenants stay apart, regardless of the `KEY_FUNCTION` of the cache.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def get(self, key: str, default: Any = None) -> Any:
        return self._cache.get(self._own(key), default)

    def set(self, key: str, value: Any, timeout: float | None = None) -> None:
        self._cache.set(self._own(key), value, timeout)

    def delete(self, key: str) -> bool:
        return bool(self._cache.delete(self._own(key)))

    def delete_many(self, keys: Any) -> None:
        self._cache.delete_many([self._own(key) for key in keys or ()])

    def clear(self) -> None:
        self._cache.clear()

    @staticmethod
    def _own(key: str) -> str:
        return f"tq{queue_suffix()}:{current_schema()}:{key}"


def tenant_cache() -> TenantCache | None:
    """Return the cache that separates the tenants; None if `CACHES` lacks the one that `Q_CLUSTER["cache"]` names."""
    try:
        return TenantCache(caches[conf().cache])
    except InvalidCacheBackendError:
        return None
