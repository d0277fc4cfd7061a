"""`Chain`: tasks that run one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_q.models import Task

from tenant_q.conf import conf
from tenant_q.package.option_types import Func
from tenant_q.support.call_checks import require
from tenant_q.utils import QUtilities

if TYPE_CHECKING:
    from django_q.brokers import Broker


class Chain:
    """Tasks that run one after another. A link that fails ends the chain.

    The methods raise what those of `QUtilities` raise.

    Args:
        chain: The links: tuples `(func, args, kwargs)`, of which the last two are optional.
        group: The id of the group of all links, for which `get_status` knows no state, as several chains may have it;
            None for a new one in each run.
        cached: Whether, or for how many seconds, results are kept in the cache instead of the tenant's table; None for
            the setting `Q_CLUSTER["cached"]`.
        sync: Whether to run in this process; None for the setting `Q_CLUSTER["sync"]`.
        broker: A broker of Django-Q2 for the first link; None for the configured one.
        schema_name: The schema of the tenant; None for the current one.
        pass_result: Whether each link gets the result of the one before it as its first argument.
        hook: A function, or its path, that is called once when the chain ends: with the last link's task, or with that
            of the link that failed.
    """

    def __init__(
        self,
        chain: list[Any] | None = None,
        group: str | None = None,
        cached: bool | int | None = None,
        sync: bool | None = None,
        broker: Broker | None = None,
        schema_name: str | None = None,
        *,
        pass_result: bool = False,
        hook: Func | None = None,
    ) -> None:
        require("Chain", chain=() if chain is None else chain, group=group, cached=cached, sync=sync, broker=broker)
        self.chain = chain if isinstance(chain, list) else list(chain or ())
        self.group = group or ""
        self._group_of_run = ""  # one that was made for a run, and not given by the caller
        self.broker = broker
        self.cached = conf().cached if cached is None else cached
        self.sync = conf().sync if sync is None else sync
        self.schema_name = schema_name
        self.pass_result = pass_result
        self.hook = hook
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
            The id of the group, which is a new one in each run unless the caller has given one. `get_status` returns
            the state of the run for a new one.
        """
        named = self.group if self.group != self._group_of_run else None
        self.group = QUtilities.create_async_tasks_chain(
            self.chain,
            group=named,
            cached=None if self.cached == conf().cached else self.cached,  # a link may declare another value
            sync=self.sync,
            broker=self.broker,
            schema_name=self.schema_name,
            pass_result=self.pass_result,
            hook=self.hook,
        )
        self._group_of_run = "" if named else self.group
        self.started = True
        return self.group

    def result(self, wait: int = 0, *, raise_failure: bool = False) -> list[Any] | None:
        """Return the results of the links of the `Chain`, the first link's first.

        Args:
            wait: How long to wait for all links, in milliseconds; negative: without limit.
            raise_failure: Whether to raise `TaskFailed` if a link failed.

        Returns:
            The results so far; None if there is none, or if the chain was changed since `run`.
        """
        if not self.started:
            return None
        return QUtilities.get_result_group(
            self.group,
            wait=wait,
            count=self.length(),
            cached=self.cached,
            schema_name=self.schema_name,
            raise_failure=raise_failure,
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
