"""Declare a workflow: its steps, and how each depends on others. No model is imported here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from tenant_q.exceptions import WorkflowError
from tenant_q.support.call_checks import shown
from tenant_q.workflows import graph, registry, step_options
from tenant_q.workflows.plan import ALL_OK, ON_END, Plan, remember
from tenant_q.workflows.spans import seconds_of
from tenant_q.workflows.step_options import Declared

if TYPE_CHECKING:
    from django_q.models import Schedule

    from tenant_q.workflows.run import Run

F = TypeVar("F", bound=Callable[..., Any])
Condition = Callable[[Any], Any]


class Workflow:
    """A graph of steps, which code declares at the top level of a module `workflows` of an app.

    Args:
        name: The name of the variable that it is assigned to. Its path is that of the module, and this name.
        timeout: The longest time from the start of a run to its end, such as "7d", in seconds or as a timedelta; None
            without a limit. A run that takes longer is cancelled, and fails with `RunTimeout`.
        input: The keys of the input with their types; None for any keys.
        retention: How long an ended run is kept, as `timeout`; None for good.

    Raises:
        WorkflowError: An argument has a wrong value.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout: Any = None,
        input: Mapping[str, Any] | None = None,
        retention: Any = "90d",
    ) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise WorkflowError(f"The name of a workflow is {shown(name)}; it must be the variable's name.")
        self.name = name
        self.module = str(sys._getframe(1).f_globals.get("__name__", "__main__"))
        self.timeout = seconds_of(timeout, f"The timeout of workflow {name}")
        self.retention = seconds_of(retention, f"The retention of workflow {name}")
        self.input = None if input is None else step_options.input_types(name, input)
        self.steps: dict[str, Declared] = {}
        self.last: Declared | None = None
        self._plan: Plan | None = None
        registry.add(self)

    def __repr__(self) -> str:
        return f"<Workflow {self.path}>"

    @property
    def path(self) -> str:
        """The dotted path of the workflow, which runs and schedules name."""
        return f"{self.module}.{self.name}"

    # Declaration

    @overload
    def step(self, func: F, /) -> F: ...

    @overload
    def step(
        self,
        func: None = None,
        /,
        *,
        after: Any = (),
        each: Any = None,
        at_once: int | None = None,
        allow_failures: int = 0,
        when: str = ALL_OK,
        if_: Condition | None = None,
        optional: bool = False,
        **options: Any,
    ) -> Callable[[F], F]: ...

    def step(
        self,
        func: Any = None,
        /,
        *,
        after: Any = (),
        each: Any = None,
        at_once: int | None = None,
        allow_failures: int = 0,
        when: str = ALL_OK,
        if_: Condition | None = None,
        optional: bool = False,
        **options: Any,
    ) -> Any:
        """Declare a function as a step of the workflow. The function stays as it is.

        Args:
            func: The function, where the decorator is used without parentheses. It takes a `Context` and returns JSON.
            after: The step, or the list of steps, that must have ended before: functions or names.
            each: The step whose output is a list, or a tuple of that step and the keys that lead to the list. The step
                runs once for each item.
            at_once: The most items that are ready at once; 100 if it is not given.
            allow_failures: The most items that may fail before the step counts as failed.
            when: What the steps in `after` must have come to: "all_ok" (none failed and at least one succeeded),
                "any_ok", "any_failed" or "always". Otherwise the step is skipped.
            if_: A function that takes the step's context; if it returns a false value, the step is skipped.
            optional: Whether the run may succeed although the step has failed.
            **options: The options of a task: `max_attempts`, `retry_on`, `no_retry_on`, `retry_delay`,
                `retry_backoff`, `retry_jitter`, `timeout`, `transactional`, `max_deliveries`, `databases`,
                `tenant_cache_seconds`, `priority`, `rate` and `rate_scope`.

        Raises:
            WorkflowError: A name is taken, or an option is unknown or has a wrong value.
        """

        def declare(func: F) -> F:
            name = step_options.name_of_step(self.path, func)
            if name in self.steps or name == ON_END:
                raise WorkflowError(f"Workflow {self.path} has two steps named {name!r}; rename one of the functions.")
            self.steps[name] = step_options.declared(
                self.path,
                func,
                after=after,
                each=each,
                at_once=at_once,
                allow_failures=allow_failures,
                when=when,
                if_=if_,
                optional=optional,
                options=options,
            )
            self._plan = None
            return func

        return declare if func is None else declare(func)

    @overload
    def on_end(self, func: F, /) -> F: ...

    @overload
    def on_end(self, func: None = None, /, **options: Any) -> Callable[[F], F]: ...

    def on_end(self, func: Any = None, /, **options: Any) -> Any:
        """Declare the function that runs last, whatever became of the run. Its failure changes nothing.

        Args:
            func: The function, where the decorator is used without parentheses. Its context has `state` and `error`.
            **options: The options of a task, as for `step`.

        Raises:
            WorkflowError: The workflow has one already, or an option is unknown or has a wrong value.
        """

        def declare(func: F) -> F:
            if self.last is not None:
                raise WorkflowError(f"Workflow {self.path} has two functions for on_end; keep one of them.")
            self.last = step_options.declared(self.path, func, options=options)
            self._plan = None
            return func

        return declare if func is None else declare(func)

    @property
    def plan(self) -> Plan:
        """The plan of a run that starts now. Raises `WorkflowError` if the graph is wrong."""
        if self._plan is None:
            self._plan = remember(graph.plan_of(self))
        return self._plan

    def declared(self, name: str) -> Declared | None:
        """Return the declaration of the workflow's step with this name; None if it has none."""
        return self.last if name == ON_END else self.steps.get(name)

    # Runs

    def start(
        self,
        input: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        schema_name: str | None = None,
        by: str = "",
    ) -> Run:
        """Start a run of the workflow for a tenant.

        Its rows are written in the caller's transaction; its first steps are enqueued on commit.

        Args:
            input: The input, a dict of JSON values.
            key: A key among the runs of the workflow: a second start with it returns the same run.
            schema_name: The schema of the tenant; None for the current one.
            by: Who starts it, for the run's page.

        Returns:
            The run.

        Raises:
            WorkflowError: The graph is wrong, or the input does not fit.
            KeyReused: A run of the workflow has the key, and another input.
            NoTenant: No tenant is current and none is named.
            QueueFull: The queue of the tenant is full.
            ConfigurationError: The broker is not on Redis, or the tenant lacks the tables of workflows.
        """
        from tenant_q.workflows import starting

        return starting.start(self, input, key=key, schema=schema_name, by=by)

    def __call__(self, input: Mapping[str, Any] | None = None) -> str:
        """Start a run from a task or a schedule that names the workflow, once for each of these. Return its id."""
        from tenant_q.workflows import starting

        return starting.start_for_task(self, input).id

    def run_here(
        self, input: Mapping[str, Any] | None = None, *, key: str | None = None, schema_name: str | None = None
    ) -> Run:
        """Run the workflow in this process until it has ended, without a queue. For tests.

        Retries start at once. Arguments, return value and errors are those of `start`.
        """
        from tenant_q.workflows import here

        return here.run_here(self, input, key=key, schema=schema_name)

    def runs(self, *, state: str | None = None, limit: int = 100, schema_name: str | None = None) -> Sequence[Run]:
        """Return the tenant's runs of the workflow, the newest first.

        Args:
            state: The state that they have; None for any.
            limit: The most runs.
            schema_name: The schema of the tenant; None for the current one.
        """
        from tenant_q.workflows.run import Run

        return Run.of(self.path, state=state, limit=limit, schema_name=schema_name)

    def schedule(
        self,
        *,
        input: Mapping[str, Any] | None = None,
        name: str | None = None,
        schema_name: str | None = None,
        **when: Any,
    ) -> Schedule:
        """Create or update a schedule of a tenant that starts the workflow, once for each planned time.

        Args:
            input: The input of each run.
            name: The name of the schedule; None for the path of the workflow.
            schema_name: The schema of the tenant; None for the current one.
            **when: `cron`, `schedule_type`, `minutes` and the other arguments of `QUtilities.ensure_schedule`.

        Returns:
            The schedule.

        Raises:
            BadSchedule: The schedule comes from code, which determines it.
            ValidationError: A field has a wrong value.
            WorkflowError: The graph is wrong, or the input does not fit.
        """
        from tenant_q.workflows import starting

        return starting.schedule(self, input, name=name or self.path, schema_name=schema_name, **when)
