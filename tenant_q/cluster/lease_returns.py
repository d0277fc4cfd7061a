"""Return leases to the broker without an acknowledgement: given back, put off, or dead-lettered."""

from __future__ import annotations

from collections.abc import Sequence

from tenant_q.brokers.protocol import Broker, Lease
from tenant_q.cluster.shared_memory import Slot
from tenant_q.exceptions import BrokerDefect, EntryRefused
from tenant_q.package.envelope import seal
from tenant_q.package.package import Package
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.worker")


class Returns:
    """The leases that the worker `key` returns. All methods may raise `BrokerError`."""

    def __init__(self, key: str, broker: Broker, slot: Slot) -> None:
        self.key = key
        self.broker = broker
        self.slot = slot

    def give_back(self, leases: Sequence[Lease]) -> None:
        """Return leases of packages that were not started, which go to the heads of their queues."""
        self.broker.give_back(self.key, leases)
        self.slot.skip(len(leases))  # last: while the broker is away, the sentinel still knows the unstarted packages

    def put_off(
        self, lease: Lease, package: Package, *, delay: float, seconds: float = 0.0, unready: bool = False
    ) -> None:
        """Return a lease so that its package is delivered again later.

        Args:
            lease: Its lease.
            package: The package to deliver.
            delay: The seconds until its delivery.
            seconds: The worker-seconds that it used.
            unready: Whether it waits until its tenant can be served.

        Raises:
            EntryRefused: The broker refuses the package: it may be too large now.
            BrokerDefect: The broker refuses it for another reason.
        """
        self.broker.put_off(self.key, lease, delay=delay, payload=seal(package), seconds=seconds, unready=unready)

    def put_off_or_dead_letter(
        self, lease: Lease, package: Package, error: Exception, *, delay: float, unready: bool = False
    ) -> None:
        """Return a lease to put its package off, or dead-letter the package if the broker refuses that.

        Args:
            lease: Its lease.
            package: The package to deliver.
            error: Why it is put off, which is a part of the cause of the dead letter.
            delay: The seconds until its delivery.
            unready: Whether it waits until its tenant can be served.
        """
        try:
            self.put_off(lease, package, delay=delay, unready=unready)
        except (EntryRefused, BrokerDefect) as refusal:
            self.dead_letter(lease, package, f"{cause_of(error)} It cannot be put off: {refusal}")

    def dead_letter(self, lease: Lease, package: Package, cause: str) -> None:
        """Return a lease by moving its package to the dead letters, and log the cause."""
        logger.error(
            "Dead-lettered package %s: %s", lease.id, cause, event="package.dead_lettered", extra=package.log_labels
        )
        self.broker.dead_letter(self.key, lease, cause)

    def dead_letter_unread(self, lease: Lease, cause: str) -> None:
        """Return a lease by moving its package, which cannot be read, to the dead letters."""
        self.broker.dead_letter(self.key, lease, cause)


def cause_of(error: Exception) -> str:
    """Return the cause for returning a lease to the dead letters: the class and the message of the error."""
    return f"{type(error).__name__}: {error}"
