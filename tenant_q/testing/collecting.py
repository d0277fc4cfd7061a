"""Collect the tasks that a test enqueues, assert what they are, and run them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, overload
from unittest.mock import patch

from django.db.models import DateTimeField, Value
from django.utils import timezone
from django_q.models import Task

from tenant_q import tenancy
from tenant_q.brokers.protocol import Broker, Lease, Message
from tenant_q.exceptions import TenantQError
from tenant_q.lifecycle.outcome_rows import as_task
from tenant_q.package import declarations
from tenant_q.package.envelope import open_package
from tenant_q.package.functions import stored_name
from tenant_q.package.package import Package
from tenant_q.schedules import claims, fire
from tenant_q.testing.brokers import StandInBrokers, SteeredClock, brokers_of_a_test
from tenant_q.testing.running import WORKER, error_of, run_leased

MOST_RUNS = 10_000
"""The most starts of one `run`, after which tasks that enqueue themselves for ever are an error."""


@dataclass(frozen=True, slots=True)
class CollectedTask:
    """A task that was enqueued.

    Attributes:
        id: The id of the task.
        name: Its name.
        func: The dotted path of its function, or its declared name.
        args: The positional arguments.
        kwargs: The keyword arguments.
        schema: The schema of its tenant.
        group: Its group, or None.
        delay: The seconds until it is due.
        options: Its options, those that its function declares and defaults of the settings included.
    """

    id: str
    name: str
    func: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    schema: str
    group: str | None
    delay: float
    options: Mapping[str, Any]


_NO_OPTIONS = {"id", "name", "func", "args", "kwargs", "schema_name", "tenant", "started", "origin"}


def _collected(package: Package, delay: float) -> CollectedTask:
    options = {name: value for name, value in package.task.items() if name not in _NO_OPTIONS}
    func = package.stored_func
    return CollectedTask(
        package.id, package.name, func, package.args, package.kwargs, package.schema, package.group, delay, options
    )


class TaskCollector(Sequence[CollectedTask]):
    """The tasks that were enqueued since the collector was made, in their order; also by tasks that it ran."""

    def __init__(self) -> None:
        self.clock = SteeredClock()
        self.brokers = StandInBrokers(self.clock, self._note)
        self._tasks: list[CollectedTask] = []

    def _note(self, message: Message) -> None:
        self._tasks.append(_collected(open_package(message.payload), message.delay))

    @overload
    def __getitem__(self, place: int) -> CollectedTask: ...

    @overload
    def __getitem__(self, place: slice) -> list[CollectedTask]: ...

    def __getitem__(self, place: int | slice) -> CollectedTask | list[CollectedTask]:
        return self._tasks[place]

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return "".join(f"\n  {_call(one.func, one.args, one.kwargs, one.schema, {})}" for one in self) or "no task"

    def of(self, func: Any = None, *, schema: str | None = None) -> list[CollectedTask]:
        """Return the collected tasks of a function, of a tenant, or of both.

        Args:
            func: The function, its dotted path or its declared name; None for any.
            schema: The schema of the tenant; None for any.
        """
        names = None if func is None else _names(func)
        return [one for one in self if (names is None or one.func in names) and schema in (None, one.schema)]

    def assert_enqueued(
        self,
        func: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        schema: str | None = None,
        times: int | None = None,
        **options: Any,
    ) -> CollectedTask:
        """Assert that a task was enqueued, and return the first that fits.

        Args:
            func: The function, its dotted path or its declared name.
            args: Its positional arguments; None for any.
            kwargs: Its keyword arguments; None for any.
            schema: The schema of its tenant; None for any.
            times: How many such tasks there must be, 1 or more; None for at least one.
            **options: Options that it must have, for example `group="May"` or `delay=60`.

        Raises:
            AssertionError: There is no such task, or another number of them. The text lists all collected tasks.
        """
        found = self._find(func, args, kwargs, schema, options)
        if not found or times not in (None, len(found)):
            wanted = "" if times is None else f" {times} times, but {len(found)} times"
            call = _call(stored_name(func), args, kwargs, schema, options)
            raise AssertionError(f"{call} was not enqueued{wanted}; enqueued were: {self!r}")
        return found[0]

    def assert_not_enqueued(
        self,
        func: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        schema: str | None = None,
        **options: Any,
    ) -> None:
        """Assert that no task of this kind was enqueued. The arguments are those of `assert_enqueued`.

        Raises:
            AssertionError: There is one. The text lists all collected tasks.
        """
        if self._find(func, args, kwargs, schema, options):
            call = _call(stored_name(func), args, kwargs, schema, options)
            raise AssertionError(f"{call} was enqueued; enqueued were: {self!r}")

    def _find(
        self,
        func: Any,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        schema: str | None,
        options: Mapping[str, Any],
    ) -> list[CollectedTask]:
        return [
            one
            for one in self.of(func, schema=schema)
            if (args is None or one.args == tuple(args))
            and (kwargs is None or one.kwargs == dict(kwargs))
            and all(_option(one, name) == value for name, value in options.items())
        ]

    def assert_nothing_enqueued(self) -> None:
        """Assert that no task was enqueued. Raises `AssertionError`, which lists the tasks."""
        if self._tasks:
            raise AssertionError(f"No task should have been enqueued; enqueued were: {self!r}")

    def clear(self) -> None:
        """Forget the collected tasks, and empty the queues."""
        self._tasks.clear()
        for broker in list(self.brokers.values()):
            broker.purge()

    def run(self, *, raise_errors: bool = True) -> list[Task]:
        """Run the enqueued tasks one after another, each in the schema of its tenant, until no queue has any.

        What they enqueue runs too: the next links of chains, retries and delayed tasks, without waiting. Results are
        saved and hooks are called as in a worker. Code for the commit runs after each task, also in a `TestCase`.

        Args:
            raise_errors: Whether to raise the error of a task that failed for the last time, after its row is saved.

        Returns:
            The finished tasks, in the order in which they ended.

        Raises:
            Exception: The error of a task.
            TenantQError: There is no end, because tasks keep enqueueing others.
        """
        finished: list[Task] = []
        for _ in range(MOST_RUNS + 1):
            if (leased := self._lease_next()) is None:
                return finished
            outcome = run_leased(*leased)
            if outcome is not None:
                finished.append(as_task(outcome))
                if raise_errors and not outcome.success:
                    raise error_of(outcome)
        raise TenantQError(
            f"After {MOST_RUNS} starts there are still tasks to run: a task enqueues itself, or its max_attempts is 0; "
            "assert what is enqueued instead of running it."
        )

    def _lease_next(self) -> tuple[Broker, Lease] | None:
        """Lease the next task, for which the clock is moved on if all are delayed; None if there is none."""
        while True:
            due = []
            for broker in list(self.brokers.values()):
                batch = broker.fetch(WORKER, limit=1)
                for lease in batch.leases:
                    return broker, lease
                if batch.next_delayed is not None:
                    due.append(batch.next_delayed)
            if not due:
                return None
            self.clock.move_on(min(due))

    def fire_schedules(self, at: datetime | None = None, *, schema_name: str | None = None) -> int:
        """Fire the schedules of a tenant that are due, as the scheduler does. `run` then runs their tasks.

        Args:
            at: The moment at which they are due, with a time zone if `USE_TZ` is set; None for now.
            schema_name: The schema of the tenant; None for the current one.

        Returns:
            The number of tasks that were enqueued.
        """
        moment = at or timezone.now()
        fired = 0
        # In a `TestCase`, the present of PostgreSQL is the start of the test.
        with patch.object(claims, "Now", lambda: Value(moment, output_field=DateTimeField())):
            while count := fire.fire_due(tenancy.task_schema(schema_name)):
                fired += count
        return fired


def _names(func: Any) -> set[str]:
    """Return the names under which tasks of a function are stored: its path and its declared name."""
    declaration = declarations.find(func)
    return {stored_name(func)} | ({declaration.name, declaration.path} if declaration else set())


def _option(task: CollectedTask, name: str) -> Any:
    return task.name if name == "task_name" else task.delay if name == "delay" else task.options.get(name)


def _call(
    func: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    schema: str | None,
    options: Mapping[str, Any],
) -> str:
    """Return a task as the texts of assertions show it."""
    shown = [repr(one) for one in args or ()] + [f"{name}={one!r}" for name, one in (kwargs or {}).items()]
    text = func if args is None and kwargs is None else f"{func}({', '.join(shown)})"
    text += f" with {dict(options)}" if options else ""
    return f"{text} for {schema}" if schema else text


@contextmanager
def collect_tasks() -> Iterator[TaskCollector]:
    """Collect the tasks that the block enqueues, instead of putting them on the queue. No Redis is needed.

    Tasks that run at once, by the option `sync` or the setting, are not collected.
    """
    collector = TaskCollector()
    with brokers_of_a_test(collector.brokers):
        yield collector
