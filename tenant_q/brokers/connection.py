"""The connections to Redis or Valkey: to which server, how long an answer is waited for, and how often it is asked."""

from __future__ import annotations

import functools
from typing import Any

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError


@functools.cache
def connect(*, patient: bool = True) -> redis.Redis:
    """The process's client, with its one connection pool, to the server that `Q_CLUSTER` names.

    `redis` (a URL or the keywords of `redis.Redis`) or `django_redis` (an alias of CACHES); else the local server.

    Parameters: `patient`, whether a call is repeated and waits for its answer; else it fails after two seconds.
    """
    settings = conf().q_cluster
    if settings.get("django_redis"):
        return _from_django_redis(settings["django_redis"])
    defaults: dict[str, Any] = {
        "socket_connect_timeout": 5,
        "socket_timeout": 10,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 3),
    }
    if not patient:
        defaults |= {"socket_connect_timeout": 2, "socket_timeout": 2, "retry": Retry(NoBackoff(), 0)}
    configured = settings.get("redis") or {}
    try:
        client: redis.Redis
        if isinstance(configured, str):
            client = redis.Redis.from_url(configured, **defaults)
        else:
            client = redis.Redis(**(defaults | configured | {"decode_responses": False}))
        client.connection_pool.make_connection()  # connects nowhere yet; refuses options that do not exist
        return client
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"Q_CLUSTER['redis'] cannot be used: {error}; give a URL or redis.Redis's keywords."
        ) from error


def _from_django_redis(alias: str) -> redis.Redis:
    try:
        from django_redis import get_redis_connection
    except ImportError as error:
        raise ConfigurationError(
            "Q_CLUSTER['django_redis'] is set and django-redis is not installed; install it, or set 'redis'."
        ) from error
    client: redis.Redis = get_redis_connection(alias)
    return client


def address(client: Any) -> str:
    """Where a client connects to, without its password."""
    kwargs = client.connection_pool.connection_kwargs
    if kwargs.get("path"):
        return str(kwargs["path"])
    return f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"
