"""`Iter`, `Chain` and `AsyncTask`: the classes of `django_q.tasks`, per tenant."""

from __future__ import annotations

from typing import Any

from django_q.models import Task

from tenant_q.conf import conf
from tenant_q.exceptions import WrongArgument
from tenant_q.package.options import take_q_options
from tenant_q.support.call_checks import require, shown
from tenant_q.utils import QUtilities


class Iter:
    """One function called for many sets of arguments; its results come as one list, in the order of the arguments.

    Parameters: `func`; `args`, tuples of arguments or single arguments; `kwargs`, keywords and options for every
    call; `cached`, `sync` and `broker` as for a task; `schema_name`, the tenant, or None for the current one.
    """

    def __init__(
        self,
        func: Any = None,
        args: list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        cached: bool | int | None = None,
        sync: bool | None = None,
        broker: Any = None,
        schema_name: str | None = None,
    ) -> None:
        require("Iter", args=args, kwargs=kwargs, cached=cached, sync=sync, broker=broker)
        self.func = func
        self.args = args if isinstance(args, list) else list(args or ())
        self.kwargs = kwargs or {}
        self.id = ""
        self.broker = broker
        self.cached = conf().cached if cached is None else cached
        self.sync = conf().sync if sync is None else sync
        self.schema_name = schema_name
        self.started = False

    def append(self, *args: Any) -> int:
        """Add a set of arguments. Returns how many there are."""
        self.args.append(args)
        self.started = False
        return self.length()

    def run(self) -> str:
        """Put the tasks on the queue. Returns the iter's id."""
        options = {"cached": self.cached, "sync": self.sync, "broker": self.broker}
        options |= take_q_options(dict(self.kwargs))
        # As in Django-Q2, those three are the iter's own: in `kwargs` they are no keywords of the function.
        kwargs = {name: value for name, value in self.kwargs.items() if name not in ("cached", "sync", "broker")}
        kwargs["q_options"] = {name: value for name, value in options.items() if value is not None}
        self.id = QUtilities.add_async_tasks_from_iter(self.func, self.args, schema_name=self.schema_name, **kwargs)
        self.started = True
        return self.id

    def result(self, wait: int = 0) -> list[Any] | None:
        """The list of results, in the order of the arguments; waits `wait` milliseconds for it."""
        if not self.started:
            return None
        found: list[Any] | None = QUtilities.get_result(self.id, wait, self.cached, self.schema_name)
        return found

    def fetch(self, wait: int = 0) -> Task | None:
        """The task that holds the list of results; waits `wait` milliseconds for it."""
        if not self.started:
            return None
        return QUtilities.fetch_task(self.id, wait=wait, cached=self.cached, schema_name=self.schema_name)

    def length(self) -> int:
        """How many sets of arguments there are."""
        return len(self.args)


class Chain:
    """Tasks that run one after another; a link that fails ends the chain.

    Parameters: `chain`, of `(func, args, kwargs)`; `group`, its group's id or None for a new one; `cached`, `sync`
    and `broker` as for a task; `schema_name`, the tenant, or None for the current one.
    """

    def __init__(
        self,
        chain: list[Any] | None = None,
        group: str | None = None,
        cached: bool | int | None = None,
        sync: bool | None = None,
        broker: Any = None,
        schema_name: str | None = None,
    ) -> None:
        require("Chain", chain=() if chain is None else chain, group=group, cached=cached, sync=sync, broker=broker)
        self.chain = chain if isinstance(chain, list) else list(chain or ())
        self.group = group or ""
        self.broker = broker
        self.cached = conf().cached if cached is None else cached
        self.sync = conf().sync if sync is None else sync
        self.schema_name = schema_name
        self.started = False

    def append(self, func: Any, *args: Any, **kwargs: Any) -> int:
        """Add a link, with parameters as for a task. Results of an earlier run are let go. Returns the length."""
        self.chain.append((func, args, kwargs))
        if self.started:
            QUtilities.delete_task_group(self.group, cached=self.cached, schema_name=self.schema_name)
            self.started = False
        return self.length()

    def run(self) -> str:
        """Start the first link. Returns the group's id."""
        self.group = QUtilities.create_async_tasks_chain(
            self.chain,
            group=self.group,
            cached=self.cached,
            sync=self.sync,
            broker=self.broker,
            schema_name=self.schema_name,
        )
        self.started = True
        return self.group

    def result(self, wait: int = 0) -> list[Any] | None:
        """The links' results, first link first; waits up to `wait` milliseconds for all of them."""
        if not self.started:
            return None
        return QUtilities.get_result_group(
            self.group, wait=wait, count=self.length(), cached=self.cached, schema_name=self.schema_name
        )

    def fetch(self, failures: bool = True, wait: int = 0) -> list[Task] | None:
        """The links' finished tasks, first link first; waits up to `wait` milliseconds for all of them."""
        if not self.started:
            return None
        return QUtilities.fetch_task_group(
            self.group,
            failures=failures,
            wait=wait,
            count=self.length(),
            cached=self.cached,
            schema_name=self.schema_name,
        )

    def current(self) -> int | None:
        """How many links have finished."""
        if not self.started:
            return None
        return QUtilities.get_group_count(self.group, cached=self.cached, schema_name=self.schema_name)

    def length(self) -> int:
        """How many links there are."""
        return len(self.chain)


def _option(name: str, doc: str) -> Any:
    def get(self: AsyncTask) -> Any:
        return self._options().get(name)

    def set_(self: AsyncTask, value: Any) -> None:
        self._options()[name] = value
        self.started = False

    return property(get, set_, doc=doc)


class AsyncTask:
    """One task as an object: its options are attributes, and it fetches its own result.

    Parameters: as for `QUtilities.add_async_task`.
    """

    broker = _option("broker", "A Django-Q2 broker to use instead of the configured one.")
    sync = _option("sync", "Whether to run here and now.")
    save = _option("save", "Whether a success leaves a row.")
    hook = _option("hook", "The function called with the finished task.")
    group = _option("group", "The group's id.")

    def __init__(self, func: Any, *args: Any, **kwargs: Any) -> None:
        self.id = ""
        self.started = False
        self.func = func
        self.args = args
        self.schema_name: str | None = kwargs.pop("schema_name", None)
        self.kwargs = kwargs

    def _options(self) -> dict[str, Any]:
        options = self.kwargs.get("q_options", self.kwargs)
        if options is None:
            options = self.kwargs["q_options"] = {}
        if not isinstance(options, dict):
            raise WrongArgument(f"The q_options of an AsyncTask are {shown(options)}; they must be a dict of options.")
        return options

    @property
    def cached(self) -> bool | int:
        """Whether, or for how many seconds, the result is kept in the cache instead of the table."""
        cached: bool | int = self._options().get("cached", conf().cached)
        return cached

    @cached.setter
    def cached(self, value: bool | int) -> None:
        self._options()["cached"] = value
        self.started = False

    def run(self) -> str:
        """Put the task on the queue. Returns its id."""
        self.id = QUtilities.add_async_task(self.func, *self.args, schema_name=self.schema_name, **self.kwargs)
        self.started = True
        return self.id

    def result(self, wait: int = 0) -> Any:
        """The result; waits up to `wait` milliseconds for it."""
        if not self.started:
            return None
        return QUtilities.get_result(self.id, wait=wait, cached=self.cached, schema_name=self.schema_name)

    def fetch(self, wait: int = 0) -> Task | None:
        """The finished task; waits up to `wait` milliseconds for it."""
        if not self.started:
            return None
        return QUtilities.fetch_task(self.id, wait=wait, cached=self.cached, schema_name=self.schema_name)

    def result_group(self, failures: bool = False, wait: int = 0, count: int | None = None) -> list[Any] | None:
        """The results of the task's group; parameters as for `QUtilities.get_result_group`."""
        if not (self.started and self.group):
            return None
        return QUtilities.get_result_group(
            self.group, failures=failures, wait=wait, count=count, cached=self.cached, schema_name=self.schema_name
        )

    def fetch_group(self, failures: bool = True, wait: int = 0, count: int | None = None) -> list[Task] | None:
        """The finished tasks of the task's group; parameters as for `QUtilities.fetch_task_group`."""
        if not (self.started and self.group):
            return None
        return QUtilities.fetch_task_group(
            self.group, failures=failures, wait=wait, count=count, cached=self.cached, schema_name=self.schema_name
        )
