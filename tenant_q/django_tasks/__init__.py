"""The backend for Django's Tasks API: `TASKS = {"default": {"BACKEND": "tenant_q.django_tasks.TenantTaskBackend"}}`.

Django imports it where the first task is declared, which may be before the apps are loaded. So no model is imported
here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from django.apps import apps
from django.core import checks

from tenant_q.conf import site_clusters
from tenant_q.django_tasks import execution
from tenant_q.django_tasks.api import (
    DEFAULT_TASK_QUEUE_NAME,
    BaseTaskBackend,
    InvalidTask,
    TaskResult,
    TaskResultDoesNotExist,
)
from tenant_q.exceptions import EnqueueError
from tenant_q.package import task_objects
from tenant_q.package.functions import LONGEST_NAME
from tenant_q.package.options import DECLARED_OPTIONS, LONGEST, refuse_wrong_values
from tenant_q.support.hints import did_you_mean

if TYPE_CHECKING:
    from tenant_q.django_tasks.api import Task

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["TenantTaskBackend"]

# The options that a backend gives all of its tasks. A task's queue is its cluster, and its result is always a row.
BACKEND_OPTIONS = tuple(name for name in DECLARED_OPTIONS if name not in ("cluster", "save", "cached", "priority"))

task_objects.register(execution.DjangoTasks())


class TenantTaskBackend(BaseTaskBackend):
    """Runs the tasks of `django.tasks` in a cluster of tenant_q, each in the schema of the tenant that enqueued it.

    `QUEUES` names clusters: "default" is the project's own, any other name a cluster of `Q_CLUSTER["ALT_CLUSTERS"]`.
    `OPTIONS` are options of every task, such as `{"max_attempts": 3, "timeout": 60}`.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Task[..., Any]) -> None:
        """Validate a task when it is declared or changed, and again when it is enqueued.

        Raises:
            InvalidTask: The backend cannot run the task.
        """
        super().validate_task(task)
        if len(task.module_path) > LONGEST_NAME or len(task.queue_name) > LONGEST["cluster"]:
            raise InvalidTask(
                f"The task {task.module_path[:LONGEST_NAME]} has too long a name or queue: at most {LONGEST_NAME} and "
                f"{LONGEST['cluster']} characters are kept; shorten it."
            )
        for problem in self._problems():
            raise InvalidTask(problem)

    def enqueue(self, task: Task[P, R], args: Any, kwargs: Any) -> TaskResult[P, R]:
        """Enqueue a call of a task for the current tenant.

        Args:
            task: The task.
            args: The positional arguments, of types that JSON has.
            kwargs: The keyword arguments, likewise.

        Returns:
            The result, which is ready to run; with the option `unique`, that of the task that has the key.

        Raises:
            InvalidTask: The backend cannot run the task.
            TypeError: An argument is of a type that JSON does not have.
            NoTenant: No tenant is current.
            InEventLoop: The caller is a coroutine that belongs to no task; `aenqueue` is for it.
            EnqueueError: The arguments are too large, or the tenant's queue is full.
            BrokerError: The broker does not answer.
        """
        from tenant_q.django_tasks import enqueueing

        return enqueueing.enqueue(self, task, args, kwargs)

    async def aenqueue(self, task: Task[P, R], args: Any, kwargs: Any) -> TaskResult[P, R]:
        """Enqueue a call of a task for the tenant of the coroutine. Returns and raises as `enqueue`."""
        from tenant_q.django_tasks import enqueueing
        from tenant_q.tenancy import call_for_coroutine

        def enqueue(schema: str, tenant: str | None) -> TaskResult[P, R]:
            return enqueueing.enqueue_for(self, task, args, kwargs, schema, tenant)

        return await call_for_coroutine("aenqueue()", enqueue, None)

    def get_result(self, result_id: str) -> TaskResult[..., Any]:
        """Return the result of one of the current tenant's tasks.

        Args:
            result_id: The id of the task.

        Raises:
            TaskResultDoesNotExist: The tenant has no such task of this backend, or no longer.
            UnsignedResult: The row is not signed, and `TENANT_Q["signed_results"]` is set.
            BrokerError: The task has not finished, and the broker does not answer.
            InEventLoop: The caller is a coroutine; `aget_result` is for it.
        """
        return self._result_in(None, result_id)

    async def aget_result(self, result_id: str) -> TaskResult[..., Any]:
        """Return the result of a task of the coroutine's tenant. Raises as `get_result`."""
        from tenant_q.tenancy import call_for_coroutine

        return await call_for_coroutine("aget_result()", lambda schema, _: self._result_in(schema, result_id), None)

    def _result_in(self, schema: str | None, id: str) -> TaskResult[..., Any]:
        from tenant_q.django_tasks import results
        from tenant_q.utils.addressing import addressed

        with addressed(schema) as own:
            found = results.find(own, str(id), self.alias)
        if found is None:
            raise TaskResultDoesNotExist(f"{own} has no task {id!r} of the backend {self.alias!r}.")
        return found

    def check(self, **kwargs: Any) -> list[Any]:
        """Check the backend's settings: its options, its queues, and that tenant_q is installed."""
        place = f"TASKS[{self.alias!r}]"
        found = [*super().check(**kwargs)]
        found += [checks.Error(problem, id="tenant_q.E012") for problem in self._problems()]
        if not apps.is_installed("tenant_q"):
            hint = "Add 'tenant_q' to SHARED_APPS."
            found.append(checks.Error(f"{place} uses tenant_q, which is not installed.", hint=hint, id="tenant_q.E013"))
            return found
        known = {DEFAULT_TASK_QUEUE_NAME, *site_clusters()}
        for name in sorted(self.queues - known):
            hint = f"Add {name!r} to Q_CLUSTER['ALT_CLUSTERS'], or remove it from QUEUES."
            message = (
                f"{place}['QUEUES'] names {name!r}, which is no cluster: its tasks wait until one of that name runs."
            )
            found.append(checks.Warning(message, hint=hint, id="tenant_q.W011"))
        return found

    def _problems(self) -> list[str]:
        """Return what is wrong with the option `OPTIONS` of the backend, one sentence each."""
        place = f"TASKS[{self.alias!r}]['OPTIONS']"
        if not isinstance(self.options, dict):
            return [f"{place} must be a dict of options, such as {{'max_attempts': 3}}."]
        unknown = [name for name in self.options if name not in BACKEND_OPTIONS]
        if unknown:
            return [
                f"{place} has an unknown option '{name}': {did_you_mean(name, BACKEND_OPTIONS)}" for name in unknown
            ]
        try:
            refuse_wrong_values(self.options, place + "['{}']")
        except EnqueueError as error:
            return [str(error)]
        return []
