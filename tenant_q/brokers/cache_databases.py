"""Find the project's caches that share the queue's database: their `cache.clear()` would empty the queue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from redis.connection import parse_url

from tenant_q.brokers.connection import database, make_client


def caches_in_queue_database() -> list[str]:
    """Return the aliases of the caches that are in the queue's database. Raises `ConfigurationError`."""
    ours = database(make_client().connection_pool.connection_kwargs)
    return [alias for alias, cache in settings.CACHES.items() if ours in _databases_of(cache)]


def _databases_of(cache: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the databases in which a cache is, as far as its settings name them."""
    if not re.search("redis|valkey", str(cache.get("BACKEND", "")), re.IGNORECASE):
        return
    locations = cache.get("LOCATION") or ()
    for url in re.split("[;,]", locations) if isinstance(locations, str) else locations:
        options = cache.get("OPTIONS") or {}
        try:
            named: dict[str, Any] = parse_url(re.sub("^valkey", "redis", str(url).strip()))  # type: ignore[no-untyped-call]
            yield database({"db": options.get("db", options.get("DB"))} | named)
        except ValueError:  # the cache's own client will report it
            continue
