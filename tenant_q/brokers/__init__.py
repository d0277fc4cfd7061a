"""The brokers, and which one this project uses.

`get_broker()` is the one way to a broker for the rest of tenant_q. `install()` makes Django-Q2's own functions use the
same one.
"""

from __future__ import annotations

from typing import Any

from django_q.brokers import get_broker as django_q_broker
from django_q.conf import Conf

from tenant_q.brokers import strays
from tenant_q.brokers.adapter import AdaptedBroker
from tenant_q.brokers.connection import TIMEOUTS, connect
from tenant_q.brokers.django_q import TenantBroker
from tenant_q.brokers.protocol import Broker
from tenant_q.brokers.redis import RedisBroker
from tenant_q.conf import conf, site_clusters
from tenant_q.exceptions import ConfigurationError
from tenant_q.tenancy import keys_of, queue_suffix

__all__ = [
    "Broker",
    "get_broker",
    "get_impatient_broker",
    "install",
    "longest_call_seconds",
    "site_brokers",
    "uses_orm",
    "uses_redis",
]

_TENANT_BROKER = f"{TenantBroker.__module__}.{TenantBroker.__qualname__}"
_ELSEWHERE = ("broker_class", "iron_mq", "sqs", "orm", "mongo")
# Clients of other servers have their own limits and retries; the client of SQS tries five times for a minute.
ELSEWHERE_SECONDS = 300.0
_made: dict[str, Broker] = {}


def get_broker(cluster: str | None = None, broker: Any = None) -> Broker:
    """Return the broker of a cluster, of the kind that this project uses.

    Args:
        cluster: The name of the cluster, or None for this process's.
        broker: A Django-Q2 broker that a caller passed as the option of that name, or None.

    Raises:
        ConfigurationError: `Q_CLUSTER` names a broker that cannot be used.
    """
    if isinstance(broker, TenantBroker):
        return broker.inner
    if broker is not None:
        return AdaptedBroker(str(cluster or broker.list_key), broker)
    name = cluster or conf().cluster
    queue = f"{name}{queue_suffix()}"  # a test's database is there later than the first broker may be
    if queue not in _made:
        _made[queue] = RedisBroker(name, keys_of=keys_of) if uses_redis() else AdaptedBroker(name, _make_other(name))
    return _made[queue]


def get_impatient_broker(cluster: str | None = None) -> Broker:
    """Return a broker for monitoring: as `get_broker`, but no call waits much longer than two seconds for Redis."""
    if not uses_redis():
        return get_broker(cluster)
    return RedisBroker(cluster or conf().cluster, connect(patient=False), keys_of)


def longest_call_seconds() -> float:
    """Return the longest time in seconds that a call of an impatient broker may take, by its client's timeouts."""
    if not uses_redis():
        return ELSEWHERE_SECONDS
    options = connect(patient=False).connection_pool.connection_kwargs
    return sum(float(options.get(name) or 0) for name in TIMEOUTS)


def _make_other(cluster: str) -> Any:
    try:
        return django_q_broker(cluster)
    except (ImportError, AttributeError, ValueError) as error:
        chosen = conf().q_cluster.get("broker_class") or "the configured broker"
        raise ConfigurationError(f"Q_CLUSTER's broker {chosen} cannot be loaded: {error}; correct it.") from error


def uses_redis() -> bool:
    """Return whether this project uses our Redis broker, in place of the one that Django-Q2 would choose.

    It reads the settings only. Code that has a broker asks its `supports_...` flags instead.
    """
    settings = conf().q_cluster
    chosen = settings.get("broker_class")
    return chosen == _TENANT_BROKER or not any(settings.get(key) for key in _ELSEWHERE)


def uses_orm() -> bool:
    """Return whether this project uses Django-Q2's ORM broker, whose one table for all tenants cannot serve them."""
    settings = conf().q_cluster
    chosen = str(settings.get("broker_class") or "")
    return chosen == "django_q.brokers.orm.ORM" or (bool(settings.get("orm")) and not chosen)


def install() -> None:
    """Put our broker in the place of Django-Q2's Redis broker, for `async_task`, `qinfo` and the admin."""
    if uses_redis():
        Conf.BROKER_CLASS = _TENANT_BROKER


def forget_brokers() -> None:
    """Forget the brokers made so far, and their clients. The next use makes new ones, by the settings of that moment.

    A broker of another kind is made by Django-Q2, which reads its settings only once.
    """
    _made.clear()
    strays.forget()
    connect.cache_clear()


def site_brokers() -> list[Broker]:
    """Return the brokers of the site's clusters: its own, those of `ALT_CLUSTERS`, and that of this process."""
    if not uses_redis():
        return [get_broker()]
    return [get_broker(name) for name in site_clusters()]
