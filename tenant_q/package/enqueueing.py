"""Turn the options that depend on the moment or the arguments of a call into what its package carries.

`delay` and `expires` may be given as moments or as seconds from now, and `unique` as a function of the arguments. A
package carries seconds, an aware moment and a text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tenant_q.conf import conf
from tenant_q.exceptions import EnqueueError
from tenant_q.package.functions import name_of
from tenant_q.package.options import LONGEST_KEY, in_seconds, is_key
from tenant_q.support.call_checks import shown

# Options that only take effect when a package is enqueued. A worker that finds a declaration later adds none of them.
ONLY_WHEN_ENQUEUED = ("unique", "unique_until", "priority", "rate", "rate_scope")


def settle(task: dict[str, Any]) -> None:
    """Settle the options `delay`, `expires`, `unique` and `unique_until` of a task that is about to be enqueued.

    Args:
        task: The task, with its arguments and valid options.

    Raises:
        EnqueueError: The options contradict each other, or the function that returns the unique key fails.
    """
    if isinstance(task.get("delay"), datetime):
        task["delay"] = max(0.0, in_seconds(task["delay"]))
    if task.get("expires") is not None:
        _settle_expires(task)
    if "unique" in task or "unique_until" in task:
        _settle_unique(task)


def moment_of(expires: Any, since: datetime) -> datetime:
    """Return the moment at which a task expires.

    Args:
        expires: The option `expires`: seconds, a timedelta or an aware datetime.
        since: The aware moment from which a number of seconds counts.
    """
    if isinstance(expires, datetime):
        return expires.astimezone(UTC)
    return since.astimezone(UTC) + (expires if isinstance(expires, timedelta) else timedelta(seconds=expires))


def _settle_expires(task: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    task["expires"] = moment = moment_of(task["expires"], now)
    delay = in_seconds(task.get("delay") or 0)
    if delay > 0 and now + timedelta(seconds=delay) >= moment:
        raise EnqueueError(
            f"{name_of(task['func'])} cannot be enqueued: it would expire before its 'delay' of {delay:.0f} s has "
            "passed; choose a later 'expires'."
        )


def _settle_unique(task: dict[str, Any]) -> None:
    if "unique" not in task:
        raise EnqueueError(
            f"{name_of(task['func'])} cannot be enqueued: 'unique_until' has no effect without 'unique'; add a key, or "
            "leave it out."
        )
    if task["unique"] is None or (task.get("sync") and conf().sync):  # it runs here, beside no other
        task.pop("unique_until", None)
        del task["unique"]
        return
    for option, what in (("iter_count", "the parts of an iter"), ("chain", "the links of a chain"), ("sync", "sync")):
        if task.get(option):
            raise not_unique(task["func"], what)
    task["unique"] = _key(task["unique"], task["func"], task["args"], task["kwargs"])


def not_unique(func: Any, what: str) -> EnqueueError:
    """Return the error for a task that cannot have the option `unique`.

    Args:
        func: Its function.
        what: The kind of call, for the message.
    """
    return EnqueueError(
        f"{name_of(func)} cannot be enqueued with the option 'unique', which does not work with {what}; enqueue it as "
        "a task of its own, or give it unique=None."
    )


def _key(unique: Any, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the unique key of a call. Raises `EnqueueError`."""
    key = _computed(unique, func, args, kwargs) if callable(unique) else unique
    if not is_key(key):
        raise EnqueueError(
            f"The unique key of {name_of(func)} is {shown(key)}; it must be a whole number, or a text of 1 to "
            f"{LONGEST_KEY} characters."
        )
    return str(key)


def _computed(unique: Callable[..., Any], func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return unique(*args, **kwargs)
    except Exception as error:  # whatever the project's function raises
        raise EnqueueError(
            f"The option 'unique' of {name_of(func)} fails on the arguments of the call: "
            f"{type(error).__name__}: {error}; correct that function, or the call."
        ) from error
