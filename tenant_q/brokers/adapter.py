"""Any other Django-Q2 broker (SQS, Mongo, IronMQ, custom) behind our protocol, with the guarantees that it has.

There is one queue for all tenants, in the broker's own order, and no leases: what a dying worker held is redelivered
only if the broker itself does that. Giving back and putting off are a new message and the receipt of the old one.
Parts of iters and cached groups are kept in PostgreSQL.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Sum
from django.db.models.functions import Length

from tenant_q.brokers.protocol import (
    BATCH_LIMIT,
    BATCH_SECONDS,
    Batch,
    Broker,
    Counts,
    Lease,
    Message,
    Settled,
)
from tenant_q.exceptions import BadPackage, BrokerError, EnqueueError, GroupTooLarge, TenantQError
from tenant_q.models import GroupPart
from tenant_q.package import envelope
from tenant_q.tenancy import as_owner_in_public, keys_of


class AdaptedBroker(Broker):
    """A Django-Q2 broker that serves the queues of a cluster.

    It supports neither leases nor tenants' queues; what it does not define here is as `brokers.protocol` says.

    Args:
        cluster: The name of the cluster.
        broker: The Django-Q2 broker.
    """

    def __init__(self, cluster: str, broker: Any) -> None:
        self.cluster = cluster
        self.inner = broker
        self.kind = type(broker).__name__
        # What is put off: due time, payload, and the lease whose receipt is due with it.
        self._due: list[tuple[float, str, Lease]] = []

    # Server

    def ping(self) -> None:
        self._call("ping")

    def probe(self) -> None:
        self._call("ping")

    def info(self) -> str:
        return str(self._call("info") or self.kind)

    def warnings(self) -> list[str]:
        return [f"The {self.kind} broker gives its own guarantees only: no leases, one queue for all tenants."]

    # Queue

    def enqueue(self, messages: Sequence[Message], *, limited: bool = False) -> int:
        if any(message.delay > 0 for message in messages):
            raise EnqueueError(f"The {self.kind} broker cannot delay a task; use a schedule of type ONCE, or Redis.")
        if any(message.priority or message.interval for message in messages):
            raise EnqueueError(
                f"The {self.kind} broker knows neither 'priority' nor 'rate'; leave them out, or use Redis."
            )
        for message in messages:
            if message.unique is not None:
                raise EnqueueError(
                    f"{message.func} cannot be enqueued with the option 'unique': the {self.kind} broker does not find "
                    "packages by their keys; leave the option out, or use Redis."
                )
        for message in messages:
            self._call("enqueue", message.payload)
        return len(messages)

    def enqueue_unique(self, message: Message, *, limited: bool = False) -> str:
        self.enqueue([message], limited=limited)
        return message.id

    def fetch(
        self, worker: str, *, wait: float = 0.0, limit: int = BATCH_LIMIT, seconds: float = BATCH_SECONDS
    ) -> Batch:
        """Fetch a batch from the adapted broker. These brokers wait in `dequeue`, for as long as they do."""
        self._enqueue_due()
        leases = []
        for receipt, payload in self._call("dequeue") or ():
            text = payload.decode(errors="replace") if isinstance(payload, bytes) else payload
            leases.append(_lease(receipt, text))
        waits = [max(0.0, due - time.monotonic()) for due, _, _ in self._due]
        return Batch(tuple(leases), next_delayed=min(waits, default=None))

    def _enqueue_due(self) -> None:
        now = time.monotonic()
        for entry in [entry for entry in self._due if entry[0] <= now]:
            self._hand_over(entry)

    def _hand_over(self, entry: tuple[float, str, Lease]) -> None:
        """Enqueue a package that the adapter held back, and only then acknowledge the old message, to lose nothing."""
        _, payload, lease = entry
        self._call("enqueue", payload)
        self._due.remove(entry)
        self._receipt(lease)

    def acknowledge(self, worker: str, settled: Sequence[Settled]) -> list[str]:
        for one in settled:
            self._receipt(one.lease)
        return []

    def give_back(self, worker: str, leases: Sequence[Lease]) -> int:
        for lease in leases:
            self._call("enqueue", lease.payload)
            self._receipt(lease)
        return len(leases)

    def put_off(
        self,
        worker: str,
        lease: Lease,
        *,
        delay: float,
        payload: str | None = None,
        seconds: float = 0.0,
        unready: bool = False,
    ) -> None:
        # These brokers know no delay: this process holds the package meanwhile.
        self._due.append((time.monotonic() + delay, payload or lease.payload, lease))

    def dead_letter(self, worker: str, lease: Lease, cause: str) -> None:
        if lease.token is not None:
            self._call("fail", lease.token)

    def _receipt(self, lease: Lease) -> None:
        if lease.token is not None:
            self._call("acknowledge", lease.token)

    def purge(self) -> None:
        for entry in self._due:
            self._receipt(entry[2])
        self._due.clear()
        self._call("purge_queue")

    def close(self) -> None:
        for entry in list(self._due):
            self._hand_over(entry)

    def counts(self) -> Counts:
        return Counts(
            queued=int(self._call("queue_size") or 0),
            leased=int(self._call("lock_size") or 0),
            delayed=len(self._due),
            dead=0,
        )

    def queue_size(self, schema: str | None = None) -> int:
        return int(self._call("queue_size") or 0)

    # Groups, in PostgreSQL

    def add_parts(
        self, schema: str, group: str, parts: Mapping[str, str], *, seconds: int | None, tenant: str | None = None
    ) -> int:
        with as_owner_in_public():
            key = _key(schema, tenant)
            return max(GroupPart.record(schema, key, group, *part, seconds) for part in parts.items())

    def parts(
        self, schema: str, group: str, *, tenant: str | None = None, most_bytes: int | None = None
    ) -> Mapping[str, str]:
        with as_owner_in_public():
            found = GroupPart.live(schema, _key(schema, tenant), group)
            if most_bytes is not None:
                size = found.aggregate(size=Sum(Length("payload")))["size"] or 0
                if size > most_bytes:
                    raise GroupTooLarge(size)
            return dict(found.values_list("index", "payload"))

    def count_parts(self, schema: str, group: str) -> int:
        with as_owner_in_public():
            return GroupPart.live(schema, _key(schema), group).count()

    def drop_group(self, schema: str, group: str, *, tenant: str | None = None) -> int:
        with as_owner_in_public():
            return GroupPart.live(schema, _key(schema, tenant), group).delete()[0]

    # Tenants: their queued packages stay in the one queue, and are refused when their turn comes

    def forget_tenant(self, schema: str, tenant: str, reason: str, *, seconds: float) -> int:
        with as_owner_in_public():
            GroupPart.rows().filter(schema_name=schema, tenant__in=(tenant, "")).delete()
        return 0

    def rename_tenant(self, tenant: str, old: str, new: str) -> None:
        with as_owner_in_public():
            GroupPart.rows().filter(schema_name=old, tenant__in=(tenant, "")).update(schema_name=new, tenant=tenant)

    # Status

    def set_stat(self, key: str, value: str, seconds: int) -> None:
        self._call("set_stat", key, value, seconds)

    def get_stat(self, key: str) -> Any:
        return self._call("get_stat", key)

    def get_stats(self, pattern: str) -> list[Any]:
        return self._call("get_stats", pattern) or []

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self.inner, method)(*arguments)
        except TenantQError:
            raise
        except Exception as error:
            raise BrokerError(f"{self.kind}.{method} failed for cluster {self.cluster!r}: {error}") from error


def _key(schema: str, tenant: str | None = None) -> str:
    return keys_of([schema]).get(schema, "") if tenant is None else tenant


def _lease(receipt: Any, payload: str) -> Lease:
    """Adapt a message to a lease. Id and tenant are inside the signature; the worker refuses what does not open."""
    try:
        package = envelope.open_package(payload)
    except BadPackage:
        return Lease(id="", schema="", payload=payload, token=receipt)
    return Lease(id=package.id, schema=package.schema, payload=payload, token=receipt)
