"""The calls that follow a task from outside: its state, its progress, its cancellation, and the size of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenant_q.brokers import get_broker
from tenant_q.lifecycle import cancel_many, current_task, progress, task_state
from tenant_q.states import CurrentTask, Progress, State
from tenant_q.support.call_checks import require
from tenant_q.tenancy import (
    call_for_coroutine,
    current_schema,
    is_in_event_loop,
    public_has_tasks,
    public_schema,
    require_authorized,
    task_schema,
)
from tenant_q.utils.addressing import addressed

if TYPE_CHECKING:
    from django_q.brokers import Broker


class TrackingCalls:
    """The part of `QUtilities` that follows tasks."""

    @staticmethod
    def get_status(task_id: str, schema_name: str | None = None) -> State:
        """Track a task: return its present state.

        A task that is not running is "cancelled" as soon as `cancel` returns. An iter is "running" from the start of
        its first part until all parts have ended, and a chain from the start of its first link until its last one has
        ended. A link that failed or was cancelled gives the chain its state.

        Args:
            task_id: The id of the task, of the iter, or of a chain whose group was not named.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The state, which is a `str`: "queued", "delayed", "running" (from the moment a worker receives the task),
            "success", "failure", "cancelled" or "unknown". A task without a trace is "unknown": another tenant's task,
            one that is enqueued by a commit that has not come yet, or a success with `save=False`.

        Raises:
            BrokerError: The broker does not answer.
            ConfigurationError: The task has not finished, and the broker is not Redis.
        """
        require("get_status", task_id=task_id)
        with addressed(schema_name) as schema:
            return task_state.state_of(schema, task_id)

    @staticmethod
    async def aget_status(task_id: str, schema_name: str | None = None) -> State:
        """Track a task from a coroutine: return its state as `get_status`, without blocking the event loop.

        Args:
            task_id: The id of the task.
            schema_name: The schema of the tenant; None for that of the coroutine.

        Returns:
            The state, as `get_status` returns it.

        Raises:
            InEventLoop: The coroutine has no tenant, and `schema_name` is None.
            BrokerError: The broker does not answer.
            ConfigurationError: The task has not finished, and the broker is not Redis.
        """
        return await call_for_coroutine(
            "aget_status()", lambda schema, _: TrackingCalls.get_status(task_id, schema), schema_name
        )

    @staticmethod
    def cancel(task_id: str, schema_name: str | None = None, *, by: str = "") -> bool:
        """Cancel a task, an iter or a chain by its id. A cancelled task's failed row has a text with "TaskCancelled".

        A queued task never runs. A running task gets a `CancelException` within about a second; if it continues for
        three more seconds, its worker is killed and replaced. The task may still succeed first. A cancelled link ends
        its chain, and a cancelled part makes its iter a failure. The id of an iter or of a chain cancels all of it that
        has not ended.

        Args:
            task_id: The id of the task, of the iter, or of a chain whose group was not named.
            schema_name: The schema of the tenant; None for the current one.
            by: Who cancels the task, for the audit trail and the failed row.

        Returns:
            Whether the task will not run or is being stopped, also if it was cancelled before; False if it is unknown
            or has finished.

        Raises:
            BrokerError: The broker does not answer.
            ConfigurationError: The broker is not Redis.
        """
        require("cancel", task_id=task_id, by=by)
        with addressed(schema_name) as schema:
            return cancel_many.cancel(schema, task_id, by=by)

    @staticmethod
    def cancel_group(group_id: str, schema_name: str | None = None, *, by: str = "") -> int:
        """Cancel the tasks of a group, each as `cancel` does. Tasks that join the group later are not cancelled.

        The whole queue of the tenant is read, in slices: about a second for 50,000 tasks.

        Args:
            group_id: The id of the group.
            schema_name: The schema of the tenant; None for the current one.
            by: Who cancels the tasks, for the audit trail, which has one record for all, and for the failed rows.

        Returns:
            The number of tasks that will not run or are being stopped. Those that were cancelled before do not count.

        Raises:
            BrokerError: The broker does not answer.
            ConfigurationError: The broker is not Redis.
        """
        require("cancel_group", group_id=group_id, by=by)
        with addressed(schema_name) as schema:
            return cancel_many.cancel_group(schema, group_id, by=by)

    @staticmethod
    def current_task() -> CurrentTask | None:
        """Return the task that runs here: its id, attempt, deadline and more.

        It may be called in coroutines of a task, and in threads that a task starts through asgiref. In a thread that a
        task starts itself it returns None, unless the thread runs in a copy of the task's context.

        Returns:
            The task; None outside of a task, and in hooks, which get their task as an argument.
        """
        return current_task.current_task()

    @staticmethod
    async def acancel(task_id: str, schema_name: str | None = None, *, by: str = "") -> bool:
        """Cancel a task from a coroutine, as `cancel`, without blocking the event loop.

        Args:
            task_id: The id of the task.
            schema_name: The schema of the tenant; None for that of the coroutine.
            by: Who cancels the task, for the audit trail and the failed row.

        Returns:
            Whether the task will not run or is being stopped, as `cancel` returns it.

        Raises:
            InEventLoop: The coroutine has no tenant, and `schema_name` is None.
            BrokerError: The broker does not answer.
            ConfigurationError: The broker is not Redis.
        """
        return await call_for_coroutine(
            "acancel()", lambda schema, _: TrackingCalls.cancel(task_id, schema, by=by), schema_name
        )

    @staticmethod
    async def acancel_group(group_id: str, schema_name: str | None = None, *, by: str = "") -> int:
        """Cancel the tasks of a group from a coroutine, as `cancel_group`, without blocking the event loop.

        Args:
            group_id: The id of the group.
            schema_name: The schema of the tenant; None for that of the coroutine.
            by: Who cancels the tasks, for the audit trail and the failed rows.

        Returns:
            The number of tasks, as `cancel_group` returns it.

        Raises:
            InEventLoop: The coroutine has no tenant, and `schema_name` is None.
            BrokerError: The broker does not answer.
            ConfigurationError: The broker is not Redis.
        """
        return await call_for_coroutine(
            "acancel_group()", lambda schema, _: TrackingCalls.cancel_group(group_id, schema, by=by), schema_name
        )

    @staticmethod
    def set_progress(fraction: float, text: str = "") -> None:
        """Report the progress of the running task to those who track it. It is cheap enough for a tight loop.

        Args:
            fraction: The part of the work that is done, from 0 to 1.
            text: A text for people, of which 400 bytes are kept.

        Raises:
            ProgressError: No task runs here, as in a thread that a task has started, or the fraction is out of range.
        """
        progress.report(fraction, text)

    @staticmethod
    def get_progress(task_id: str, schema_name: str | None = None) -> Progress | None:
        """Track the progress of a running task: return its last report, at most about half a second old.

        Args:
            task_id: The id of the task.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The `fraction` and the `text`; None if the task has reported none, or does not run. The progress of a task
            in sync mode is known only within that task.

        Raises:
            BrokerError: The broker does not answer.
            ConfigurationError: The broker is not Redis.
        """
        require("get_progress", task_id=task_id)
        with addressed(schema_name) as schema:
            return progress.read(schema, task_id)

    @staticmethod
    def get_queue_size(broker: Broker | None = None, schema_name: str | None = None) -> int:
        """Return the size of a tenant's queue: the number of its queued tasks.

        Args:
            broker: A broker of Django-Q2; None for the configured one.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The number of queued tasks; of all tenants if the public schema is current and has no tasks of its own, or
            if the broker is not Redis: such a broker has one queue.

        Raises:
            BrokerError: The broker does not answer.
        """
        require("get_queue_size", broker=broker, schema_name=schema_name)
        schema = task_schema(schema_name) if schema_name or is_in_event_loop() else current_schema()
        require_authorized(schema)
        counts_all = schema == public_schema() and not public_has_tasks()
        return get_broker(broker=broker).queue_size(None if counts_all else schema)
