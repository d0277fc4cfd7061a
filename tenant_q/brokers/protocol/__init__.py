"""What the cluster needs of a broker: enqueue, lease, renew, acknowledge, give back.

A package id is in exactly one place: a tenant's queue, leased, delayed, or dead. A lease is the right to run one
package until a deadline; its token is a fencing token, so a worker that lost its lease cannot acknowledge.

Each module here is one part of the protocol, with the values that it exchanges. A part that not every broker has says
what a broker without it answers, and two flags say what a broker has: `supports_leases` and `supports_tenant_queues`.
"""

from __future__ import annotations

from typing import Protocol

from tenant_q.brokers.protocol.dead_letters import Dead, DeadLetters
from tenant_q.brokers.protocol.groups import Groups
from tenant_q.brokers.protocol.leases import Cancelled, Lease, Leases, outage_seconds
from tenant_q.brokers.protocol.limits import (
    BATCH_BYTES,
    BATCH_LIMIT,
    BATCH_SECONDS,
    CANCEL_REACH,
    CANCELLED,
    LONGEST_WAIT,
    MOST_DAY_FUNCTIONS,
    MOST_DEBT_SECONDS,
    MOST_FUNCTIONS,
    NEW_FACTOR,
    OTHER_FUNCTIONS,
    RATE_BURST_SECONDS,
    REMEMBER_SECONDS,
    SHORTEST_PARKING,
    SMALL_BATCH,
    UNKNOWN_COST_MS,
    slices,
)
from tenant_q.brokers.protocol.monitoring import Counts, Monitoring
from tenant_q.brokers.protocol.packages import Live, Packages, state_at
from tenant_q.brokers.protocol.policies import Policies, Policy
from tenant_q.brokers.protocol.queue import Batch, Message, Queue, Settled, Unique, queue_names
from tenant_q.brokers.protocol.server import Server
from tenant_q.brokers.protocol.status import Status
from tenant_q.brokers.protocol.tenants import Drained, Tenants
from tenant_q.brokers.protocol.waiting import Chosen, Waiting, WaitingPackages

__all__ = [
    "BATCH_BYTES",
    "BATCH_LIMIT",
    "BATCH_SECONDS",
    "CANCELLED",
    "CANCEL_REACH",
    "LONGEST_WAIT",
    "MOST_DAY_FUNCTIONS",
    "MOST_DEBT_SECONDS",
    "MOST_FUNCTIONS",
    "NEW_FACTOR",
    "OTHER_FUNCTIONS",
    "RATE_BURST_SECONDS",
    "REMEMBER_SECONDS",
    "SHORTEST_PARKING",
    "SMALL_BATCH",
    "UNKNOWN_COST_MS",
    "Batch",
    "Broker",
    "Cancelled",
    "Chosen",
    "Counts",
    "Dead",
    "Drained",
    "Lease",
    "Live",
    "Message",
    "Policy",
    "Settled",
    "Unique",
    "Waiting",
    "outage_seconds",
    "queue_names",
    "slices",
    "state_at",
]


class Broker(
    Queue,
    Leases,
    Policies,
    Monitoring,
    Packages,
    WaitingPackages,
    DeadLetters,
    Groups,
    Tenants,
    Status,
    Server,
    Protocol,
):
    """One cluster's queues. Every method raises `BrokerError` when the server cannot be reached or serves no client.

    A method that sends one entry raises `EntryRefused` when the server refuses that entry alone. If the server refuses
    some of several entries that are acknowledged, given back or dead-lettered, these become dead letters.

    A tenant is addressed by its schema's name. What it has is kept under its key as well, so it never meets what an
    earlier tenant of the same name has left.
    """
