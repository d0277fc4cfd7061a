"""`Iter`: a function that is called once for each set of arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_q.models import Task

from tenant_q.conf import conf
from tenant_q.package.option_types import Func
from tenant_q.package.options import take_q_options
from tenant_q.support.call_checks import require
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

    def result(self, wait: int = 0, *, raise_failure: bool = False) -> list[Any] | None:
        """Return the results of the `Iter` as a list, in the order of the arguments.

        Args:
            wait: How long to wait for it, in milliseconds; negative: without limit.
            raise_failure: Whether to raise `TaskFailed` if one of the tasks failed.

        Returns:
            The results; None if not all tasks have finished, or if the iter was changed since `run`.
        """
        if not self.started:
            return None
        found: list[Any] | None = QUtilities.get_result(
            self.id, wait, self.cached, self.schema_name, raise_failure=raise_failure
        )
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
