"""Complete what a worker has run: save the outcomes, call the hooks, enqueue what follows, acknowledge the leases.

The completer keeps outcomes through an outage of either server. While a task runs long, a thread of its own completes
what had finished before that task, with database connections of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from django.utils import timezone

from tenant_q import tenancy
from tenant_q.brokers.protocol import Broker, Lease, Settled
from tenant_q.cluster import follow_up
from tenant_q.cluster.completer_thread import CompleterThread
from tenant_q.cluster.fence import Fence
from tenant_q.cluster.finished import Finished, is_step
from tenant_q.cluster.lease_returns import Returns, cause_of
from tenant_q.cluster.put_offs import PutOffs
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.step_completion import StepCompletion
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, DatabaseAway, TenantUnavailable
from tenant_q.lifecycle import hooks, iters, prune_results, settle
from tenant_q.lifecycle.hooks import HookCall
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package
from tenant_q.scrubbing import sessions
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.outbox")

# A finished outcome waits at most about this many seconds for others of its batch.
FLUSH_SECONDS = 0.1


class Completer:
    """The finished work of the worker `key`. The worker and the completer's own thread call its methods.

    `saved` are the schemas that outcomes were saved to; the worker's pruner takes them.
    """

    def __init__(self, key: str, broker: Broker, slot: Slot, fence: Fence, returns: Returns) -> None:
        self.key = key
        self.broker = broker
        self.slot = slot
        self.fence = fence
        self.returns = returns
        self.saved: set[str] = set()
        self._lock = threading.RLock()
        self._thread = CompleterThread(key, self)
        # Outcomes to save, and when the first of them came.
        self._unsettled: list[Finished] = []
        self._waiting_since = 0.0
        # Hooks to call, and the outcomes whose leases are kept until these hooks are called.
        self._to_call: list[HookCall] = []
        self._uncalled: list[Finished] = []
        self._links: list[Package] = []
        self._unacknowledged: list[Finished] = []
        # Packages of iters whose parts are no longer needed.
        self._complete: list[Package] = []
        self.steps = StepCompletion(broker, returns)
        self.put_offs = PutOffs(slot, returns)
        # The ids of links and collected iters, each with the id of the task that it follows.
        self._sources: dict[str, str] = {}

    def add(self, lease: Lease, outcome: Outcome) -> None:
        """Add an outcome that the completer is to save."""
        with self._lock:
            if not self._unsettled:
                self._waiting_since = time.monotonic()
            self._unsettled.append(Finished(lease, outcome))

    def is_empty(self) -> bool:
        """Return whether the completer has nothing left to save, to call, to enqueue or to acknowledge."""
        left = self._unsettled or self._uncalled or self._links or self._unacknowledged or self._complete
        return not left and self.steps.is_empty()

    def is_due(self) -> bool:
        """Return whether an outcome has waited in the completer long enough for others of its batch."""
        with self._lock:
            return bool(self._unsettled) and time.monotonic() - self._waiting_since > FLUSH_SECONDS

    def complete_meanwhile(self) -> None:
        """Have the completer complete its outcomes in time while a task runs that may take long."""
        if self._unsettled:
            self._thread.start()

    def close(self) -> None:
        """Close the completer, which ends its thread."""
        self._thread.close()

    def finish(self) -> None:
        """Complete all outcomes: save them, call hooks, enqueue what follows, and acknowledge.

        Outcomes whose leases are lost are dropped. No tenant is current afterwards.

        Raises:
            BrokerError: The broker does not answer. The next call continues where this one ended.
            DatabaseAway: The database does not answer. The next call continues.
        """
        with self._lock:
            self._drop_lost()
            if self._unsettled:
                self._settle()
            if not self._thread.is_current():  # a hook may take long, and its alarm needs the main thread
                self._call_hooks()
            self._drop_lost()
            if self._links:
                self._push_links()
            if not self.steps.is_empty():
                self._unacknowledged = self.steps.advance(self._unacknowledged)
            if self._unacknowledged:
                self._acknowledge()
            if self._complete:
                iters.delete_parts(self._complete, self.broker)
                self._complete = []
            if self.is_empty():
                self._sources = {}

    def _drop_lost(self) -> None:
        """Drop from the completer the outcomes whose leases are lost, and what would follow from them."""
        everything = [*self._unsettled, *self._uncalled, *self._unacknowledged]
        lost = self.fence.lost([finished.lease for finished in everything])
        for finished in everything:
            if finished.lease.id in lost:
                logger.warning(
                    "The lease of %s ran out; dropped its outcome, and the package is delivered again",
                    finished.lease.id,
                    event="lease.expired",
                    extra=finished.outcome.package.log_labels,
                )
        if lost:
            self._forget(lost)

    def _forget(self, lost: Collection[str]) -> None:
        def is_kept(id: str) -> bool:
            return self._sources.get(id, id) not in lost

        for kept in (self._unsettled, self._uncalled, self._unacknowledged):
            kept[:] = [finished for finished in kept if is_kept(finished.lease.id)]
        self._to_call = [call for call in self._to_call if is_kept(call.outcome.package.id)]
        self._links = [link for link in self._links if is_kept(link.id)]
        self._complete = [package for package in self._complete if is_kept(package.id)]

    # Settling

    def _settle(self) -> None:
        """Settle the completer's outcomes at once, or one by one after an error. Dead-letter those that fail alone."""
        self._put_back_failed()
        try:
            self._settle_these(self._unsettled)
        except (BrokerError, DatabaseAway):
            raise
        except Exception:
            logger.exception(
                "Could not settle %s at once; settling them one by one",
                counted(len(self._unsettled), "outcome"),
                event="outcome.settled_one_by_one",
            )
            while self._unsettled:
                self._settle_or_dead_letter(self._unsettled[0])
        self._unsettled = []

    def _settle_or_dead_letter(self, finished: Finished) -> None:
        try:
            self._settle_these([finished])
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:
            extra = finished.outcome.package.log_labels
            logger.exception(
                "Could not settle the outcome of %s", finished.lease.id, event="outcome.settle_failed", extra=extra
            )
            self.returns.dead_letter(finished.lease, finished.outcome.package, cause_of(error))
        self._unsettled.remove(finished)

    def _settle_these(self, unsettled: Sequence[Finished]) -> None:
        steps = [finished for finished in unsettled if is_step(finished)]
        if steps:
            self._unacknowledged += self.steps.settle(steps, self.put_offs.unsaved)
            unsettled = [finished for finished in unsettled if not is_step(finished)]
            if not unsettled:
                return
        settlement = settle.settle([finished.outcome for finished in unsettled], self.broker, between=sessions.clean_up)
        # Leases are kept until all hooks are called, so that no call is lost.
        settled = self._uncalled if settlement.to_call else self._unacknowledged
        for finished in unsettled:
            key = finished.outcome.package.key
            if (error := settlement.unsaved.get(key)) is not None:
                self.put_offs.unsaved(finished, error)
            else:
                settled.append(replace(finished, outcome=settlement.failed.get(key, finished.outcome)))
                self.saved.add(finished.outcome.package.schema)
        if settlement.called_receivers():
            sessions.clean_up()
            tenancy.leave()
        self._to_call += settlement.to_call
        self._links += settlement.links
        self._complete += settlement.complete
        self._sources |= settlement.sources

    def _put_back_failed(self) -> None:
        """Put back, instead of completing them, the failed packages that have attempts left."""
        for finished in [one for one in self._unsettled if not one.outcome.success and not is_step(one)]:
            place = self._unsettled.index(finished)
            left = self.put_offs.failed(finished)
            self._unsettled[place : place + 1] = [] if left is None else [left]

    # Hooks and acknowledgements

    def _call_hooks(self) -> None:
        while self._to_call:
            self._drop_lost()
            if self._to_call:
                error = follow_up.call_hook(self._to_call[0], self.slot)
                call = self._to_call.pop(0)
                if error is not None:
                    self._put_off_uncalled(call, error)
        self._unacknowledged += self._uncalled
        self._uncalled = []

    def _put_off_uncalled(self, call: HookCall, error: TenantUnavailable) -> None:
        """Put off a hook that the completer could not call. Its package carries the outcome, as the task has run."""
        package = call.outcome.package
        source = self._sources.get(package.id, package.id)
        for finished in [one for one in self._uncalled if one.lease.id == source]:
            self.put_offs.uncalled(finished, package, error)
        self._forget({source})  # all of it is done when the package is delivered again

    def _push_links(self) -> None:
        """Enqueue the next links of chains. A lease is kept until the hook of a chain that ends here is called."""
        failed: list[Outcome] = []
        try:
            follow_up.push_links(self._links, self._sources, failed)
        finally:
            calls = [call for outcome in failed for call in hooks.calls_of_chain(outcome)]
            sources = {self._sources[call.outcome.package.id] for call in calls}
            self._to_call += calls
            self._uncalled += [one for one in self._unacknowledged if one.lease.id in sources]
            self._unacknowledged = [one for one in self._unacknowledged if one.lease.id not in sources]
        if calls and not self._thread.is_current():
            self._call_hooks()

    def _acknowledge(self) -> None:
        settled = [
            Settled(finished.lease, outcome.seconds, outcome.waited, failed=not outcome.success)
            for finished in self._unacknowledged
            for outcome in [finished.outcome]
        ]
        # Their rows may be pruned soon, and a failover of the broker may undo the acknowledgement.
        late = [one.lease.id for one in self._unacknowledged if _seconds_uncompleted(one.outcome) > conf().lease]
        if late:
            self.broker.note_late(late, seconds=prune_results.spared().total_seconds())
        refused = self.broker.acknowledge(self.key, settled)
        for finished in self._unacknowledged:
            if finished.lease.id in refused:
                logger.warning(
                    "The lease of %s had been given to another worker; the broker refused its acknowledgement",
                    finished.lease.id,
                    event="lease.lost",
                    extra=finished.outcome.package.log_labels,
                )
        self._unacknowledged = []
        if refused:
            self._forget(refused)


def _seconds_uncompleted(outcome: Outcome) -> float:
    """Return the seconds that an outcome has waited for its completion: since the end of the task."""
    return float((timezone.now() - outcome.stopped).total_seconds())
