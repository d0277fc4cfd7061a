"""Connect to Redis or Valkey: choose the server, the timeouts and the number of attempts.

However a project configures its client, answers have one form here: bytes, as in version 2 of the protocol.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import redis
from django.conf import settings
from django.core.cache import InvalidCacheBackendError
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import BlockingConnectionPool, ConnectionPool, parse_url
from redis.retry import Retry

from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError
from tenant_q.support.hints import did_you_mean

# The values of the client options that change the form of answers.
SHAPE: Final = {"decode_responses": False, "encoding": "utf-8", "encoding_errors": "strict", "protocol": 2}
# No call waits for ever for a server that does not answer, unless the project's options allow it.
TIMEOUTS: Final = MappingProxyType({"socket_connect_timeout": 5, "socket_timeout": 10})
# The same for a client that monitors. The project may set other limits, but cannot switch them off.
IMPATIENT: Final = MappingProxyType({"socket_connect_timeout": 2, "socket_timeout": 2})


@functools.cache
def connect(*, patient: bool = True) -> redis.Redis:
    """Return the process's Redis client, with its one connection pool. See `make_client`."""
    return make_client(patient=patient)


def make_client(*, patient: bool = True) -> redis.Redis:
    """Return a Redis client for the server that `Q_CLUSTER` names. It does not connect yet.

    The key `redis` is a URL or the keywords of `redis.Redis`, `django_redis` an alias of CACHES; without them it is the
    local server.

    Args:
        patient: Whether a call is repeated and waits for its answer; otherwise it fails after two seconds.

    Raises:
        ConfigurationError: The settings cannot be used.
    """
    configured, limits = conf().q_cluster, TIMEOUTS if patient else IMPATIENT
    if configured.get("django_redis"):
        return _from_django_redis(configured["django_redis"], limits)
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 3) if patient else Retry(NoBackoff(), 0)
    defaults: dict[str, Any] = {**limits, "retry": retry}
    server = configured.get("redis") or {}
    if isinstance(server, str):
        return _client_from_url(server, defaults)
    try:
        if not patient:
            server = _limited_options(server)
        return _shaped_client(redis.Redis(**(defaults | server | SHAPE)), "Q_CLUSTER['redis']")
    except (TypeError, ValueError, redis.RedisError) as error:
        raise ConfigurationError(
            f"Q_CLUSTER['redis'] cannot be used: {error}; give a URL or redis.Redis's keywords."
        ) from error


def _client_from_url(url: str, defaults: dict[str, Any]) -> redis.Redis:
    """Return the Redis client for a URL. No message shows any part of it, because it may be part of the password."""
    escaped = "write '#' as %23, '/' as %2F, '?' as %3F, '@' as %40 and '%' as %25 in its user name and password"
    if "#" in url:
        raise ConfigurationError(f"Q_CLUSTER['redis'] cannot be used: a '#' ends its URL early; {escaped}.")
    try:
        options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        if "@" in url:
            raise ConfigurationError(
                f"Q_CLUSTER['redis'] cannot be used: its URL cannot be read; {escaped}."
            ) from None  # the error may quote the password
        raise ConfigurationError(
            f"Q_CLUSTER['redis'] cannot be used: {error}; give a URL or redis.Redis's keywords."
        ) from error
    try:
        client = redis.Redis(connection_pool=ConnectionPool(**(defaults | options | SHAPE)))
        return _shaped_client(client, "Q_CLUSTER['redis']")
    except (TypeError, ValueError, redis.RedisError) as error:
        raise ConfigurationError(
            f"Q_CLUSTER['redis'] cannot be used: {error}; give a URL or redis.Redis's keywords."
        ) from error


def _limited_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a connection's options without timeouts of None, with which a call may last for ever."""
    return {name: value for name, value in options.items() if name not in TIMEOUTS or value is not None}


def missing_limits(client: Any) -> list[str]:
    """Return the timeouts that a Redis client's connections lack, because its pool is of an unknown class.

    A connection to a Unix socket takes no `socket_connect_timeout`.
    """
    options = client.connection_pool.connection_kwargs
    wanted = ["socket_timeout"] if "path" in options else TIMEOUTS
    return [name for name in wanted if name not in options]


def _from_django_redis(alias: str, limits: Mapping[str, float]) -> redis.Redis:
    try:
        from django_redis import get_redis_connection
    except ImportError as error:
        raise ConfigurationError(
            "Q_CLUSTER['django_redis'] is set and django-redis is not installed; install it, or set 'redis'."
        ) from error
    place = f"Q_CLUSTER['django_redis'] ({alias!r})"
    try:
        client = get_redis_connection(alias)
    except InvalidCacheBackendError as error:
        hint = did_you_mean(alias, settings.CACHES)
        raise ConfigurationError(f"{place} cannot be used: CACHES has no such alias; {hint}") from error
    except NotImplementedError as error:
        raise ConfigurationError(f"{place} cannot be used: its BACKEND is not one of django-redis.") from error
    return _shaped_client(client, place, limits)


def _shaped_client(client: Any, place: str, defaults: Mapping[str, float] = MappingProxyType({})) -> redis.Redis:
    """Return a Redis client whose answers are bytes: the client itself, or a new one with its own connection pool.

    Args:
        client: The project's client.
        place: The setting that it comes from, for messages.
        defaults: Options to set if the project does not, in a pool of a known class.

    Raises:
        ConfigurationError: A pool of another class changes the form of answers.
    """
    pool = client.connection_pool
    options = pool.connection_kwargs
    pool.connection_class(**options)  # does not connect yet; refuses unknown options
    own = _limited_options(options) if defaults is IMPATIENT else options
    has_shape = all(_is_ours(name, options.get(name, ours)) for name, ours in SHAPE.items()) and "protocol" in options
    if has_shape and own.keys() >= defaults.keys():
        return client  # type: ignore[no-any-return]
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        names = ", ".join(name for name, ours in SHAPE.items() if not _is_ours(name, options.get(name, ours)))
        if not names:
            return client  # type: ignore[no-any-return]
        missing = missing_limits(client)
        also = f", and set {' and '.join(missing)}, without which a call may last for ever" if missing else ""
        raise ConfigurationError(
            f"{place} cannot be used: its {type(pool).__name__} sets {names}, which changes the answers; "
            f"remove it{also}."
        )
    size = {"connection_class": pool.connection_class, "max_connections": pool.max_connections}
    return redis.Redis(connection_pool=type(pool)(**({**defaults, **own} | SHAPE | size)))


def _is_ours(name: str, value: Any) -> bool:
    return value == SHAPE[name] or (name == "protocol" and str(value) == str(SHAPE[name]))


def address(client: Any) -> str:
    """Return the server that a Redis client connects to, without its password."""
    kwargs = client.connection_pool.connection_kwargs
    if kwargs.get("path"):
        return str(kwargs["path"])
    return f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"


def database(options: dict[str, Any]) -> tuple[str, int]:
    """Return the database that a Redis connection's options name: the address of its server, and its number."""
    number = int(options.get("db") or 0)
    if options.get("path"):
        return str(options["path"]), number
    host = str(options.get("host") or "localhost")
    return f"{'localhost' if host in ('127.0.0.1', '::1') else host}:{options.get('port') or 6379}", number
