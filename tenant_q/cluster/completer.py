"""What a worker has run and not yet settled: outcomes to save or retry, links to enqueue, leases to acknowledge.

It keeps outcomes through an outage of either server. While a task runs long, a thread of its own settles what had
finished before it, with database connections of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db import connections
from django.utils import timezone

from tenant_q import tenancy
from tenant_q.brokers.protocol import Broker, Lease, Settled
from tenant_q.cluster import slices
from tenant_q.cluster.fence import Fence
from tenant_q.cluster.shared_memory import Slot
from tenant_q.conf import conf
from tenant_q.exceptions import (
    BadPackage,
    BrokerDefect,
    BrokerError,
    CacheAway,
    DatabaseAway,
    EntryRefused,
    TenantUnavailable,
)
from tenant_q.lifecycle import enqueue, hooks, iters, prune_results, retries, save_results, settle
from tenant_q.lifecycle.failures import give_up
from tenant_q.lifecycle.time_limits import timeout_of
from tenant_q.package.envelope import open_package, seal
from tenant_q.package.package import Outcome, Package, labels, with_outcome
from tenant_q.scrubbing import entering, sessions
from tenant_q.support.log_labels import get_logger
from tenant_q.support.unix_signals import leave_signals_to_main_thread

logger = get_logger("tenant_q.outbox")

# No finished outcome waits longer than about this for its batch-mates.
FLUSH_SECONDS = 0.1
# How often the thread looks whether one has to wait longer.
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Finished:
    """A lease whose package has come to an outcome that is not acknowledged yet."""

    lease: Lease
    outcome: Outcome


class Outbox:
    """The finished work of the worker `key`. Its methods may be called by the worker and by its own thread."""

    def __init__(self, key: str, broker: Broker, slot: Slot, fence: Fence) -> None:
        self.key = key
        self.broker = broker
        self.slot = slot
        self.fence = fence
        # The schemas that were saved to since the worker last took them.
        self.saved: set[str] = set()
        self._lock = threading.RLock()
        self._unsettled: list[Finished] = []
        # When the first of them came.
        self._waiting_since = 0.0
        self._to_tell: list[Outcome] = []
        self._untold: list[Finished] = []
        self._links: list[Package] = []
        self._unacknowledged: list[Finished] = []
        self._complete: list[Package] = []
        # The ids of links and collected iters -> the id of the task that they follow from.
        self._sources: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def add(self, lease: Lease, outcome: Outcome) -> None:
        """Add an outcome."""
        with self._lock:
            if not self._unsettled:
                self._waiting_since = time.monotonic()
            self._unsettled.append(Finished(lease, outcome))

    def is_empty(self) -> bool:
        """Return whether nothing is left to settle or acknowledge."""
        return not (self._unsettled or self._untold or self._links or self._unacknowledged or self._complete)

    def is_waiting(self) -> bool:
        """Whether an outcome has waited long enough for its batch-mates."""
        with self._lock:
            return bool(self._unsettled) and time.monotonic() - self._waiting_since > FLUSH_SECONDS

    def finish(self) -> None:
        """Settle what has run, call hooks, enqueue chains' next links, acknowledge.

        It drops the outcomes of leases that are lost. After an outage, the next call goes on. No tenant is current
        afterwards.
        """
        with self._lock:
            self._drop_lost()
            if self._unsettled:
                self._settle()
            if threading.current_thread() is not self._thread:  # a hook may take long, and has a timeout
                self._tell_all()
            self._drop_lost()
            if self._links:
                self._push_links()
            if self._unacknowledged:
                self._acknowledge()
            if self._complete:
                iters.close(self._complete, self.broker)
                self._complete = []
            if self.is_empty():
                self._sources = {}

    def _drop_lost(self) -> None:
        """Forget outcomes whose lease is lost, and everything that would follow from them."""
        everything = [*self._unsettled, *self._untold, *self._unacknowledged]
        lost = self.fence.lost([finished.lease for finished in everything])
        for finished in everything:
            if finished.lease.id in lost:
                logger.warning(
                    "The lease of %s ran out; its outcome is dropped, and the package is delivered again",
                    finished.lease.id,
                    extra=labels(finished.outcome.package),
                )
        if lost:
            self._forget(lost)

    def _forget(self, lost: Collection[str]) -> None:
        def is_kept(id: str) -> bool:
            return self._sources.get(id, id) not in lost

        for kept in (self._unsettled, self._untold, self._unacknowledged):
            kept[:] = [finished for finished in kept if is_kept(finished.lease.id)]
        self._to_tell = [outcome for outcome in self._to_tell if is_kept(outcome.package.id)]
        self._links = [link for link in self._links if is_kept(link.id)]
        self._complete = [package for package in self._complete if is_kept(package.id)]

    # The thread

    def watch(self) -> None:
        """A task is about to run: should it turn out long, what waits behind it is settled meanwhile."""
        if self._thread is None and self._unsettled:
            arguments = (sessions.copied_settings(),)
            self._thread = threading.Thread(
                target=self._flush_in_time, args=arguments, name="tenant_q outbox", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _flush_in_time(self, settings: Mapping[str, Any]) -> None:
        leave_signals_to_main_thread()
        tenancy.keep_own_thread()
        sessions.use_settings(settings)
        while not self._closing.wait(LOOK_SECONDS):
            if self.is_waiting():
                self._flush()
        connections.close_all()

    def _flush(self) -> None:
        try:
            self.finish()
        except (BrokerError, DatabaseAway):
            # The worker meets the same outage when its task has ended, tells it, and goes on from there.
            logger.debug("The outbox of worker %s waits for a server", self.key)
        except Exception:
            logger.exception("The outbox of worker %s leaves its work to the worker", self.key)

    # Settling

    def _settle(self) -> None:
        """Settle all at once; where that fails in a way nobody foresaw, one by one, and dead-letter what fails then."""
        self._retry_failed()
        try:
            self._settle_these(self._unsettled)
        except (BrokerError, DatabaseAway):
            raise
        except Exception:
            logger.exception("A batch of %s outcomes is settled one by one", len(self._unsettled))
            while self._unsettled:
                self._settle_or_bury(self._unsettled[0])
        self._unsettled = []

    def _settle_or_bury(self, finished: Finished) -> None:
        try:
            self._settle_these([finished])
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:
            logger.exception(
                "The outcome of %s cannot be settled", finished.lease.id, extra=labels(finished.outcome.package)
            )
            self.broker.dead_letter(self.key, finished.lease, f"{type(error).__name__}: {error}")
        self._unsettled.remove(finished)

    def _settle_these(self, unsettled: Sequence[Finished]) -> None:
        settlement = settle.settle([finished.outcome for finished in unsettled], self.broker, between=sessions.clean_up)
        # Their leases are kept until all hooks are called, so that none is lost.
        settled = self._untold if settlement.to_tell else self._unacknowledged
        for finished in unsettled:
            key = finished.outcome.package.key
            if (error := settlement.unsaved.get(key)) is not None:
                self._put_off_unsaved(finished, error)
            else:
                settled.append(replace(finished, outcome=settlement.failed.get(key, finished.outcome)))
                self.saved.add(finished.outcome.package.schema)
        if hooks.called_receivers(settlement):
            sessions.clean_up()
            tenancy.leave()
        self._to_tell += settlement.to_tell
        self._links += settlement.links
        self._complete += settlement.complete
        self._sources |= settlement.sources

    def _tell_all(self) -> None:
        while self._to_tell:
            self._drop_lost()
            if self._to_tell:
                self._tell(self._to_tell[0])
                del self._to_tell[0]
        self._unacknowledged += self._untold
        self._untold = []

    def _tell(self, outcome: Outcome) -> None:
        """Call the hook and the receivers as a task is called: in its schema, watched, with nothing of it left."""
        package = outcome.package
        try:
            if entering.has_receivers():
                with tenancy.in_verified_schema(package.schema, tenant=package.tenant or None):
                    slices.announce(package.schema)
            with tenancy.in_verified_schema(package.schema, tenant=package.tenant or None):
                sessions.watch()
                entering.forget_other_tenants()
                self.slot.occupy(labels(package), timeout_of(package))
                hooks.tell(outcome)
                self.slot.leave()
        except TenantUnavailable as error:
            logger.error("The hook of %s is not called: %s", package.name, error, extra=labels(package))
        finally:
            sessions.clean_up(labels(package))
            tenancy.leave()

    def _push_links(self) -> None:
        """Enqueue chains' next links; if that fails, one by one, and with a failed row for each that fails."""
        try:
            enqueue.push(self._links, once=True, follows=self._sources)
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:
            logger.warning("%s links are enqueued one by one: %s", len(self._links), error)
            while self._links:
                self._push_or_fail(self._links[0])
                del self._links[0]
        self._links = []

    def _push_or_fail(self, link: Package) -> None:
        try:
            enqueue.push([link], once=True, follows=self._sources)
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:
            logger.exception("The link %s cannot be enqueued", link.name, extra=labels(link))
            for why in save_results.save([give_up(link, error)]).values():
                logger.error("The failure of %s cannot be saved: %s", link.name, why, extra=labels(link))

    def _acknowledge(self) -> None:
        settled = [
            Settled(finished.lease, outcome.seconds, outcome.waited, failed=not outcome.success)
            for finished in self._unacknowledged
            for outcome in [finished.outcome]
        ]
        # Their rows may be pruned soon, and a failover may undo the acknowledgement.
        late = [one.lease.id for one in self._unacknowledged if _age(one.outcome) > conf().lease]
        if late:
            self.broker.note_late(late, seconds=prune_results.spared().total_seconds())
        refused = self.broker.acknowledge(self.key, settled)
        for finished in self._unacknowledged:
            if finished.lease.id in refused:
                logger.warning(
                    "The lease of %s had been given to another worker; its acknowledgement is refused",
                    finished.lease.id,
                    extra=labels(finished.outcome.package),
                )
        self._unacknowledged = []
        if refused:
            self._forget(refused)

    # Trying again

    def _retry_failed(self) -> None:
        """Those that failed and have attempts left are put back, and leave no row yet."""
        for finished in list(self._unsettled):
            delay = retries.retry_delay(finished.outcome)
            if delay is not None:
                # A cancelled one is put back only to be given up.
                delay = 0.0 if self.slot.cancellation(finished.lease.id) else delay
                place = self._unsettled.index(finished)
                try:
                    self._retry(finished, delay)
                    del self._unsettled[place]
                except (EntryRefused, BrokerDefect) as error:
                    package = finished.outcome.package
                    logger.error("%s is not started again: %s", package.name, error, extra=labels(package))
                    self._unsettled[place] = replace(finished, outcome=replace(finished.outcome, is_final=True))

    def _retry(self, finished: Finished, delay: float) -> None:
        outcome, package = finished.outcome, finished.outcome.package
        again = seal(retries.after_failure(_as_enqueued(finished)))
        self.broker.put_off(self.key, finished.lease, delay=delay, payload=again, seconds=outcome.seconds)
        logger.warning(
            "%s failed (%s, attempt %s) and is started again in %.1f s",
            package.name,
            outcome.death,
            outcome.attempt,
            delay,
            extra=labels(package),
        )

    def _put_off_unsaved(self, finished: Finished, error: Exception) -> None:
        """The task has run: what is put off is the saving of its outcome."""
        package = finished.outcome.package
        tries = int(package.option("put_off", 0)) + 1
        logger.error("The result of %s cannot be saved (try %s): %s", package.name, tries, error, extra=labels(package))
        is_outage = isinstance(error, CacheAway)  # it may last longer than the tries
        if tries > retries.MOST_PUT_OFFS and not is_outage:
            self.broker.dead_letter(self.key, finished.lease, f"{type(error).__name__}: {error}")
            return
        carried = seal(with_outcome(replace(finished.outcome, package=_as_enqueued(finished)), put_off=tries))
        try:
            # Its worker time is charged once, by the acknowledgement.
            self.broker.put_off(self.key, finished.lease, delay=retries.put_off_delay(tries), payload=carried)
        except (EntryRefused, BrokerDefect) as refusal:  # with its result it may be too large
            cause = f"{type(error).__name__}: {error} It cannot be put off: {refusal}"
            self.broker.dead_letter(self.key, finished.lease, cause)


def _as_enqueued(finished: Finished) -> Package:
    """The package as it came: the task may have changed its arguments, also into what does not pickle."""
    try:
        return open_package(finished.lease.payload)
    except BadPackage:
        return finished.outcome.package


def _age(outcome: Outcome) -> float:
    return float((timezone.now() - outcome.stopped).total_seconds())
