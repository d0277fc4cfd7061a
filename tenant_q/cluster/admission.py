"""Admit the packages of a batch: open them, and refuse those that must not run."""

from __future__ import annotations

from collections.abc import Sequence

from tenant_q import tenancy
from tenant_q.brokers.protocol import Lease, queue_names
from tenant_q.cluster.completer import Completer
from tenant_q.cluster.lease_returns import Returns, cause_of
from tenant_q.cluster.shared_memory import Slot
from tenant_q.exceptions import BadPackage, TenantReplaced, WorkerDied
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.operations import deleted_tenants
from tenant_q.package.envelope import Found, open_package
from tenant_q.package.outcome import give_up
from tenant_q.package.package import Package
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.worker")


class Admission:
    """Refused packages are dead-lettered, or get a failed row if their signature is right."""

    def __init__(self, slot: Slot, completer: Completer, returns: Returns) -> None:
        self.slot = slot
        self.completer = completer
        self.returns = returns

    def open_all(self, leases: Sequence[Lease]) -> list[Delivery]:
        """Admit a batch: return the deliveries of those of its packages that may run."""
        return [delivery for lease in leases if (delivery := self._open(lease))]

    def _open(self, lease: Lease) -> Delivery | None:
        try:
            package = open_package(lease.payload, Found(id=lease.id or None))
            _check_queue(lease, package)
        except BadPackage as error:
            if error.package is not None:  # the record of its failure names the error
                self.completer.add(lease, give_up(error.package, error))
                return None
            extra = {"schema": lease.schema, "task_id": lease.id}
            logger.error(
                "Refused package %s of %s: %s", lease.id, lease.schema, error, event="package.refused", extra=extra
            )
            self.returns.dead_letter_unread(lease, cause_of(error))
            return None
        # A task that kills workers gets its row after `max_deliveries` starts, so that was not the task.
        if (lease.starts or 0) >= 2 * package.max_deliveries:
            last = f"; the last one {lease.death}" if lease.death else ""
            cause = f"what follows the task, its row or its hook, killed the worker as well{last}"
            self.returns.dead_letter(lease, package, f"{WorkerDied.__name__}: {cause}")
            return None
        return Delivery(lease, package)

    def refuse_older(self, schema: str, waiting: list[Delivery]) -> None:
        """Refuse admission to the packages that are older than the tenant that has the schema now.

        Only packages of an earlier version name no tenant. The others become packages of this tenant.

        Args:
            schema: The schema, which must be current.
            waiting: Deliveries of one slice. The refused ones are removed.
        """
        key = tenancy.current_key(schema)
        for delivery in list(waiting):
            package = delivery.package
            if package.tenant is None and key:
                if tenancy.predates(package.option("started"), schema, key):
                    self._refuse(delivery, TenantReplaced(f"it is older than the tenant {schema!r}"))
                    waiting.remove(delivery)
                else:
                    package.task["tenant"] = key

    def refuse_all(self, waiting: list[Delivery], error: Exception) -> None:
        """Refuse admission to the packages of a tenant that is gone, and delete what else it left.

        Args:
            waiting: Deliveries of one slice, which are removed from the list.
            error: Why the tenant is gone.
        """
        gone = {(delivery.package.schema, delivery.package.tenant) for delivery in waiting}
        while waiting:
            self._refuse(waiting.pop(0), error)
        for schema, tenant in gone:
            deleted_tenants.forget_if_gone(schema, tenant)

    def _refuse(self, delivery: Delivery, error: Exception) -> None:
        self.slot.skip()
        self.returns.dead_letter(delivery.lease, delivery.package, cause_of(error))


def _check_queue(lease: Lease, package: Package) -> None:
    """Check before the admission of a package that it was in a queue of its tenant.

    Raises:
        BadPackage: It was in the queue of another tenant.
    """
    tenant = package.tenant or None
    if not lease.schema or lease.schema in queue_names(package.schema, tenant):
        return
    names = tenancy.names_of(tenant) if tenant else []
    if not any(lease.schema in queue_names(name, tenant) for name in names):
        raise BadPackage(
            f"it belongs to tenant {package.schema!r} and was found in the queue of {lease.schema!r}; purge it, "
            "and find out who moved it"
        )
