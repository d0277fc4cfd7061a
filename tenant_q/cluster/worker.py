"""The worker: a process that fetches batches of leases, and runs each tenant's slice of them in its schema."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

from django.conf import settings
from django.core.cache import caches
from django_q.signals import post_spawn

from tenant_q import tenancy
from tenant_q.brokers.protocol import LONGEST_WAIT, Broker, Lease
from tenant_q.cluster import slices
from tenant_q.cluster.admission import Admission
from tenant_q.cluster.attempts import Attempts
from tenant_q.cluster.completer import Completer
from tenant_q.cluster.fence import Fence
from tenant_q.cluster.lease_returns import Returns
from tenant_q.cluster.lifespan import Lifespan
from tenant_q.cluster.pruner import Pruner
from tenant_q.cluster.role import Role
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.slice_runner import SliceRunner
from tenant_q.lifecycle import progress
from tenant_q.scrubbing import process_state
from tenant_q.support import clock, forks, tracing


class Worker(Role):
    """Runs packages of every tenant. `key` is its name at the broker."""

    name = "worker"

    def __init__(self, key: str, broker: Broker, slot: Slot, *, once: bool = False) -> None:
        super().__init__(slot, once=once)
        self.key = key
        self.broker = broker
        self.lifespan = Lifespan(key, broker, self.stopping)
        self.fence = Fence(key, broker, slot)
        self.returns = Returns(key, broker, slot)
        self.completer = Completer(key, broker, slot, self.fence, self.returns)
        self.admission = Admission(slot, self.completer, self.returns)
        self.attempts = Attempts(slot, self.fence, self.stopping, self.lifespan)
        self.runner = SliceRunner(slot, self.admission, self.attempts, self.completer, self.returns, self.lifespan)
        self.pruner = Pruner()
        # How many seconds the next fetch waits for work; 0 while there is some.
        self._wait = 0.0
        progress.report_to(slot.report_progress)
        for alias in settings.CACHES:
            caches[alias]  # created here, it serves every task; created in a task's context, it would end with it
        with forks.no_return():
            post_spawn.send(sender="django_q", proc_name=f"{self.name} {os.getpid()}")

    def tick(self) -> float:
        """Have the worker fetch a batch, run it and complete it."""
        self.completer.finish()
        self.lifespan.leave_if_spoiled()
        if self.stopping:
            return 0.0
        wait, self._wait = self._wait, 0.0
        sent = clock.now()
        batch = self.broker.fetch(self.key, wait=wait)
        self.fence.fetched(sent)
        if self.stopping:  # since the fetch was sent
            self.broker.give_back(self.key, batch.leases)
        elif batch.leases:
            self._run_batch(batch.leases)
            self.completer.finish()
        elif not self.once:
            self._wait = LONGEST_WAIT if batch.next_delayed is None else batch.next_delayed
        self.pruner.prune_when_due(self.completer.saved)
        return 0.0

    def _run_batch(self, leases: Sequence[Lease]) -> None:
        self.attempts.begin_batch()
        self.lifespan.begin_batch()
        process_state.note()
        batch = slices.by_tenant(self.admission.open_all(leases))
        self.slot.plan([delivery.lease for one in batch for delivery in one.waiting])
        tenants = [one.schema for one in batch if one.schema != tenancy.public_schema()]
        tenancy.look_up_together(tenants)
        tenancy.see_tables_together(tenants)
        for one in batch:
            if not self.lifespan.makes_way():
                self.runner.run(slices.located(one))
        self.returns.give_back([delivery.lease for one in batch for delivery in one.waiting])
        process_state.restore_after_batch()
        self.lifespan.leave_if_spoiled()

    def has_unfinished(self) -> bool:
        """Return whether the worker has outcomes left to save or leases to acknowledge."""
        return not self.completer.is_empty()

    def abandon(self) -> None:
        """Abandon the worker in a process that its task forked: detach from the broker as well."""
        super().abandon()
        progress.report_to(None)
        for part in (self, self.fence, self.returns, self.completer):
            part.broker = cast(Broker, forks.Abandoned())

    def close(self) -> None:
        """Close the worker: end its completer, and its connection to the broker."""
        self.completer.close()
        tracing.flush()
        self.broker.close()
