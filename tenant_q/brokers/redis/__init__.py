"""The Redis (or Valkey) broker: a queue per tenant, one fair ring, leases with fencing tokens.

Every operation is one Lua script in `lua/`, so it is atomic and costs one round trip. Keys share the hash tag
`{tq:<cluster>}`. The idea of fair virtual time is start-time fair queueing (Goyal, Vin, Cheng 1996); fencing tokens
are as in Kleppmann, "How to do distributed locking" (2016).

Each module here implements one part of `brokers.protocol`.
"""

from __future__ import annotations

from tenant_q.brokers.redis.days import RedisDays
from tenant_q.brokers.redis.leases import RedisLeases
from tenant_q.brokers.redis.monitoring import RedisMonitoring
from tenant_q.brokers.redis.packages import RedisPackages
from tenant_q.brokers.redis.policies import RedisPolicies
from tenant_q.brokers.redis.queue import RedisQueue
from tenant_q.brokers.redis.server import RedisServer
from tenant_q.brokers.redis.status import RedisStatus
from tenant_q.brokers.redis.tenants import RedisTenants
from tenant_q.brokers.redis.waiting import RedisWaiting

__all__ = ["RedisBroker"]


class RedisBroker(
    RedisQueue,
    RedisLeases,
    RedisPolicies,
    RedisMonitoring,
    RedisDays,
    RedisPackages,
    RedisWaiting,
    RedisTenants,
    RedisStatus,
    RedisServer,
):
    """The queues of one cluster in Redis. See `Part` for its arguments."""
