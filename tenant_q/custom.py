"""`Iter`, `Chain` and `AsyncTask`: the classes of `django_q.tasks`, per tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_q.models import Task

from tenant_q.conf import conf
from tenant_q.exceptions import WrongArgument
from tenant_q.package.option_types import Func
from tenant_q.package.options import take_q_options
from tenant_q.support.call_checks import require, shown
from tenant_q.utils import QUtilities

if TYPE_CHECKING:
    from django_q.brokers import Broker


class Iter:
    """A function that is called once for each set of arguments.

    Its results come as one list, in the order of the arguments. The methods raise what those of `QUtilities` raise.

    Args:
        func: A dotted path, or a function defined at the top level of a module.
        args: The arguments of each call: a tuple, or a single argument.
        kwargs: The keyword arguments of every call, and options as in `QUtilities.add_async_task`.
        cached: Whether, or for how many seconds, the result is kept in the cache instead of the tenant's table; None
            for the setting `Q_CLUSTER["cached"]`.
        sync: Whether to run in this process; None for the setting `Q_CLUSTER["sync"]`.
        broker: A broker of Django-Q2; None for the configured one.
        schema_name: The schema of the tenant; None for the current one.
    """

    def __init__(
        self,
        func: Func | None = None,
        args: list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        cached: bool | int | None = None,
        sync: bool | None = None,
        broker: Broker | None = None,
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
        """Add a set of arguments to the `Iter`.

        Args:
            *args: The arguments of one call.

        Returns:
            The number of sets.
        """
        self.args.append(args)
        self.started = False
        return self.length()

    def run(self) -> str:
        """Enqueue the tasks of the `Iter`.

        Returns:
            The id of the iter.
        """
        options = {"cached": self.cached, "sync": self.sync, "broker": self.broker}
        options |= take_q_options(dict(self.kwargs))
        # As in Django-Q2, these three are options of the iter: in `kwargs` they are not arguments of the function.
        kwargs = {name: value for name, value in self.kwargs.items() if name not in ("cached", "sync", "broker")}
        kwargs["q_options"] = {name: value for name, value in options.items() if value is not None}
        func: Any = self.func  # None is refused with the other wrong values
        self.id = QUtilities.add_async_tasks_from_iter(func, self.args, schema_name=self.schema_name, **kwargs)
        self.started = True
        return self.id

    def result(self, wait: int = 0) -> list[Any] | None:
        """Return the results of the `Iter` as a list, in the order of the arguments.

        Args:
            wait: How long to wait for it, in milliseconds; negative: without limit.

        Returns:
            The results; None if not all tasks have finished, or if the iter was changed since `run`.
        """
        if not self.started:
            return None
        found: list[Any] | None = QUtilities.get_result(self.id, wait, self.cached, self.schema_name)
        return found

    def fetch(self, wait: int = 0) -> Task | None:
        """Return the finished task of the `Iter`, which has the list of results.

        Args:
            wait: How long to wait for it, in milliseconds; negative: without limit.

        Returns:
            The task; None in the same cases as `result`.
        """
        if not self.started:
            return None
        return QUtilities.fetch_task(self.id, wait=wait, cached=self.cached, schema_name=self.schema_name)

    def length(self) -> int:
        """Return the number of sets of arguments of the `Iter`."""
        return len(self.args)


class Chain:
    """Tasks that run one after another. A link that fails ends the chain.

    The methods raise what those of `QUtilities` raise.

    Args:
        chain: The links: tuples `(func, args, kwargs)`, of which the last two are optional.
        group: The id of the group of all links; None for a new one.
        cached: Whether, or for how many seconds, results are kept in the cache instead of the tenant's table; None for
            the setting `Q_CLUSTER["cached"]`.
        sync: Whether to run in this process; None for the setting `Q_CLUSTER["sync"]`.
        broker: A broker of Django-Q2 for the first link; None for the configured one.
        schema_name: The schema of the tenant; None for the current one.
    """

    def __init__(
        self,
        chain: list[Any] | None = None,
        group: str | None = None,
        cached: bool | int | None = None,
        sync: bool | None = None,
        broker: Broker | None = None,
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

    def append(self, func: Func, *args: Any, **kwargs: Any) -> int:
        """Add a link to the `Chain`. The results of an earlier run are released.

        Args:
            func: A dotted path, or a function defined at the top level of a module.
            *args: The positional arguments of the function.
            **kwargs: The keyword arguments of the function, and options as in `QUtilities.add_async_task`.

        Returns:
            The number of links.
        """
        self.chain.append((func, args, kwargs))
        if self.started:
            QUtilities.delete_task_group(self.group, cached=self.cached, schema_name=self.schema_name)
            self.started = False
        return self.length()

    def run(self) -> str:
        """Enqueue the first link of the `Chain`.

        Returns:
            The id of the group.
        """
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
        """Return the results of the links of the `Chain`, the first link's first.

        Args:
            wait: How long to wait for all links, in milliseconds; negative: without limit.

        Returns:
            The results so far; None if there is none, or if the chain was changed since `run`.
        """
        if not self.started:
            return None
        return QUtilities.get_result_group(
            self.group, wait=wait, count=self.length(), cached=self.cached, schema_name=self.schema_name
        )

    def fetch(self, failures: bool = True, wait: int = 0) -> list[Task] | None:
        """Return the finished tasks of the links of the `Chain`, the first link's first.

        Args:
            failures: Whether to include a failed link.
            wait: How long to wait for all links, in milliseconds; negative: without limit.

        Returns:
            The tasks so far; None in the same cases as `result`.
        """
        if not self.started:
            return None
        return QUtilities.fetch_task_group(
            self.group, failures, wait, count=self.length(), cached=self.cached, schema_name=self.schema_name
        )

    def current(self) -> int | None:
        """Return the number of links of the `Chain` that have finished; None if it was not started."""
        if not self.started:
            return None
        return QUtilities.get_group_count(self.group, cached=self.cached, schema_name=self.schema_name)

    def length(self) -> int:
        """Return the number of links of the `Chain`."""
        return len(self.chain)


def _option(name: str, doc: str) -> Any:
    def get(self: AsyncTask) -> Any:
        return self._options().get(name)

    def set_(self: AsyncTask, value: Any) -> None:
        self._options()[name] = value
        self.started = False

    return property(get, set_, doc=doc)


class AsyncTask:
    """One task as an object. Its options are attributes, and it fetches its own result.

    The methods raise what those of `QUtilities` raise.

    Args:
        func: A dotted path, or a function defined at the top level of a module.
        *args: The positional arguments of the function.
        **kwargs: The keyword arguments of the function, options as in `QUtilities.add_async_task`, and `schema_name`.
    """

    broker: Broker | None = _option("broker", "A broker of Django-Q2; None for the configured one.")
    sync: bool | None = _option("sync", "Whether to run in this process.")
    save: bool | None = _option("save", "Whether a success leaves a row.")
    hook: Func | None = _option("hook", "The function that is called with the finished task.")
    group: str | None = _option("group", "The id of the group.")

    def __init__(self, func: Func, *args: Any, **kwargs: Any) -> None:
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
        """Whether, or for how many seconds, the `AsyncTask` keeps its result in the cache instead of the table."""
        cached: bool | int = self._options().get("cached", conf().cached)
        return cached

    @cached.setter
    def cached(self, value: bool | int) -> None:
        self._options()["cached"] = value
        self.started = False

    def run(self) -> str:
        """Enqueue the `AsyncTask`.

        Returns:
            The id of the task.
        """
        self.id = QUtilities.add_async_task(self.func, *self.args, schema_name=self.schema_name, **self.kwargs)
        self.started = True
        return self.id

    def result(self, wait: int = 0) -> Any:
        """Return the result of the `AsyncTask`.

        Args:
            wait: How long to wait for it, in milliseconds; negative: without limit.

        Returns:
            The result; None if there is none yet, or if an option was changed since `run`.
        """
        if not self.started:
            return None
        return QUtilities.get_result(self.id, wait=wait, cached=self.cached, schema_name=self.schema_name)

    def fetch(self, wait: int = 0) -> Task | None:
        """Return the finished task of the `AsyncTask`.

        Args:
            wait: How long to wait for it, in milliseconds; negative: without limit.

        Returns:
            The task; None in the same cases as `result`.
        """
        if not self.started:
            return None
        return QUtilities.fetch_task(self.id, wait=wait, cached=self.cached, schema_name=self.schema_name)

    def result_group(self, failures: bool = False, wait: int = 0, count: int | None = None) -> list[Any] | None:
        """Return the results of the `AsyncTask`'s group. Parameters: see `QUtilities.get_result_group`."""
        if not (self.started and self.group):
            return None
        return QUtilities.get_result_group(self.group, failures, wait, count, self.cached, self.schema_name)

    def fetch_group(self, failures: bool = True, wait: int = 0, count: int | None = None) -> list[Task] | None:
        """Return the finished tasks of the `AsyncTask`'s group. Parameters: see `QUtilities.fetch_task_group`."""
        if not (self.started and self.group):
            return None
        return QUtilities.fetch_task_group(self.group, failures, wait, count, self.cached, self.schema_name)
