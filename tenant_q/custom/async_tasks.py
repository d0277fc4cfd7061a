"""`AsyncTask`: one task as an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_q.models import Task

from tenant_q.conf import conf
from tenant_q.exceptions import WrongArgument
from tenant_q.package.option_types import Func
from tenant_q.support.call_checks import shown
from tenant_q.utils import QUtilities

if TYPE_CHECKING:
    from django_q.brokers import Broker


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

    def result(self, wait: int = 0, *, raise_failure: bool = False) -> Any:
        """Return the result of the `AsyncTask`.

        Args:
            wait: How long to wait for it, in milliseconds; negative: without limit.
            raise_failure: Whether to raise `TaskFailed` if the task failed, instead of returning the error's text.

        Returns:
            The result; None if there is none yet, or if an option was changed since `run`.
        """
        if not self.started:
            return None
        return QUtilities.get_result(
            self.id, wait=wait, cached=self.cached, schema_name=self.schema_name, raise_failure=raise_failure
        )

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
