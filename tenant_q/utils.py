"""`QUtilities`: tasks and schedules for the current tenant, or for another one by `schema_name`.

Each method has the signature and the defaults of Django-Q2's function of the same job. `cached=None` means what
`Q_CLUSTER["cached"]` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django_q.models import Schedule, Task

from tenant_q.brokers import get_broker
from tenant_q.conf import conf
from tenant_q.lifecycle import cached as cached_results
from tenant_q.lifecycle import cancel, progress, results, state, submit
from tenant_q.schedules import schedule_rows
from tenant_q.states import Progress, State
from tenant_q.support.call_checks import require
from tenant_q.tenancy import (
    current_schema,
    in_verified_schema,
    is_in_event_loop,
    public_schema,
    task_schema,
    verify,
)


@contextmanager
def _tenant(schema_name: str | None) -> Iterator[str]:
    """A block in the schema `schema_name`, or in the current one when it is None."""
    schema = task_schema(schema_name)
    if schema == current_schema():
        if schema != public_schema():
            verify(schema)  # else what is missing there would be found, written or deleted in `public`
        yield schema
    else:
        with in_verified_schema(schema):
            yield schema


class QUtilities:
    """The calls of `django_q.tasks`, per tenant.

    All raise `UnknownTenant` when no tenant has that `schema_name`, and all but `get_queue_size` raise `NoTenant` when
    the public schema is current and has no task tables. Those that read or write rows raise `SchemaMissing` or
    `SchemaNotMigrated` when the tenant has none. An argument of a wrong type raises `WrongArgument`, a `TypeError`.

    In a running event loop all but `set_progress` raise `InEventLoop`. A coroutine of a task may still enqueue for that
    task's tenant, and ask for the size of its queue.
    """

    @staticmethod
    def add_async_task(func: Any, *args: Any, schema_name: str | None = None, **kwargs: Any) -> str:
        """Put a task on the tenant's queue, or run it here and now with `sync=True`.

        Parameters: `func`, a dotted path or a function defined at a module's top level; `args` and `kwargs`, its own,
        and among them Django-Q2's options `hook`, `group`, `save`, `sync`, `cached`, `ack_failure`, `cluster`,
        `timeout` (seconds), `task_name`, `broker`; all of these also in `q_options={...}`, together with our own,
        such as `delay`, `max_attempts` and `transactional`.

        Returns the task's id. Raises `EnqueueError` when something does not pickle or an option is unknown,
        `BrokerError` when the broker is away; in sync mode what the task raised.
        """
        return submit.submit(func, args, kwargs, schema=schema_name)

    @staticmethod
    def create_schedule(func: str, *args: Any, schema_name: str | None = None, **kwargs: Any) -> Schedule:
        """Create a schedule in the tenant's schema.

        Parameters: as `django_q.tasks.schedule`: `func`, a dotted path; `args` and `kwargs` for it; and `name`, `hook`,
        `schedule_type`, `minutes`, `repeats`, `next_run`, `cron`, `cluster`, `intended_date_kwarg`.

        Returns the `Schedule`. Raises `IntegrityError` when the tenant has one of that name, `ValidationError` when a
        field is wrong, `WrongArgument` where one has a wrong type.
        """
        require("create_schedule", func_path=func, **_schedule_fields(kwargs))
        with _tenant(schema_name):
            return schedule_rows.create(func, args, kwargs)

    @staticmethod
    def get_result(
        task_id: str, wait: int = 0, cached: bool | int | None = None, schema_name: str | None = None
    ) -> Any:
        """The result of a task, by its id or name.

        Parameters: `wait`, how many milliseconds to wait for it (negative: for ever); `cached`, whether to look in the
        cache instead of the tenant's table.

        Returns None when there is none yet, or when another tenant's task has that id.
        """
        task = QUtilities.fetch_task(task_id, wait, cached, schema_name)
        return None if task is None else task.result

    @staticmethod
    def fetch_task(
        task_id: str, wait: int = 0, cached: bool | int | None = None, schema_name: str | None = None
    ) -> Task | None:
        """The finished task itself, by its id or name; parameters as for `get_result`."""
        require("fetch_task", task_id=task_id, wait=wait, cached=cached)
        with _tenant(schema_name):
            return _wait_for(task_id, wait, cached)

    @staticmethod
    def get_result_group(
        group_id: str,
        failures: bool = False,
        wait: int = 0,
        count: int | None = None,
        cached: bool | int | None = None,
        schema_name: str | None = None,
    ) -> list[Any] | None:
        """The results of a group, in the order in which its tasks started.

        Parameters: `failures`, whether failed tasks' texts are among them; `count`, how many finished tasks to wait
        for; `wait`, for how many milliseconds at most (0: not at all; negative: for ever).

        Returns None when there is none.
        """
        tasks = QUtilities.fetch_task_group(group_id, failures, wait, count, cached, schema_name)
        return None if tasks is None else [task.result for task in tasks]

    @staticmethod
    def fetch_task_group(
        group_id: str,
        failures: bool = True,
        wait: int = 0,
        count: int | None = None,
        cached: bool | int | None = None,
        schema_name: str | None = None,
    ) -> list[Task] | None:
        """The finished tasks of a group; parameters as for `get_result_group`."""
        require("fetch_task_group", group_id=group_id, failures=failures, wait=wait, count=count, cached=cached)
        with _tenant(schema_name) as schema:
            return _wait_for_group(group_id, schema, failures=failures, wait=wait, count=count, cached=cached)

    @staticmethod
    def get_group_count(
        group_id: str, failures: bool = False, cached: bool | int | None = None, schema_name: str | None = None
    ) -> int:
        """How many tasks of a group have finished, or with `failures` how many of them failed."""
        require("get_group_count", group_id=group_id, failures=failures, cached=cached)
        with _tenant(schema_name) as schema:
            return _count(group_id, schema, failures=failures, use_cache=_use_cache(cached))

    @staticmethod
    def delete_task_group(
        group_id: str, tasks: bool = False, cached: bool | int | None = None, schema_name: str | None = None
    ) -> Any:
        """Take the group's label off its tasks, or with `tasks` delete them too. Cached ones are always deleted."""
        require("delete_task_group", group_id=group_id, tasks=tasks, cached=cached)
        with _tenant(schema_name) as schema:
            if _use_cache(cached):
                return cached_results.delete_group(group_id, schema=schema, broker=get_broker())
            return results.delete(group_id, tasks=tasks)

    @staticmethod
    def delete_task_from_cache(task_id: str, broker: Any = None, schema_name: str | None = None) -> bool:
        """Delete a cached result. Returns whether there was one."""
        require("delete_task_from_cache", task_id=task_id, broker=broker)
        with _tenant(schema_name):
            return cached_results.delete(task_id)

    @staticmethod
    def get_queue_size(broker: Any = None, schema_name: str | None = None) -> int:
        """How many tasks of the tenant wait to be started; of all tenants where the public schema is current.

        Brokers other than Redis have one queue, and its size is what they tell.
        """
        require("get_queue_size", broker=broker, schema_name=schema_name)
        schema = task_schema(schema_name) if schema_name or is_in_event_loop() else current_schema()
        return get_broker(broker=broker).queue_size(None if schema == public_schema() else schema)

    @staticmethod
    def get_status(task_id: str, schema_name: str | None = None) -> State:
        """What has become of a task so far, by its id.

        Returns one of "queued", "delayed", "running" (also what a worker has taken and not started yet), "success",
        "failure", "cancelled" and "unknown"; each is a `tenant_q.states.State`, which is a `str`. A task that waits is
        "cancelled" as soon as `cancel` returns. What has left no trace is "unknown": another tenant's task, one that is
        enqueued when a transaction commits and was not yet, and a success with `save=False`. An iter is "running" from
        its first part on until all have ended.

        Raises `BrokerError`; `ConfigurationError` for one that has not finished, with another broker than Redis.
        """
        require("get_status", task_id=task_id)
        with _tenant(schema_name) as schema:
            return state.state_of(schema, task_id)

    @staticmethod
    def cancel(task_id: str, schema_name: str | None = None, *, by: str = "") -> bool:
        """Cancel a task, by its id. It leaves a failed row whose text begins with "TaskCancelled".

        A queued task never runs. A running one gets a `CancelException` within about a second; if
        it goes on for three seconds more, its worker is killed and replaced. It may still succeed first. A cancelled
        link ends its chain; a cancelled part makes its iter a failure.

        Parameters: `by`, who cancels it, for the audit trail and the failed row.

        Returns True when it will not run or is being stopped, also when it was cancelled before; False when it is
        unknown or has finished. Raises `BrokerError`, and `ConfigurationError` with another broker than Redis.
        """
        require("cancel", task_id=task_id, by=by)
        with _tenant(schema_name) as schema:
            return cancel.cancel(schema, task_id, by=by)

    @staticmethod
    def set_progress(fraction: float, text: str = "") -> None:
        """Tell, from within a task, how far it is. It costs next to nothing and may be called in a tight loop.

        Parameters: `fraction`, from 0 to 1; `text`, of which 400 bytes are kept.

        Raises `ProgressError` outside of a task (as in a thread that it started), and for a fraction out of range.
        """
        progress.report(fraction, text)

    @staticmethod
    def get_progress(task_id: str, schema_name: str | None = None) -> Progress | None:
        """How far a running task says it is: its `fraction` and its `text`, at most about half a second old.

        Returns None when it has told nothing yet, or does not run. In sync mode only the task itself knows it. Raises
        `BrokerError`, and `ConfigurationError` with another broker than Redis.
        """
        require("get_progress", task_id=task_id)
        with _tenant(schema_name) as schema:
            return progress.read(schema, task_id)

    @staticmethod
    def add_async_tasks_from_iter(
        func: Any, args_iter: Sequence[Any], schema_name: str | None = None, **kwargs: Any
    ) -> str:
        """Put one task on the tenant's queue for each of `args_iter`, all in one go.

        Parameters: `args_iter`, tuples of arguments, or single arguments; `kwargs`, keywords for every call and
        options as for `add_async_task`, of which `hook` is called once, with the collected result.

        Returns the iter's id: `get_result` gives the list of results, in the order of `args_iter`.
        """
        return submit.submit_iter(func, args_iter, kwargs, schema=schema_name)

    @staticmethod
    def create_async_tasks_chain(
        chain: Sequence[Any],
        group: str | None = None,
        cached: bool | int | None = None,
        sync: bool | None = None,
        broker: Any = None,
        schema_name: str | None = None,
    ) -> str:
        """Run tasks one after another; a link that fails ends the chain.

        Parameters: `chain`, of `(func, args, kwargs)`, the last two optional; `group`, the id of their group, or None
        for a new one.

        Returns the group's id.
        """
        return submit.submit_chain(chain, schema=schema_name, group=group, cached=cached, sync=sync, broker=broker)


_SCHEDULE_FIELDS = {
    "name": "name",
    "hook": "hook_path",
    "cron": "cron",
    "cluster": "cluster",
    "next_run": "next_run",
    "intended_date_kwarg": "intended_date_kwarg",
}


def _schedule_fields(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the fields among the keywords that Django does not check for their type, by the names of `require`."""
    return {checked: kwargs[name] for name, checked in _SCHEDULE_FIELDS.items() if name in kwargs}


def _use_cache(cached: bool | int | None) -> bool:
    return bool(conf().cached if cached is None else cached)


def _count(group_id: str, schema: str, *, failures: bool, use_cache: bool) -> int:
    if use_cache:
        return cached_results.count(group_id, failures=failures, schema=schema, broker=get_broker())
    return results.count(group_id, failures=failures)


def _wait_for(task_id: str, wait: int, cached: bool | int | None) -> Task | None:
    if _use_cache(cached):
        return results.poll(lambda: cached_results.find(task_id), wait=wait)
    return results.poll(lambda: results.find(task_id), wait=wait)


def _wait_for_group(
    group_id: str, schema: str, *, failures: bool, wait: int, count: int | None, cached: bool | int | None
) -> list[Task] | None:
    use_cache = _use_cache(cached)

    def is_full() -> bool | None:
        return _count(group_id, schema, failures=False, use_cache=use_cache) >= (count or 0) or None

    def look() -> list[Task] | None:
        if use_cache:
            return cached_results.group(group_id, failures=failures, schema=schema, broker=get_broker()) or None
        return results.group(group_id, failures=failures) or None

    if count:
        results.poll(is_full, wait=wait)
        return look()
    return results.poll(look, wait=wait)
