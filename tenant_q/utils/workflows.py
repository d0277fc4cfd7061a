"""The calls that start and find workflow runs. They import the app of workflows when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tenant_q.support import workflows_app
from tenant_q.support.call_checks import require
from tenant_q.tenancy import call_for_coroutine

if TYPE_CHECKING:
    from tenant_q.workflows import Run


class WorkflowCalls:
    """The part of `QUtilities` that starts and finds workflow runs."""

    @staticmethod
    def start_workflow(
        path: str, input: Mapping[str, Any] | None = None, *, key: str | None = None, schema_name: str | None = None
    ) -> Run:
        """Start a run of a workflow for a tenant, as `Workflow.start`.

        Its rows are written in the caller's transaction; its first steps are enqueued on commit.

        Args:
            path: The dotted path of the workflow, such as "billing.workflows.onboard".
            input: The input of the run, a dict of JSON values.
            key: A key among the runs of the workflow: a second start with it returns the same run.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The run.

        Raises:
            WorkflowError: There is no such workflow, its graph is wrong, or the input does not fit.
            KeyReused: A run of the workflow has the key, and another input.
            QueueFull: The queue of the tenant is full.
            ConfigurationError: The app of workflows is not installed, the broker is not on Redis, or the tenant lacks
                the tables of workflows.
        """
        require("start_workflow", path=path)
        workflows_app.require()
        from tenant_q.workflows import registry

        return registry.get(path).start(input, key=key, schema_name=schema_name)

    @staticmethod
    async def astart_workflow(
        path: str, input: Mapping[str, Any] | None = None, *, key: str | None = None, schema_name: str | None = None
    ) -> Run:
        """Start a run of a workflow from a coroutine, as `start_workflow`, without blocking the event loop.

        Args:
            path: The dotted path of the workflow.
            input: The input of the run, a dict of JSON values.
            key: A key among the runs of the workflow.
            schema_name: The schema of the tenant; None for that of the coroutine.

        Returns:
            The run. Its methods, and those attributes that read rows, are for synchronous code.

        Raises:
            InEventLoop: The coroutine has no tenant, and `schema_name` is None.
            WorkflowError: There is no such workflow, its graph is wrong, or the input does not fit.
            KeyReused: A run of the workflow has the key, and another input.
            QueueFull: The queue of the tenant is full.
            ConfigurationError: As for `start_workflow`.
        """

        def start(schema: str, tenant: str | None) -> Run:
            return WorkflowCalls.start_workflow(path, input, key=key, schema_name=schema)

        return await call_for_coroutine("astart_workflow()", start, schema_name)

    @staticmethod
    def get_workflow(id: str, *, schema_name: str | None = None) -> Run:
        """Return a workflow run of a tenant, as `Run.get`.

        Args:
            id: The id of the run.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The run.

        Raises:
            WorkflowError: The tenant has no such run.
            ConfigurationError: The app of workflows is not installed.
        """
        require("get_workflow", id=id)
        workflows_app.require()
        from tenant_q.workflows import Run

        return Run.get(id, schema_name=schema_name)

    @staticmethod
    async def aget_workflow(id: str, *, schema_name: str | None = None) -> Run:
        """Return a workflow run of a tenant from a coroutine, as `get_workflow`, without blocking the event loop.

        Args:
            id: The id of the run.
            schema_name: The schema of the tenant; None for that of the coroutine.

        Returns:
            The run. Its methods, and those attributes that read rows, are for synchronous code.

        Raises:
            InEventLoop: The coroutine has no tenant, and `schema_name` is None.
            WorkflowError: The tenant has no such run.
            ConfigurationError: The app of workflows is not installed.
        """

        def get(schema: str, tenant: str | None) -> Run:
            return WorkflowCalls.get_workflow(id, schema_name=schema)

        return await call_for_coroutine("aget_workflow()", get, schema_name)
