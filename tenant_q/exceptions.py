"""Every error tenant_q raises or records, in one tree.

`TenantQError` is the root. Below it stand two families: errors a caller meets (`ConfigurationError`,
`EnqueueError`, `BrokerError`, …) and `TaskDeath`, one class per cause of death of a task. A death's class name and
text are what a tenant's failed row shows.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import SynchronousOnlyOperation


class TenantQError(Exception):
    """Root of all errors of tenant_q."""


# What a caller or operator meets


class ConfigurationError(TenantQError):
    """A setting is unknown, has the wrong type, or does not fit the others."""


class EnqueueError(TenantQError):
    """A package cannot be put on the queue: bad options, arguments that do not pickle, no tenant."""


class NoTenant(EnqueueError):
    """A task was enqueued, or a result asked for, where no tenant with task tables is current."""


class WrongArgument(EnqueueError, TypeError):
    """An argument of a call has the wrong type or an impossible value. It is a `TypeError` too."""


class InEventLoop(TenantQError, SynchronousOnlyOperation):
    """A call that needs the connection's tenant was made in a running event loop, whose coroutines share a connection.

    It is Django's `SynchronousOnlyOperation` too.
    """


class QueueFull(EnqueueError):
    """A tenant has as many tasks waiting as its policy's `max_queued` allows."""


class NotOffered(EnqueueError):
    """A tenant's staff asked to run what the project does not offer them."""


class BadSchedule(TenantQError):
    """A schedule's arguments, cron text or type cannot be understood."""


class BrokerError(TenantQError):
    """The broker cannot be reached, or serves no client at the moment: it is full, read-only, or lacks a permission."""


class EntryRefused(TenantQError):
    """The broker refuses one entry, and would refuse it again: it is too large, or its key has the wrong type."""


class BrokerDefect(TenantQError):
    """A script of tenant_q fails on the broker's server."""


class GroupTooLarge(TenantQError):
    """The parts of a group are together larger than their reader allows. `size` is their size in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"its parts take {size} bytes together")
        self.size = size


class UnsignedResult(TenantQError):
    """A task row holds a value that is not signed, and `TENANT_Q["signed_results"]` is set."""


class DatabaseAway(TenantQError):
    """The tenants' database cannot be reached: what was to be done is kept and tried again."""


class TenantUnavailable(TenantQError):
    """A tenant cannot be served: unknown, its schema missing, or not migrated."""


class UnknownTenant(TenantUnavailable):
    """No tenant row has this schema name. It may be in a transaction still open."""


class TenantDeleted(UnknownTenant):
    """The tenant that a task is to be enqueued for was deleted a short time ago."""


class TenantReplaced(TenantUnavailable):
    """The tenant that a package or a connection is for is gone, and another one has its schema's name now."""


class TenantNotReady(TenantUnavailable):
    """The tenant is there, and the project's `TENANT_Q["ready_tenants"]` does not let it through yet."""


class TenantBusy(TenantUnavailable):
    """The tenant's tables stay locked, by a migration as a rule."""


class TenantBroken(TenantUnavailable):
    """The tenant's tables cannot be read: a view or a trigger raises, a right is missing."""


class ForeignCode(TenantUnavailable):
    """The tenant's tables belong to another database role and would run that role's code with the cluster's rights."""


class ReplicaAway(TenantUnavailable):
    """One of the other databases whose schema is the task's cannot be reached."""


class TakenBack(TenantQError):
    """A transactional task is as if it had not run. `why` is the error that took it back."""

    def __init__(self, message: str, why: Exception) -> None:
        super().__init__(message)
        self.why = why


class CacheAway(TenantUnavailable):
    """The cache for a tenant's results cannot be reached."""


class LeaseLost(TenantQError):
    """The worker no longer holds the lease of a package that it ran; another worker may have run it."""


class CannotSave(TenantUnavailable):
    """The tenant's table refuses a result (disk full, a trigger), so a transactional task was taken back."""


class SchemaMissing(TenantUnavailable):
    """The tenant's row is there, its PostgreSQL schema is not."""


class SchemaNotMigrated(TenantUnavailable):
    """The tenant's schema is there, Django-Q2's tables in it are not."""


class ProgressError(TenantQError):
    """A task's progress cannot be set: outside of a task, or to something other than a fraction from 0 to 1."""


class BadPackage(TenantQError):
    """A package from the queue is refused: bad signature, removed class, or another tenant's queue.

    `package` holds the readable rest when the signature is right and only a class in it is gone, else None.
    """

    package: Any = None


class CancelException(SystemExit):
    """Raised in a running task that is cancelled; as with a timeout, `except Exception` lets it through."""


# Causes of death of a task


class TaskDeath(TenantQError):
    """A task ended without a result. Subclasses name the cause."""


class TaskTimeout(TaskDeath):
    """The task ran longer than its timeout.

    In the task itself Django-Q2's `TimeoutException` is raised, a `SystemExit`, which `except Exception` lets through.
    """


class TaskExited(TaskDeath):
    """The task called `sys.exit()`."""


class TaskCancelled(TaskDeath):
    """Somebody cancelled the task, before it ran or while it ran.

    In the task itself `CancelException` is raised.
    """


class CoroutineCancelled(TaskDeath):
    """The task raised `asyncio.CancelledError`: a coroutine of its own was cancelled, by nobody outside."""


class TaskInterrupted(TaskDeath):
    """The task raised `KeyboardInterrupt`."""


class TaskOutOfMemory(TaskDeath):
    """The task raised `MemoryError`."""


class RolledBack(TaskDeath):
    """A transactional task rolled its own transaction back."""


class UnknownFunction(TaskDeath):
    """The package's function cannot be imported."""


class UnpicklableResult(TaskDeath):
    """The task's return value cannot be pickled, so it cannot be saved."""


class OversizedResult(TaskDeath):
    """The task's return value is larger than `TENANT_Q["max_bytes"]`, or an iter's results than `max_list_bytes`."""


class ResultRefused(TaskDeath):
    """The server that stores the task's result refuses it, and would refuse it again."""


class WorkerDied(TaskDeath):
    """The worker process died while it ran the task, as often as `max_deliveries` allows."""


class ScheduleFailed(TaskDeath):
    """A schedule's occurrence could not be turned into a task."""
