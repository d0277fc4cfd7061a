"""The package: Django-Q2's task dict plus `schema_name`, signed when it travels.

`build()` makes one from a call; `envelope` signs, checks and reads it. What an executed package came to is an
`Outcome`.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.utils import timezone
from django_q.humanhash import uuid

from tenant_q.conf import conf
from tenant_q.exceptions import TaskCancelled, TaskDeath, TaskTimeout, WrongArgument
from tenant_q.package.functions import counted_name, name_of, stored_name
from tenant_q.package.options import (
    KEYWORD_OPTIONS,
    TENANT_OPTIONS,
    fill_defaults,
    in_seconds,
    refuse_too_long,
    refuse_unknown,
    refuse_wrong_values,
    take_q_options,
)
from tenant_q.support.call_checks import is_function, is_label, shown
from tenant_q.support.tracing import carry_span

# Who enqueued a package: code of the project, the scheduler, or somebody in an admin.
CODE, SCHEDULE, ADMIN = "code", "schedule", "admin"


@dataclass(frozen=True, slots=True)
class Package:
    """A read-only view of one task dict. `task` itself is what travels and what Django-Q2's signals are sent."""

    task: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.task["id"])

    @property
    def key(self) -> tuple[str, str]:
        """Its schema and id, which identify it among the packages of all tenants."""
        return self.schema, self.id

    @property
    def name(self) -> str:
        return str(self.task["name"])

    @property
    def schema(self) -> str:
        return str(self.task["schema_name"])

    @property
    def tenant(self) -> str | None:
        """The key of the tenant it was made for: empty for the public schema, None where an earlier version made it."""
        tenant = self.task.get("tenant")
        return None if tenant is None else str(tenant)

    @property
    def func(self) -> Any:
        return self.task["func"]

    @property
    def func_name(self) -> str:
        """The function's name in the code, or the text that was given for it."""
        return name_of(self.task["func"])

    @property
    def stored_func(self) -> str:
        """The function as a row holds it: with a remark where its name alone does not stand for it."""
        return stored_name(self.task["func"])

    @property
    def counted_func(self) -> str:
        """The name under which the function's runs are counted and their time is estimated."""
        return counted_name(self.task["func"])

    @property
    def stored_hook(self) -> str | None:
        """The hook as a row holds it; None without one."""
        hook = self.task.get("hook")
        return stored_name(hook) if hook else None

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(self.task["args"])

    @property
    def kwargs(self) -> dict[str, Any]:
        return dict(self.task["kwargs"])

    def option(self, name: str, default: Any = None) -> Any:
        """The value of the option `name`, or `default` when the package does not carry it."""
        return self.task.get(name, default)

    @property
    def origin(self) -> str | None:
        """Who enqueued it: `CODE`, `SCHEDULE` or `ADMIN`; None when a version without origins built it."""
        return self.task.get("origin")

    @property
    def group(self) -> str | None:
        group = self.task.get("group")
        return None if group is None else str(group)

    @property
    def cached(self) -> bool | int:
        """Where the result goes: False to the tenant's table, True or seconds to the cache."""
        return self.task.get("cached") or False

    @property
    def is_iter_part(self) -> bool:
        return bool(self.task.get("iter_count"))

    @property
    def max_deliveries(self) -> int:
        """Starts that may end with the death of their worker."""
        return int(self.task.get("max_deliveries") or conf().max_deliveries)

    @property
    def failures(self) -> int:
        """Attempts that have ended with an error so far."""
        return int(self.task.get("failures", 0))

    @property
    def is_transactional(self) -> bool:
        """Whether the task's work and its result are one transaction."""
        return bool(self.task.get("transactional"))

    @property
    def is_on_commit(self) -> bool:
        """Whether it is enqueued when the current transaction commits."""
        wanted = self.task.get("on_commit")
        return conf().on_commit if wanted is None else bool(wanted)

    @property
    def delay(self) -> float:
        """Seconds until it may start, from the moment it is enqueued."""
        return in_seconds(self.task.get("delay") or 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of running a package.

    `result` is the return value, or the text of what went wrong. `seconds` is the worker time used. `death` is the
    class name of the cause, for a failure, and `error` the exception itself, which does not travel. `is_saved` says
    that its row is there already, `is_final` that it is not to be tried again.
    """

    package: Package
    success: bool
    result: Any
    started: datetime
    stopped: datetime
    seconds: float
    attempt: int = 1
    death: str | None = None
    error: BaseException | None = None
    is_saved: bool = False
    is_final: bool = False

    @property
    def waited(self) -> float | None:
        """Seconds from when the package was enqueued, or due, to its start; None for a later attempt."""
        enqueued = self.package.option("started")
        if self.attempt > 1 or not isinstance(enqueued, datetime):
            return None
        try:
            return max(0.0, (self.started - enqueued).total_seconds() - self.package.delay)
        except TypeError:  # enqueued under another USE_TZ
            return None

    def task_dict(self) -> dict[str, Any]:
        """The task dict with the outcome in it, as Django-Q2 hands it to `post_execute` and to the cache."""
        return self.package.task | {
            "result": self.result,
            "success": self.success,
            "started": self.started,
            "stopped": self.stopped,
        }


def with_outcome(outcome: Outcome, *, put_off: int) -> Package:
    """The package with its outcome in it: delivered again, it is not run, only saved."""
    kept = ("success", "result", "started", "stopped", "seconds", "attempt", "death", "is_final")
    carried = {name: getattr(outcome, name) for name in kept}
    return Package(outcome.package.task | {"outcome": carried, "put_off": put_off})


def without_values(outcome: Outcome, death: TaskDeath) -> Outcome:
    """Return the outcome as a failure with this cause, without its result and arguments, which may be large."""
    package = Package(outcome.package.task | {"args": (), "kwargs": {}})
    name = type(death).__name__
    return replace(outcome, package=package, success=False, result=f"{name}: {death}", death=name, is_final=True)


def carried_outcome(package: Package) -> Outcome | None:
    """The outcome that a package carries since it could not be saved, or None."""
    carried = package.option("outcome")
    if carried is None:
        return None
    task = {name: value for name, value in package.task.items() if name != "outcome"}
    return Outcome(package=Package(task), **carried)


def death_of(reason: str) -> TaskDeath:
    """Return the death that a give-up reason names: a cancel, or a timeout that the task did not react to."""
    cause, _, text = reason.partition(": ")
    return TaskCancelled(text) if cause == TaskCancelled.__name__ else TaskTimeout(reason)


def build(
    func: Any,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    *,
    schema: str,
    id: str | None = None,
    origin: str | None = CODE,
    tenant: str | None = None,
) -> Package:
    """The package of one call.

    Parameters: `func`, a dotted path or a callable that pickles; `args` and `keywords`, those of the call, with
    Django-Q2's options among the keywords or in `q_options`; `schema`, the tenant; `id`, a deterministic id (32 hex
    digits), or None for a new one; `origin`, who enqueues it, or None when that is not known; `tenant`, the tenant's
    key, or None where it is to be looked up.

    Raises `EnqueueError` when `q_options` has an unknown option or a name is too long to be saved, and `WrongArgument`
    when `func` is neither a function nor a path.
    """
    if not is_function(func):
        raise WrongArgument(
            f"The function of a task to enqueue is {shown(func)}; pass a function, or its dotted path such as "
            "'shop.tasks.send'."
        )
    kwargs = dict(keywords)
    q_options = take_q_options(kwargs)
    refuse_unknown(q_options)
    words, fresh = uuid()
    name = kwargs.pop("task_name", None) or q_options.pop("task_name", None) or words
    if not is_label(name):
        raise WrongArgument(f"The task_name of a task to enqueue is {shown(name)}; it must be a text.")
    task: dict[str, Any] = {
        "id": id or fresh,
        "name": str(name),
        "func": func,
        "args": args,
    }
    for option in KEYWORD_OPTIONS:
        if option in q_options:
            task[option] = q_options[option]
        elif option in kwargs:
            task[option] = kwargs.pop(option)
    task.update({option: q_options[option] for option in TENANT_OPTIONS if option in q_options})
    fill_defaults(task)
    refuse_wrong_values(task)
    refuse_too_long(task)
    task["kwargs"] = kwargs
    task["started"] = timezone.now()
    task["schema_name"] = schema
    if tenant is not None:
        task["tenant"] = tenant
    if origin is not None:
        task["origin"] = origin
    carry_span(task)
    return Package(task)


def deterministic_id(*parts: object) -> str:
    """An id (32 hex digits) that is the same for the same parts: of a fire, a chain link, an iter part."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def labels(package: Package) -> dict[str, str]:
    """What every log record about a package carries in `extra`."""
    return {"schema": package.schema, "task_id": package.id, "func": package.func_name}


def pickled(value: Any) -> bytes:
    """Return the pickle that a column of a task row holds. Raises what pickle raises."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
