"""Declare tasks and schedules in code: `from tenant_q import schedule, task`.

No model is imported here, so that a module of tasks can be imported before the apps are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from tenant_q.exceptions import ConfigurationError, EnqueueError
from tenant_q.package import declarations
from tenant_q.package.option_types import CallOptions, DeclaredOptions, ScheduleOptions
from tenant_q.package.options import DECLARED_OPTIONS, name_errors, refuse_unknown, refuse_wrong_values
from tenant_q.support.hints import did_you_mean

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Task(Protocol[P, R]):
    """A function that is declared as a task. Calling it runs it here, as before."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Enqueue a call for the current tenant, and return the id of the task. Raises as `add_async_task`."""

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Enqueue a call for the tenant of the coroutine, and return the id of the task."""

    def using(self, **options: Unpack[CallOptions]) -> Call[P]:
        """Return calls of this task with other options than the declared ones, or for another tenant."""


@dataclass(frozen=True, slots=True)
class Call(Generic[P]):
    """Calls of a declared task with options of their own.

    Attributes:
        func: The function.
        options: The options of a task, which win over the declared ones.
        schema: The schema of the tenant; None for the current one.
    """

    func: Callable[P, object]
    options: Mapping[str, Any]
    schema: str | None = None

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Enqueue a call. Every keyword reaches the function, also one with the name of an option.

        Returns:
            The id of the task.

        Raises:
            EnqueueError: A value does not pickle, options contradict each other, or the queue is full.
            BrokerError: The broker does not answer.
            Exception: With the option `sync`, the error that the task raised.
        """
        from tenant_q.lifecycle import submit

        return submit.submit_call(self.func, args, kwargs, self.options, schema=self.schema)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Enqueue a call from a coroutine, for the tenant of its block `async with in_schema(...)` or of its task.

        Returns and raises as `enqueue`, and `InEventLoop` if the coroutine has no tenant and `using` names none.
        """
        from tenant_q.lifecycle import submit
        from tenant_q.tenancy import call_for_coroutine

        def enqueue(schema: str, tenant: str | None) -> str:
            return submit.submit_call(self.func, args, kwargs, self.options, schema=schema, tenant=tenant)

        return await call_for_coroutine("aenqueue()", enqueue, self.schema)

    def using(self, **options: Unpack[CallOptions]) -> Call[P]:
        """Return calls with further options.

        Args:
            **options: The options of a task, and `schema_name`, the schema of the tenant.

        Raises:
            EnqueueError: An option is unknown or has a wrong value.
        """
        given = dict(options)
        schema = cast("str | None", given.pop("schema_name", self.schema))
        refuse_unknown(given)
        refuse_wrong_values(given)
        return Call(self.func, {**self.options, **given}, schema)


@overload
def task(func: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *, name: str | None = None, admin: bool | None = None, **options: Unpack[DeclaredOptions]
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(func: Any = None, /, *, name: str | None = None, admin: bool | None = None, **options: Any) -> Any:
    """Declare a function as a task, with the options that hold however it is started.

    The options of a call win over the declared ones, and these over the settings. The function itself stays as it is,
    and gets `enqueue`, `aenqueue` and `using`.

    Args:
        func: The function, where the decorator is used without parentheses.
        name: A name for packages, rows and schedules that stays when the function moves; None for its dotted path.
        admin: Whether a tenant's staff may schedule it; None for what the project's settings say.
        **options: `max_attempts`, `retry_on`, `no_retry_on` (classes of errors), `retry_delay` (seconds),
            `retry_backoff` (a factor), `retry_jitter` (a share), `timeout` (seconds), `cluster`, `transactional`,
            `on_commit`, `expires` (seconds), `unique` (a key, or a function of the arguments that returns it),
            `unique_until`, `priority`, `rate`, `rate_scope`, `save` and `cached`, as in `q_options`.

    Raises:
        ConfigurationError: The function is not at the top level of a module, its name is another task's, or an option
            is unknown or has a wrong value.
    """
    if func is None:
        return lambda function: task_of(function, options, name=name, admin=admin)
    return task_of(func, options, name=name, admin=admin)


def task_of(func: Any, options: Mapping[str, Any], *, name: str | None, admin: bool | None) -> Any:
    """Declare a function, and add the methods of a task to it. Raises as `task`."""
    carried = dict(options)
    for option in carried:
        if option not in DECLARED_OPTIONS:
            raise ConfigurationError(
                f"@task has an unknown option '{option}': {did_you_mean(option, (*DECLARED_OPTIONS, 'name', 'admin'))}"
            )
    try:
        refuse_wrong_values(carried, "The option '{}' of @task")
    except EnqueueError as error:
        raise ConfigurationError(str(error)) from None
    name_errors(carried)
    declarations.declare(func, carried, name=name, admin=admin)
    call: Call[Any] = Call(func, {})
    func.enqueue, func.aenqueue, func.using = call.enqueue, call.aenqueue, call.using
    return func


F = TypeVar("F", bound=Callable[..., object])


def schedule(
    *,
    cron: str | None = None,
    schedule_type: str | None = None,
    minutes: int | None = None,
    name: str | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    q_options: ScheduleOptions | None = None,
    hook: str | None = None,
    cluster: str | None = None,
    intended_date_kwarg: str | None = None,
    tenants: str | Iterable[str] | Callable[..., Any] | None = None,
    spread: float | None = None,
) -> Callable[[F], F]:
    """Declare a schedule of a function for every chosen tenant. A function may have several.

    The scheduler makes it a row in the schema of each tenant, changes it when the code changes, and pauses it when it
    leaves the code. One of `cron`, `schedule_type` and `minutes` says when it runs.

    Args:
        cron: A cron text.
        schedule_type: A type of Django-Q2's `Schedule` such as `Schedule.DAILY` or `"D"`. It runs for the first time
            one interval after it is made.
        minutes: The interval in minutes.
        name: The name of the schedule, which is the group of its tasks; None for the path of the function.
        args: The positional arguments, literals.
        kwargs: The keyword arguments, literals.
        q_options: The options of its tasks, and `catch_up`.
        hook: The dotted path of the hook of its tasks.
        cluster: The cluster that runs it.
        intended_date_kwarg: The keyword argument that gets the planned moment.
        tenants: The schema names of tenants, or a function or its dotted path, which takes a queryset of all tenants
            and returns a queryset or schema names; None for all tenants.
        spread: Each tenant's task starts later by up to this number of seconds, always the same for a tenant.

    Raises:
        ConfigurationError: The function is not at the top level of a module, a value is wrong, or the name is another
            schedule's.
    """
    given = dict(locals())  # a copy, since a tracer adds the variables of the next line to locals() meanwhile
    values = {key: value for key, value in given.items() if value is not None}

    def declare(func: F) -> F:
        from tenant_q.schedules import declared

        declared.declare(func, values)
        return func

    return declare
