"""Every error tenant_q raises or records, in one tree.

`TenantQError` is the root. Below it stand two families: errors a caller meets (`ConfigurationError`,
`EnqueueError`, `BrokerError`, ...) and `TaskDeath`, with one class for each cause of death of a task. The failed row of
a task shows the class name and the text of its death.
"""

from __future__ import annotations

from datetime import timedelta
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
    """A task was enqueued or a result requested while no tenant with task tables was current."""


class WrongArgument(EnqueueError, TypeError):
    """An argument of a call has the wrong type or an invalid value. It is also a `TypeError`."""


class InEventLoop(TenantQError, SynchronousOnlyOperation):
    """A call that needs the connection's tenant was made in a running event loop, whose coroutines share a connection.

    It is also a `SynchronousOnlyOperation` of Django.
    """


class QueueFull(EnqueueError):
    """A tenant already has as many queued tasks as `max_queued` in its policy allows."""


class NotOffered(EnqueueError):
    """A tenant's staff tried to run a function that the project does not offer them."""


class TenantLeaving(EnqueueError):
    """The tenant is being decommissioned, so nothing more is enqueued for it."""


class TenantNotAuthorized(TenantQError):
    """The code is restricted to one tenant, and has named another one or the public schema."""


class ProvisioningError(TenantQError):
    """A tenant's role cannot be created, changed, checked or dropped. The message names the way out."""


class BadSchedule(TenantQError):
    """The arguments, cron text or type of a schedule are invalid."""


class WorkflowError(TenantQError):
    """A workflow is declared wrongly or unknown, its input does not fit, or a run does not allow the operation."""


class KeyReused(WorkflowError):
    """A run was started with the key of another run of the workflow, whose input is another one."""


class BrokerError(TenantQError):
    """The broker cannot be reached, or cannot serve clients now: it is full, read-only, or lacks a permission."""


class EntryRefused(TenantQError):
    """The broker refused one entry and would refuse it again: the entry is too large, or its key has the wrong type."""


class BrokerDefect(TenantQError):
    """A script of tenant_q failed on the broker's server."""


class GroupTooLarge(TenantQError):
    """The parts of a group are together larger than the limit.

    Attributes:
        size: The size of all parts, in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"its parts take {size} bytes together")
        self.size = size


class UnsignedResult(TenantQError):
    """A task row holds a value that is not signed, and `TENANT_Q["signed_results"]` is set."""


class TaskFailed(TenantQError):
    """The result of a task was requested with `raise_failure=True`, and the task has failed.

    Attributes:
        id: The id of the task.
        cause: The name of the class of the error, such as "ValueError" or "TaskTimeout".
        message: The message of the error.
        traceback: The text of the traceback; empty if there is none.
    """

    def __init__(self, id: str, cause: str, message: str, traceback: str = "") -> None:
        super().__init__(id, cause, message, traceback)  # all arguments, so that it pickles
        self.id, self.cause, self.message, self.traceback = id, cause, message, traceback

    def __str__(self) -> str:
        return f"Task {self.id} failed: {': '.join(filter(None, (self.cause, self.message)))}"


class DatabaseAway(TenantQError):
    """The tenants' database cannot be reached. The pending work is kept and tried again."""


class LoginAway(DatabaseAway):
    """The tenants' database cannot be reached, so a tenant's role got no session. Its task has not failed."""


class TenantUnavailable(TenantQError):
    """A tenant cannot be served: for example, it is unknown, or its schema is missing or not migrated."""


class UnknownTenant(TenantUnavailable):
    """No tenant has this schema name. Its row may be in a transaction that is still open."""


class TenantDeleted(UnknownTenant):
    """A task was enqueued for a tenant that was deleted a short time ago."""


class TenantReplaced(TenantUnavailable):
    """The tenant of a package or a connection is gone, and another tenant has its schema name now."""


class TenantNotReady(TenantUnavailable):
    """The tenant exists, but is not served yet: `TENANT_Q["ready_tenants"]` holds it back, or its role is missing."""


class TenantBusy(TenantUnavailable):
    """The tenant's tables stay locked, usually by a migration."""


class SessionLimit(TenantBusy):
    """The tenant's role, or the server, has as many sessions as it may."""


class LoginRefused(TenantNotReady):
    """The tenant's role cannot log in, so its tasks wait until the role is repaired."""


class TenantBroken(TenantUnavailable):
    """The tenant's tables cannot be read: a view or a trigger raises an error, or a permission is missing."""


class ForeignCode(TenantUnavailable):
    """The tenant's tables belong to another database role and would run that role's code with the cluster's rights."""


class ReplicaAway(TenantUnavailable):
    """One of the further databases in which the task's schema is current cannot be reached."""


class TakenBack(TenantQError):
    """A transactional task was rolled back, so it counts as not run.

    Attributes:
        why: The error that caused the rollback.
    """

    def __init__(self, message: str, why: Exception) -> None:
        super().__init__(message)
        self.why = why


class CacheAway(TenantUnavailable):
    """The cache for a tenant's results cannot be reached."""


class LeaseLost(TenantQError):
    """The worker no longer holds the lease of a package that it ran; another worker may have run the package."""


class StepGone(TenantQError):
    """A step of a workflow is not ready any more, so its work is rolled back."""


class CannotSave(TenantUnavailable):
    """The tenant's table refuses a result (full disk, a trigger), so a transactional task was rolled back."""


class SchemaMissing(TenantUnavailable):
    """The tenant has a row, but its PostgreSQL schema does not exist."""


class SchemaNotMigrated(TenantUnavailable):
    """The tenant's schema exists, but has no tables of Django-Q2."""


class ProgressError(TenantQError):
    """A task's progress cannot be set: outside of a task, or to something other than a fraction from 0 to 1."""


class BadPackage(TenantQError):
    """A package from the queue is refused: bad signature, removed class, or another tenant's queue.

    Attributes:
        package: The readable rest of the package if the signature is right and only a class in it is gone; else None.
    """

    package: Any = None


class Retry(TenantQError):
    """A task raises it to be started again later. It counts as a failed attempt, whatever `retry_on` says.

    Args:
        text: Why, for the log and for the failed row after the last attempt.
        delay: The seconds until the next start, or a timedelta; None for the delay that the task's options say.
        cause: The error behind it, which the failed row names in its place.
    """

    def __init__(
        self, text: str = "", *, delay: float | timedelta | None = None, cause: BaseException | None = None
    ) -> None:
        super().__init__(text or (str(cause) if cause else "the task asked for another attempt"))
        self.delay = delay.total_seconds() if isinstance(delay, timedelta) else delay
        self.cause = cause


class CancelException(SystemExit):
    """The error that a cancelled running task gets. As with a timeout, `except Exception` does not catch it."""


# Causes of death of a task


class TaskDeath(TenantQError):
    """A task ended without a result. Subclasses name the cause."""


class TaskTimeout(TaskDeath):
    """The task ran longer than its timeout.

    The task itself gets Django-Q2's `TimeoutException`, a `SystemExit`, which `except Exception` does not catch.
    """


class TaskExited(TaskDeath):
    """The task called `sys.exit()`."""


class TaskCancelled(TaskDeath):
    """Somebody cancelled the task, before it ran or while it ran.

    The task itself gets `CancelException`.
    """


class TaskPurged(TaskDeath):
    """An operator purged the tenant's queue. Only the iters and chains that this has ended have rows with it."""


class TaskExpired(TaskDeath):
    """The task had not been started when its option `expires` ran out, so it was not started any more."""


class CoroutineCancelled(TaskDeath):
    """The task raised `asyncio.CancelledError`: it cancelled a coroutine of its own; nobody cancelled the task."""


class TaskInterrupted(TaskDeath):
    """The task raised `KeyboardInterrupt`."""


class TaskOutOfMemory(TaskDeath):
    """The task raised `MemoryError`."""


class RolledBack(TaskDeath):
    """A transactional task rolled back its own transaction."""


class UnknownFunction(TaskDeath):
    """The package's function cannot be imported."""


class UnpicklableResult(TaskDeath):
    """The task's return value cannot be pickled, so it cannot be saved."""


class OversizedResult(TaskDeath):
    """The task's return value is larger than `TENANT_Q["max_bytes"]`, or an iter's results than `max_list_bytes`."""


class ValueRefused(TaskDeath):
    """A step of a workflow returned or set a value that cannot be kept: it is not JSON, or too large."""


class ItemsRefused(TaskDeath):
    """A step of a workflow is to run once for each item of a value that is no list, or has too many items."""


class RunTimeout(TaskDeath):
    """A run of a workflow did not end before its deadline."""


class ResultRefused(TaskDeath):
    """The server that stores the task's result refused it and would refuse it again."""


class WorkerDied(TaskDeath):
    """The worker process died while it ran the task, for the last time that `max_deliveries` allows."""


class ScheduleFailed(TaskDeath):
    """A planned run of a schedule could not be turned into a task."""
