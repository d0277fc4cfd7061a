"""The calls that enqueue tasks and create schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django_q.models import Schedule

from tenant_q.lifecycle import submit
from tenant_q.package.option_types import Func, QOptions
from tenant_q.schedules import schedule_rows
from tenant_q.support.call_checks import require
from tenant_q.tenancy import call_for_coroutine
from tenant_q.utils.addressing import addressed

if TYPE_CHECKING:
    from django_q.brokers import Broker

_SCHEDULE_FIELDS = {
    "name": "name",
    "hook": "hook_path",
    "cron": "cron",
    "cluster": "cluster",
    "next_run": "next_run",
    "intended_date_kwarg": "intended_date_kwarg",
}


class EnqueueCalls:
    """The part of `QUtilities` that enqueues."""

    @staticmethod
    def add_async_task(
        func: Func,
        *args: Any,
        q_options: QOptions | dict[str, Any] | None = None,
        schema_name: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Enqueue a task for a tenant, or run it in this process with `sync=True`.

        Args:
            func: A dotted path, or a function defined at the top level of a module.
            *args: The positional arguments of the function.
            q_options: The options of the task: Django-Q2's, and our own such as `delay`, `max_attempts` and
                `transactional`.
            schema_name: The schema of the tenant; None for the current one.
            **kwargs: The keyword arguments of the function. Django-Q2's options `hook`, `group`, `save`, `sync`,
                `cached`, `ack_failure`, `cluster`, `timeout` (seconds), `task_name` and `broker` are taken out of them.

        Returns:
            The id of the task.

        Raises:
            EnqueueError: A value does not pickle, an option is unknown or has a wrong value, or the queue is full.
            BrokerError: The broker does not answer.
            Exception: With `sync=True`, the error that the task raised.
        """
        return submit.submit(func, args, _with_options(kwargs, q_options), schema=schema_name)

    @staticmethod
    async def aadd_async_task(
        func: Func,
        *args: Any,
        q_options: QOptions | dict[str, Any] | None = None,
        schema_name: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Enqueue a task from a coroutine, as `add_async_task`, without blocking the event loop.

        Args:
            func: A dotted path, or a function defined at the top level of a module.
            *args: The positional arguments of the function.
            q_options: The options of the task.
            schema_name: The schema of the tenant; None for that of the coroutine's block `async with in_schema(...)`,
                or else of the task that the coroutine belongs to.
            **kwargs: The keyword arguments of the function, and Django-Q2's options as in `add_async_task`.

        Returns:
            The id of the task.

        Raises:
            InEventLoop: The coroutine has no tenant, and `schema_name` is None.
            EnqueueError: A value does not pickle, an option is unknown or has a wrong value, or the queue is full.
            BrokerError: The broker does not answer.
            Exception: With `sync=True`, the error that the task raised.
        """
        keywords = _with_options(kwargs, q_options)

        def enqueue(schema: str, tenant: str | None) -> str:
            return submit.submit(func, args, keywords, schema=schema, tenant=tenant)

        return await call_for_coroutine("aadd_async_task()", enqueue, schema_name)

    @staticmethod
    def add_async_tasks_from_iter(
        func: Func,
        args_iter: Sequence[Any],
        schema_name: str | None = None,
        *,
        q_options: QOptions | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> str:
        """Enqueue one task for each set of arguments, in bulk.

        Args:
            func: A dotted path, or a function defined at the top level of a module.
            args_iter: The arguments of each task: a tuple, or a single argument.
            schema_name: The schema of the tenant; None for the current one.
            q_options: The options of every task. `hook` is called once, with the list of all results.
            **kwargs: The keyword arguments of every task, and Django-Q2's options as in `add_async_task`.

        Returns:
            The id of the iter. `get_result` returns its list of results, in the order of `args_iter`.

        Raises:
            EnqueueError: `args_iter` is empty, a value does not pickle, an option is unknown or has a wrong value, or
                the queue is full.
            BrokerError: The broker does not answer.
            Exception: With `sync=True`, the error that a task raised.
        """
        return submit.submit_iter(func, args_iter, _with_options(kwargs, q_options), schema=schema_name)

    @staticmethod
    def create_async_tasks_chain(
        chain: Sequence[Any],
        group: str | None = None,
        cached: bool | int | None = None,
        sync: bool | None = None,
        broker: Broker | None = None,
        schema_name: str | None = None,
        *,
        pass_result: bool = False,
        hook: Func | None = None,
    ) -> str:
        """Enqueue a chain: tasks that run one after another. A link that fails ends it.

        Args:
            chain: The links: tuples `(func, args, kwargs)`, of which the last two are optional.
            group: The id of the group of all links, for which `get_status` knows no state, as several chains may have
                it; None for a new one.
            cached: Whether, or for how many seconds, results are kept in the cache instead of the tenant's table; None
                for the setting `Q_CLUSTER["cached"]`.
            sync: Whether to run the chain in this process; None for the setting `Q_CLUSTER["sync"]`.
            broker: A broker of Django-Q2 for the first link; None for the configured one.
            schema_name: The schema of the tenant; None for the current one.
            pass_result: Whether each link gets the result of the one before it as its first argument.
            hook: A function, or its path, that is called once when the chain ends: with the last link's task, or with
                that of the link that failed.

        Returns:
            The id of the group. If `group` is None, `get_status` returns the state of the chain for it.

        Raises:
            EnqueueError: The chain is empty, a value does not pickle, an option has a wrong value, or the queue is
                full.
            BrokerError: The broker does not answer.
            Exception: With `sync=True`, the error that a link raised.
        """
        return submit.submit_chain(
            chain,
            schema=schema_name,
            pass_result=pass_result,
            hook=hook,
            group=group,
            cached=cached,
            sync=sync,
            broker=broker,
        )

    @staticmethod
    def create_schedule(func: Func, *args: Any, schema_name: str | None = None, **kwargs: Any) -> Schedule:
        """Create a schedule in a tenant's schema.

        Args:
            func: A dotted path, the name of a declared task, or a function defined at the top level of a module, which
                is stored by its name or path.
            *args: The positional arguments of the function, which must be literals.
            schema_name: The schema of the tenant; None for the current one.
            **kwargs: The keyword arguments of the function. Django-Q2's fields `name`, `hook`, `schedule_type`,
                `minutes`, `repeats`, `next_run`, `cron`, `cluster` and `intended_date_kwarg` are taken out of them;
                `q_options` are the options of each task.

        Returns:
            The saved schedule.

        Raises:
            IntegrityError: The tenant has a schedule of that name.
            ValidationError: A field has a wrong value, or the schedule could only fail.
        """
        require("create_schedule", func=func, **_schedule_fields(kwargs))
        with addressed(schema_name):
            return schedule_rows.create(func, args, kwargs)

    @staticmethod
    def ensure_schedule(name: str, func: Func, *args: Any, schema_name: str | None = None, **kwargs: Any) -> Schedule:
        """Create the schedule of a name in a tenant's schema, or change it to be as this call describes it.

        An existing schedule keeps its next run, unless the recurrence changes or `next_run` is given, and stays paused
        if it is. It keeps its repeats unless they are given. A schedule that is as described is not written.

        Args:
            name: The name of the schedule.
            func: As for `create_schedule`.
            *args: As for `create_schedule`.
            schema_name: The schema of the tenant; None for the current one.
            **kwargs: As for `create_schedule`, without `name`.

        Returns:
            The saved schedule.

        Raises:
            BadSchedule: The schedule comes from code, which determines it.
            ValidationError: A field has a wrong value, or the schedule could only fail.
        """
        require("ensure_schedule", name=name, func=func, **_schedule_fields(kwargs))
        with addressed(schema_name):
            return schedule_rows.ensure(name, func, args, kwargs)


def _with_options(kwargs: dict[str, Any], q_options: QOptions | dict[str, Any] | None) -> dict[str, Any]:
    return kwargs if q_options is None else kwargs | {"q_options": q_options}


def _schedule_fields(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return those keywords of `create_schedule` whose types Django does not check, by their names for `require`."""
    return {checked: kwargs[name] for name, checked in _SCHEDULE_FIELDS.items() if name in kwargs}
