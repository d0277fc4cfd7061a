"""A lease whose package has an outcome."""

from __future__ import annotations

from dataclasses import dataclass

from tenant_q.brokers.protocol import Lease
from tenant_q.lifecycle import step_engine
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.package import task_objects
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package


@dataclass(frozen=True, slots=True)
class Finished:
    """A lease whose package has an outcome, and which is not acknowledged yet."""

    lease: Lease
    outcome: Outcome

    @property
    def original(self) -> Package:
        """The package of a lease to be completed, as it was received."""
        delivered = Delivery(self.lease, self.outcome.package).original
        return task_objects.with_record_of(delivered, self.outcome.package)


def is_step(finished: Finished) -> bool:
    """Return whether what is finished is a step of a workflow."""
    return step_engine.engine_for(finished.outcome.package) is not None
