"""The package: Django-Q2's task dict plus `schema_name`, signed when it travels.

`build()` makes one from a call, `seal()` signs it, `open_package()` checks and reads it. What an executed package
came to is an `Outcome`.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import io
import pickle
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone
from django_q import core_signing
from django_q.conf import Conf
from django_q.humanhash import uuid
from django_q.signing import BadSignature, SignedPackage
from django_q.utils import get_func_repr

from tenant_q.conf import conf
from tenant_q.exceptions import BadPackage, EnqueueError

# Options that Django-Q2 takes as keywords of `async_task`; a function's own keywords must not have these names.
KEYWORD_OPTIONS = (
    "hook",
    "group",
    "save",
    "sync",
    "cached",
    "ack_failure",
    "iter_count",
    "iter_cached",
    "chain",
    "broker",
    "cluster",
    "timeout",
)
# Options of ours. They are read from `q_options` only, so that no keyword of a user's function is swallowed.
TENANT_OPTIONS = ("max_deliveries", "databases", "tenant_cache_seconds")
# What a timer of the operating system can be set to, in any case: some 30 years.
LONGEST_TIMEOUT = 10**9
# The longest values that Django-Q2's columns hold.
LONGEST = {"func": 256, "hook": 256, "name": 100, "group": 100, "cluster": 100}


@dataclass(frozen=True, slots=True)
class Package:
    """A read-only view of one task dict. `task` itself is what travels and what Django-Q2's signals are sent."""

    task: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.task["id"])

    @property
    def name(self) -> str:
        return str(self.task["name"])

    @property
    def schema(self) -> str:
        return str(self.task["schema_name"])

    @property
    def func(self) -> Any:
        return self.task["func"]

    @property
    def func_name(self) -> str:
        """The dotted path under which the function is saved and its run time estimated."""
        return str(get_func_repr(self.task["func"]))

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
        return int(self.task.get("max_deliveries") or conf().max_deliveries)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of running a package.

    `result` is the return value, or the text of what went wrong. `seconds` is the worker time used. `death` is the
    class name of the cause, for a failure, and `error` the exception itself, which does not travel.
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
    kept = ("success", "result", "started", "stopped", "seconds", "attempt", "death")
    carried = {name: getattr(outcome, name) for name in kept}
    return Package(outcome.package.task | {"outcome": carried, "put_off": put_off})


def carried_outcome(package: Package) -> Outcome | None:
    """The outcome that a package carries since it could not be saved, or None."""
    carried = package.option("outcome")
    if carried is None:
        return None
    task = {name: value for name, value in package.task.items() if name != "outcome"}
    return Outcome(package=Package(task), **carried)


def build(
    func: Any, args: tuple[Any, ...], keywords: Mapping[str, Any], *, schema: str, id: str | None = None
) -> Package:
    """The package of one call.

    Parameters: `func`, a dotted path or a callable that pickles; `args` and `keywords`, those of the call, with
    Django-Q2's options among the keywords or in `q_options`; `schema`, the tenant; `id`, a deterministic id (32 hex
    digits), or None for a new one.

    Raises `EnqueueError` when `q_options` has a name that no option has, or a name is too long to be saved.
    """
    kwargs = dict(keywords)
    q_options = take_q_options(kwargs)
    _refuse_unknown(q_options)
    words, fresh = uuid()
    task: dict[str, Any] = {
        "id": id or fresh,
        "name": str(kwargs.pop("task_name", None) or q_options.pop("task_name", None) or words),
        "func": func,
        "args": args,
    }
    for option in KEYWORD_OPTIONS:
        if option in q_options:
            task[option] = q_options[option]
        elif option in kwargs:
            task[option] = kwargs.pop(option)
    task.update({option: q_options[option] for option in TENANT_OPTIONS if option in q_options})
    _fill_defaults(task)
    _refuse_wrong_values(task)
    refuse_too_long(task)
    task["kwargs"] = kwargs
    task["started"] = timezone.now()
    task["schema_name"] = schema
    return Package(task)


def take_q_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take `q_options` out of a call's keywords. Raises `EnqueueError` when it is no dict."""
    q_options = kwargs.pop("q_options", None) or {}
    if not isinstance(q_options, dict):
        raise EnqueueError(f"q_options is {q_options!r}; it must be a dict of options.")
    return dict(q_options)


def _refuse_unknown(q_options: Mapping[str, Any]) -> None:
    known = (*KEYWORD_OPTIONS, *TENANT_OPTIONS, "task_name")
    for name in q_options:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}."
            raise EnqueueError(f"q_options has an unknown option '{name}': {hint}")


def _refuse_wrong_values(task: Mapping[str, Any]) -> None:
    checks: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "max_deliveries": ("a whole number of at least 1", lambda value: type(value) is int and value >= 1),
        "tenant_cache_seconds": ("seconds, 0 or more", lambda value: _is_number(value) and value >= 0),
        "timeout": (
            "seconds, or None",
            lambda value: value is None or (_is_number(value) and value <= LONGEST_TIMEOUT),
        ),
        "cluster": ("a cluster's name", lambda value: value is None or isinstance(value, str)),
        "cached": ("True, False, or seconds", lambda value: value is None or isinstance(value, int)),
        "chain": ("a list of links", lambda value: value is None or isinstance(value, list | tuple)),
        "iter_count": ("a whole number", lambda value: value is None or isinstance(value, int)),
        "databases": (
            f"aliases among {', '.join(sorted(settings.DATABASES))}",
            lambda value: (
                isinstance(value, list | tuple)
                and all(isinstance(alias, str) and alias in settings.DATABASES for alias in value)
            ),
        ),
    }
    for option, (wanted, fits) in checks.items():
        if option in task and not fits(task[option]):
            raise EnqueueError(f"q_options['{option}'] is {task[option]!r}; it must be {wanted}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def refuse_too_long(task: Mapping[str, Any]) -> None:
    """Raise `EnqueueError` when a text of the task does not fit into the column it is saved in."""
    for field, longest in LONGEST.items():
        value = task.get(field)
        text = str(get_func_repr(value) if field in ("func", "hook") else value or "")
        if len(text) > longest:
            raise EnqueueError(f"The {field} of a task to enqueue has {len(text)} characters; use at most {longest}.")
        if "\0" in text or text != text.encode("utf-8", "replace").decode():
            raise EnqueueError(
                f"The {field} of a task to enqueue has a character that PostgreSQL cannot hold: {text!r}."
            )


def _fill_defaults(task: dict[str, Any]) -> None:
    ours = conf()
    for option, value in (("cached", ours.cached), ("sync", ours.sync), ("ack_failure", ours.ack_failures)):
        if option not in task and value:
            task[option] = value


def deterministic_id(*parts: object) -> str:
    """An id (32 hex digits) that is the same for the same parts: of a fire, a chain link, an iter part."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def seal(package: Package) -> str:
    """The signed text of a package. The schema is inside the signature.

    Raises `EnqueueError`, naming function and cause, when something in it does not pickle.
    """
    try:
        return str(SignedPackage.dumps(package.task))
    except Exception as error:  # whatever a class's own __reduce__ raises
        raise EnqueueError(
            f"{package.func_name} cannot be enqueued for {package.schema}: its function, arguments or hook do not "
            f"pickle ({error}); pass plain values and functions defined at a module's top level."
        ) from error


def open_package(payload: str, *, schema: str | None = None) -> Package:
    """Check the signature of `payload` and read it.

    Parameters: `schema`, the tenant whose queue the payload was found in, or None when the broker has one queue.

    Raises `BadPackage` when the signature does not fit, when the package belongs to another tenant's queue or to
    none, or when a class in it is gone. Only in the last case does the error carry the readable rest, as `.package`.
    """
    try:
        task = SignedPackage.loads(payload)
    except BadSignature as error:
        raise BadPackage(f"the signature does not fit this project's SECRET_KEY and cluster name ({error})") from error
    except Exception as error:
        raise _missing_class(payload, schema, error) from error
    return _checked(task, schema)


def _checked(task: Any, schema: str | None) -> Package:
    if not isinstance(task, dict) or not {"id", "name", "func", "args", "kwargs"} <= task.keys():
        raise BadPackage("it is signed but holds no task")
    if not task.get("schema_name"):
        raise BadPackage("it names no tenant; enqueue it through QUtilities or with tenant_q in INSTALLED_APPS")
    if schema is not None and task["schema_name"] != schema:
        raise BadPackage(f"it belongs to tenant {task['schema_name']!r} and was found in the queue of {schema!r}")
    return Package(task)


class _AnyAttribute(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _Missing(metaclass=_AnyAttribute):
    """Stands in for a class that is gone, so that the rest of its package can still be read.

    It takes whatever a pickle does to an instance, of a list's or a dict's class too, and keeps nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take any arguments."""

    def __setstate__(self, state: Any) -> None:
        """Take any state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take any item."""

    def __getattr__(self, name: str) -> Any:
        return getattr(type(self), name)

    def append(self, value: Any) -> None:
        """Take any value."""

    def extend(self, values: Any) -> None:
        """Take any values."""


class _LenientSerializer:
    @staticmethod
    def loads(data: bytes) -> Any:
        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                try:
                    return super().find_class(module, name)
                except (ImportError, AttributeError):
                    return _Missing

        return Unpickler(io.BytesIO(data)).load()


def _missing_class(payload: str, schema: str | None, error: Exception) -> BadPackage:
    refused = BadPackage(f"it cannot be unpickled: {error}; deploy the class or function it names, or enqueue anew")
    try:
        task = core_signing.loads(payload, key=Conf.SECRET_KEY, salt=Conf.PREFIX, serializer=_LenientSerializer)
        rest = _checked(task, schema)
    except Exception:
        return refused
    readable = rest.task | {"args": (), "kwargs": {}, "hook": None, "chain": None}
    if not isinstance(readable["func"], str) and not inspect.isroutine(readable["func"]):
        readable["func"] = "?"
    refused.package = Package(readable)
    return refused


def labels(package: Package) -> dict[str, str]:
    """What every log record about a package carries in `extra`."""
    return {"schema": package.schema, "task_id": package.id, "func": package.func_name}


def encode(value: Any) -> str:
    """`value` as Django-Q2's pickled columns hold it: base64 of a pickle. Raises what pickle raises."""
    return b64encode(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)).decode("ascii")
