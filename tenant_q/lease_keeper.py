"""What the sentinel does about leases: it renews, recalls and gives them back, and passes on what concerns one."""

from __future__ import annotations

from tenant_q import clock
from tenant_q.brokers import uses_redis
from tenant_q.brokers.protocol import Broker
from tenant_q.child import Child
from tenant_q.children import Children
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError
from tenant_q.labels import get_logger

logger = get_logger("tenant_q.sentinel")  # whose work it is

# Packages of a batch that have waited this long for their turn are given back.
RECALL_SECONDS = 0.25


class LeaseKeeper:
    """Its methods raise `BrokerError` in an outage, and are called again then."""

    def __init__(self, broker: Broker, children: Children) -> None:
        self.broker = broker
        self.children = children
        # Since the last renewal. When it answers again it may be another server, which lacks the last leases.
        self._has_missed_the_broker = False

    def note_outage(self) -> None:
        """Take note that the broker did not answer."""
        self._has_missed_the_broker = True

    def renew(self) -> None:
        """Extend the leases of every living worker, and have the workers know until when they are good."""
        workers = list(self.children.workers)
        sent = clock.now()
        self.broker.renew([child.key for child in workers], conf().lease)
        answered, is_unbroken = clock.now(), not self._has_missed_the_broker
        for child in workers:
            child.slot.renew(sent, answered, conf().lease, is_unbroken=is_unbroken)
        self._has_missed_the_broker = False

    def recall(self) -> None:
        """Give back what waits in batches that turned out long. Other brokers than Redis have no leases to give."""
        if not uses_redis():
            return
        for child in self.children.workers:
            if child.recalled != child.slot.batch and child.slot.waiting_seconds > RECALL_SECONDS:
                self._recall(child)

    def _recall(self, child: Child) -> None:
        batch, waiting = child.slot.batch, child.slot.recall()
        if waiting and (recalled := self.broker.give_back(child.key, waiting)):
            logger.info(
                "%s packages of a batch of worker %s that takes long are given back",
                recalled,
                child.process.pid,
                extra=child.slot.labels,
            )
        child.recalled = batch

    def expire(self) -> None:
        """Give back what other machines' workers held that are gone with their sentinels."""
        if expired := self.broker.expire():
            logger.warning("%s leases ran out with nobody left to see their worker; given back", expired)

    def reclaim(self) -> None:
        """Give back what dead workers held. During an outage they are remembered."""
        for child in list(self.children.ended):
            try:
                self._reclaim(child)
            except BrokerError:
                raise
            except Exception:  # whatever it is about this one, the others' packages do not wait for it
                if not child.is_doubtful:
                    logger.exception("What worker %s held is not given back yet", child.process.pid)
                child.is_doubtful = True
            else:
                self.children.ended.remove(child)

    def _reclaim(self, child: Child) -> None:
        has_left = child.has_left and not child.slot.running  # in order, during an outage for example
        innocent = child.was_killed_for_another or has_left
        given = self.broker.reclaim(
            child.key,
            running=child.slot.running,
            verdict=None if innocent else child.verdict,
            charged=not (child.is_stopped or innocent),
            death=child.how_it_died,
        )
        if given:
            logger.warning("%s packages of worker %s are given back", given, child.process.pid, extra=child.slot.labels)

    def pass_on_cancels(self) -> None:
        """Have workers end the packages that were cancelled while they hold them."""
        verdicts: dict[str, dict[str, str]] = {}
        for one in self.broker.cancelled():
            verdicts.setdefault(one.worker, {})[one.id] = one.verdict
        for child in self.children.workers:
            child.tell(verdicts.get(child.key, {}))

    def pass_on_progress(self) -> None:
        """Tell the broker how far tasks are, where that is new. Other brokers than Redis keep no progress."""
        if not uses_redis():
            return
        found = [(child, told) for child in self.children.alive if (told := child.slot.progress)]
        new = [(child, told) for child, told in found if told[0] != child.progress]
        self.broker.set_progress({child.key: (id, progress) for child, (_, id, progress) in new})
        for child, (times, _, _) in new:
            child.progress = times
