"""The calls that read the results of tasks, from the tenant's table or from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.conf import conf
from tenant_q.lifecycle import aliases, cached_results, results
from tenant_q.lifecycle.failure_text import failure_of
from tenant_q.support.call_checks import require
from tenant_q.tenancy import call_for_coroutine
from tenant_q.utils.addressing import addressed

if TYPE_CHECKING:
    from django_q.brokers import Broker


class ResultCalls:
    """The part of `QUtilities` that reads and deletes results."""

    @staticmethod
    def get_result(
        task_id: str,
        wait: int = 0,
        cached: bool | int | None = None,
        schema_name: str | None = None,
        *,
        raise_failure: bool = False,
    ) -> Any:
        """Read the result of a task, from the tenant's table or from the cache.

        Args:
            task_id: The id of the task, or its name.
            wait: How long to wait for it, in milliseconds; negative: without limit.
            cached: Whether to look in the cache instead of the tenant's table; None for the setting
                `Q_CLUSTER["cached"]`.
            schema_name: The schema of the tenant; None for the current one.
            raise_failure: Whether to raise an error if the task failed, instead of returning the error's text.

        Returns:
            The result, which is the text of the error if the task failed. None if there is none yet, or if the task is
            another tenant's.

        Raises:
            TaskFailed: The task failed, with `raise_failure`. It has the error's class, message and traceback.
            UnsignedResult: The row is not signed, and `TENANT_Q["signed_results"]` is set.
        """
        return _result_of(ResultCalls.fetch_task(task_id, wait, cached, schema_name), raise_failure=raise_failure)

    @staticmethod
    async def aget_result(
        task_id: str,
        wait: int = 0,
        cached: bool | int | None = None,
        schema_name: str | None = None,
        *,
        raise_failure: bool = False,
    ) -> Any:
        """Read the result of a task from a coroutine, as `get_result`, without blocking the event loop.

        Args:
            task_id: The id of the task, or its name.
            wait: How long to wait for it, in milliseconds; negative: without limit.
            cached: Whether to look in the cache instead of the tenant's table; None for the setting
                `Q_CLUSTER["cached"]`.
            schema_name: The schema of the tenant; None for that of the coroutine.
            raise_failure: Whether to raise an error if the task failed, instead of returning the error's text.

        Returns:
            The result, as `get_result` returns it.

        Raises:
            TaskFailed: The task failed, with `raise_failure`. It has the error's class, message and traceback.
            InEventLoop: The coroutine has no tenant, and `schema_name` is None.
            UnsignedResult: The row is not signed, and `TENANT_Q["signed_results"]` is set.
        """
        require("aget_result", task_id=task_id, wait=wait, cached=cached)

        async def look() -> Task | None:
            return await call_for_coroutine(
                "aget_result()", lambda schema, _: ResultCalls.fetch_task(task_id, 0, cached, schema), schema_name
            )

        return _result_of(await results.apoll(look, wait=wait), raise_failure=raise_failure)

    @staticmethod
    def fetch_task(
        task_id: str, wait: int = 0, cached: bool | int | None = None, schema_name: str | None = None
    ) -> Task | None:
        """Read a finished task, from the tenant's table or from the cache.

        Args:
            task_id: The id of the task, or its name.
            wait: How long to wait for it, in milliseconds; negative: without limit.
            cached: Whether to look in the cache instead of the tenant's table; None for the setting
                `Q_CLUSTER["cached"]`.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The task, or None if it has not finished or is another tenant's.

        Raises:
            UnsignedResult: The row is not signed, and `TENANT_Q["signed_results"]` is set.
        """
        require("fetch_task", task_id=task_id, wait=wait, cached=cached)
        with addressed(schema_name) as schema:
            find = cached_results.find if _use_cache(cached) else results.find
            return results.poll(aliases.followed(find, schema, task_id), wait=wait)

    @staticmethod
    def get_result_group(
        group_id: str,
        failures: bool = False,
        wait: int = 0,
        count: int | None = None,
        cached: bool | int | None = None,
        schema_name: str | None = None,
        *,
        raise_failure: bool = False,
    ) -> list[Any] | None:
        """Read the results of a group, in the order in which its tasks started, from the table or the cache.

        Args:
            group_id: The id of the group.
            failures: Whether to include the texts of failed tasks.
            wait: How long to wait, in milliseconds; negative: without limit.
            count: The number of finished tasks to wait for; None to wait for the first one.
            cached: Whether to look in the cache instead of the tenant's table; None for the setting
                `Q_CLUSTER["cached"]`.
            schema_name: The schema of the tenant; None for the current one.
            raise_failure: Whether to raise an error if a task failed, of the first one that did.

        Returns:
            The results, or None if there is none.

        Raises:
            TaskFailed: A task of the group failed, with `raise_failure`.
            UnsignedResult: A row is not signed, and `TENANT_Q["signed_results"]` is set.
            BrokerError: Cached results are in the broker, which does not answer.
        """
        failures = True if raise_failure else failures
        tasks = ResultCalls.fetch_task_group(group_id, failures, wait, count, cached, schema_name)
        for task in tasks or () if raise_failure else ():
            if not task.success:
                raise failure_of(task)
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
        """Read the finished tasks of a group, in the order in which they started, from the table or the cache.

        Args:
            group_id: The id of the group.
            failures: Whether to include failed tasks.
            wait: How long to wait, in milliseconds; negative: without limit.
            count: The number of finished tasks to wait for; None to wait for the first one.
            cached: Whether to look in the cache instead of the tenant's table; None for the setting
                `Q_CLUSTER["cached"]`.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The tasks, or None if there is none.

        Raises:
            UnsignedResult: A row is not signed, and `TENANT_Q["signed_results"]` is set.
            BrokerError: Cached results are in the broker, which does not answer.
        """
        require("fetch_task_group", group_id=group_id, failures=failures, wait=wait, count=count, cached=cached)
        with addressed(schema_name) as schema:
            return _wait_for_group(group_id, schema, failures=failures, wait=wait, count=count, cached=cached)

    @staticmethod
    def get_group_count(
        group_id: str, failures: bool = False, cached: bool | int | None = None, schema_name: str | None = None
    ) -> int:
        """Read the number of tasks of a group that have finished, from the tenant's table or the cache.

        Args:
            group_id: The id of the group.
            failures: Whether to count only failed tasks.
            cached: Whether to look in the cache instead of the tenant's table; None for the setting
                `Q_CLUSTER["cached"]`.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The number of finished tasks, or of failed ones.

        Raises:
            BrokerError: Cached results are in the broker, which does not answer.
        """
        require("get_group_count", group_id=group_id, failures=failures, cached=cached)
        with addressed(schema_name) as schema:
            return _count(group_id, schema, failures=failures, use_cache=_use_cache(cached))

    @staticmethod
    def delete_task_group(
        group_id: str, tasks: bool = False, cached: bool | int | None = None, schema_name: str | None = None
    ) -> int | tuple[int, dict[str, int]]:
        """Delete a group from the table or the cache: remove its label from its tasks, or delete the tasks.

        Args:
            group_id: The id of the group.
            tasks: Whether to delete the tasks. Cached results are always deleted.
            cached: Whether to look in the cache instead of the tenant's table; None for the setting
                `Q_CLUSTER["cached"]`.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The number of tasks that lost their label, or of cached results. With `tasks`, the result of Django's
            `QuerySet.delete()`.

        Raises:
            BrokerError: Cached results are in the broker, which does not answer.
        """
        require("delete_task_group", group_id=group_id, tasks=tasks, cached=cached)
        with addressed(schema_name) as schema:
            if _use_cache(cached):
                return cached_results.delete_group(group_id, schema=schema, broker=get_broker())
            return results.delete(group_id, tasks=tasks)

    @staticmethod
    def delete_task_from_cache(task_id: str, broker: Broker | None = None, schema_name: str | None = None) -> bool:
        """Delete the result of a task from the cache.

        Args:
            task_id: The id of the task.
            broker: Ignored: the cache that `Q_CLUSTER["cache"]` names has the results. Django-Q2 has this parameter.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            Whether there was a result.
        """
        require("delete_task_from_cache", task_id=task_id, broker=broker)
        with addressed(schema_name):
            return cached_results.delete(task_id)


def _result_of(task: Task | None, *, raise_failure: bool) -> Any:
    if task is None:
        return None
    if raise_failure and not task.success:
        raise failure_of(task)
    return task.result


def _use_cache(cached: bool | int | None) -> bool:
    return bool(conf().cached if cached is None else cached)


def _count(group_id: str, schema: str, *, failures: bool, use_cache: bool) -> int:
    if use_cache:
        return cached_results.count(group_id, failures=failures, schema=schema, broker=get_broker())
    return results.count(group_id, failures=failures)


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
