"""Renew, recall and give back leases for the sentinel, and pass on cancels and progress."""

from __future__ import annotations

import math

from tenant_q.brokers.protocol import Broker
from tenant_q.cluster.child import Child
from tenant_q.cluster.children import Children
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError
from tenant_q.support import clock
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.sentinel")  # part of the sentinel

# Packages of a batch that have waited this long for their turn are given back.
RECALL_SECONDS = 0.25


class LeaseKeeper:
    """The sentinel's work with leases. In an outage the methods raise `BrokerError`; the sentinel calls them again."""

    def __init__(self, broker: Broker, children: Children) -> None:
        self.broker = broker
        self.children = children
        # Since the last renewal. After an outage the broker may be another server, which lacks the last leases.
        self._has_missed_the_broker = False

    def note_outage(self) -> None:
        """Note that the broker did not answer the lease keeper."""
        self._has_missed_the_broker = True

    def renew(self) -> None:
        """Keep the leases of every living worker: renew them, and write their deadline where the worker reads it."""
        workers = list(self.children.workers)
        sent = clock.now()
        self.broker.renew([child.key for child in workers], conf().lease)
        answered, is_unbroken = clock.now(), not self._has_missed_the_broker
        for child in workers:
            child.slot.renew(sent, answered, conf().lease, is_unbroken=is_unbroken)
        self._has_missed_the_broker = False

    def recall(self, seconds: float = math.inf) -> None:
        """Recall the leases of packages that wait in a long batch, and give them back, if the broker has leases.

        Args:
            seconds: How long to go on; the other workers are left to the next call.
        """
        if not self.broker.supports_leases:
            return
        begun = clock.now()
        for child in self.children.workers:
            if child.recalled != child.slot.batch and child.slot.waiting_seconds > RECALL_SECONDS:
                self._recall(child)
                if clock.now() - begun > seconds:
                    return

    def _recall(self, child: Child) -> None:
        batch, waiting = child.slot.batch, child.slot.recall()
        if waiting and (recalled := self.broker.give_back(child.key, waiting)):
            logger.info(
                "Gave back %s of a batch of worker %s that takes long",
                counted(recalled, "package"),
                child.process.pid,
                event="lease.batch_shared",
                extra=child.slot.log_labels,
            )
        child.recalled = batch

    def expire(self) -> None:
        """Give back the leases that no sentinel keeps: it died with its workers, on another machine."""
        if expired := self.broker.expire():
            logger.warning(
                "%s ran out, since no sentinel renewed them; their packages were given back",
                counted(expired, "lease"),
                event="lease.expired",
            )

    def reclaim(self, seconds: float = math.inf) -> None:
        """Give back the leases of the sentinel's dead workers. During an outage the workers are remembered.

        Args:
            seconds: How long to go on; the other workers are left to the next call.
        """
        begun = clock.now()
        for child in list(self.children.ended):
            try:
                self._reclaim(child)
            except BrokerError:
                raise
            except Exception:  # whatever fails for this worker, the packages of the others must not wait
                if not child.is_doubtful:
                    logger.exception(
                        "Could not give back the packages of worker %s",
                        child.process.pid,
                        event="lease.give_back_failed",
                    )
                child.is_doubtful = True
            else:
                self.children.ended.remove(child)
            if clock.now() - begun > seconds:
                return

    def _reclaim(self, child: Child) -> None:
        has_left = child.has_left and not child.slot.running  # in order, during an outage for example
        is_blameless = child.was_killed_for_another or has_left
        given = self.broker.reclaim(
            child.key,
            running=child.slot.running,
            give_up_reason=None if is_blameless else child.kill_reason,
            charged=not (child.is_stopped or is_blameless),
            death=child.how_it_died,
        )
        if given:
            logger.warning(
                "Gave back %s of worker %s",
                counted(given, "package"),
                child.process.pid,
                event="lease.given_back",
                extra=child.slot.log_labels,
            )

    def pass_on_cancels(self) -> None:
        """Pass the broker's cancels on to the workers that hold the leases."""
        reasons: dict[str, dict[str, str]] = {}
        for one in self.broker.cancelled():
            reasons.setdefault(one.worker, {})[one.id] = one.reason
        for child in self.children.workers:
            child.notify(reasons.get(child.key, {}))

    def pass_on_progress(self) -> None:
        """Pass on the new progress of leased packages to the broker, if it keeps progress."""
        if not self.broker.supports_tenant_queues:
            return
        found = [(child, report) for child in self.children.alive if (report := child.slot.progress)]
        new = [(child, report) for child, report in found if report[0] != child.progress]
        self.broker.set_progress({child.key: (id, progress) for child, (_, id, progress) in new})
        for child, (number, _, _) in new:
            child.progress = number
