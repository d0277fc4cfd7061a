"""The options of a task: their names, checks and defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from tenant_q.conf import conf, switches_schemas
from tenant_q.exceptions import EnqueueError
from tenant_q.package.functions import LONGEST_NAME, is_path, name_of, stored_name
from tenant_q.support.call_checks import (
    LARGEST_NUMBER,
    LONGEST_SECONDS,
    is_broker,
    is_cached,
    is_flag,
    is_function,
    is_name,
    is_number,
    shown,
)
from tenant_q.support.hints import did_you_mean

# Options that Django-Q2 accepts as keywords of `async_task`. A function's own keywords must not have these names.
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
# Our options. They are read only from `q_options`, so that no keyword of a user's function is swallowed.
TENANT_OPTIONS = (
    "max_deliveries",
    "max_attempts",
    "retry_delay",
    "retry_backoff",
    "retry_jitter",
    "retry_on",
    "no_retry_on",
    "delay",
    "expires",
    "unique",
    "unique_until",
    "on_commit",
    "transactional",
    "databases",
    "tenant_cache_seconds",
    "priority",
    "rate",
    "rate_scope",
)
# Those that `@task` declares. The others belong to one call.
DECLARED_OPTIONS = (
    "max_attempts",
    "retry_on",
    "no_retry_on",
    "retry_delay",
    "retry_backoff",
    "retry_jitter",
    "timeout",
    "cluster",
    "transactional",
    "on_commit",
    "expires",
    "unique",
    "unique_until",
    "priority",
    "rate",
    "rate_scope",
    "save",
    "cached",
)
# What a rate counts: the starts of one tenant, or of all.
TENANT, SITE = "tenant", "site"
HIGHEST_PRIORITY = 100
_RATE = re.compile(r"([1-9]\d{0,5})/([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# The longest values that Django-Q2's columns hold.
LONGEST = {"func": LONGEST_NAME, "hook": LONGEST_NAME, "name": 100, "group": 100, "cluster": 100}


# The longest unique key, in characters.
LONGEST_KEY = 500


def take_q_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Remove `q_options` from the keywords of a call, and return it. Raises `EnqueueError` if it is not a dict."""
    q_options = kwargs.pop("q_options", None)
    if q_options is None:
        return {}
    if not isinstance(q_options, dict):
        raise EnqueueError(f"q_options is {shown(q_options)}; it must be a dict of options.")
    return dict(q_options)


def refuse_unknown(q_options: Mapping[str, Any]) -> None:
    """Raise `EnqueueError` if an option of a task is unknown."""
    known = (*KEYWORD_OPTIONS, *TENANT_OPTIONS, "task_name")
    for name in q_options:
        if name not in known:
            raise EnqueueError(f"q_options has an unknown option '{name}': {did_you_mean(name, known)}")


def refuse_wrong_values(task: Mapping[str, Any], form: str = "q_options['{}']") -> None:
    """Raise `EnqueueError` if an option has a wrong value, or two options contradict each other.

    Args:
        task: The options, with other fields of a task.
        form: How an option is written where it was given, for the message.
    """
    for option in _CHECKS.keys() & task.keys():
        wanted, fits = _CHECKS[option]
        if isinstance(task[option], datetime) and timezone.is_naive(task[option]):
            raise EnqueueError(
                f"{form.format(option)} is {shown(task[option])}, which has no time zone; make it aware with "
                "django.utils.timezone.make_aware()."
            )
        if not fits(task[option]):
            raise EnqueueError(f"{form.format(option)} is {shown(task[option])}; it must be {wanted}.")
    if "databases" in task:
        _refuse_unknown_databases(task["databases"])
    if task.get("transactional") and (task.get("save") is False or task.get("cached")):
        raise EnqueueError(
            f"{form.format('transactional')} needs a result in the tenant's table; leave out 'save=False' and 'cached'."
        )


def name_errors(options: dict[str, Any]) -> None:
    """Replace classes of errors by their paths: a class would have to exist wherever the package is opened."""
    for option in _ERROR_OPTIONS:
        if option in options:
            options[option] = _names(options[option])


def _names(errors: Any) -> tuple[str, ...]:
    kinds = errors if isinstance(errors, list | tuple) else (errors,)
    return tuple(kind if isinstance(kind, str) else name_of(kind) for kind in kinds)


def _are_errors(value: Any) -> bool:
    kinds = value if isinstance(value, list | tuple) else (value,)
    return all(
        is_path(kind) if isinstance(kind, str) else isinstance(kind, type) and issubclass(kind, BaseException)
        for kind in kinds
    )


def _refuse_unknown_databases(value: Any) -> None:
    if not isinstance(value, list | tuple) or not all(switches_schemas(alias) for alias in value):
        known = ", ".join(sorted(filter(switches_schemas, settings.DATABASES)))
        raise EnqueueError(
            f"q_options['databases'] is {shown(value)}; it must be aliases of databases with tenants: {known}."
        )


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _is_bool_or_none(value: Any) -> bool:
    return value is None or isinstance(value, bool)


_ERROR_OPTIONS = ("retry_on", "no_retry_on")
_AN_ERROR = "a class of errors, or a tuple of them"
# For each option: the value it must have, in words for the message, and a test.
_CHECKS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "hook": ("a function, its dotted path, or None", lambda value: value in (None, "") or is_function(value)),
    "group": ("a text, or None", lambda value: value is None or is_name(value)),
    "save": ("True or False", lambda value: value is None or is_flag(value)),
    "sync": ("True or False", lambda value: value is None or is_flag(value)),
    "ack_failure": ("True or False", lambda value: value is None or is_flag(value)),
    "broker": ("a broker of Django-Q2, or None for the configured one", is_broker),
    "timeout": (
        "seconds, more than 0, or None for no limit",
        lambda value: value in (None, -1) or (is_number(value) and 0 < value <= LONGEST_SECONDS),
    ),
    "cluster": ("a cluster's name", lambda value: value is None or isinstance(value, str)),
    "cached": ("True, False, or seconds", is_cached),
    "iter_cached": ("True, False, or seconds", is_cached),
    "chain": ("a list of links", lambda value: value is None or isinstance(value, list | tuple)),
    "iter_count": ("a whole number", lambda value: value is None or isinstance(value, int)),
    "max_deliveries": ("a whole number of at least 1", lambda value: _is_whole(value, 1)),
    "max_attempts": ("a whole number, 0 for no limit", lambda value: _is_whole(value, 0)),
    "retry_delay": ("seconds, 0 or more", lambda value: is_number(value) and 0 <= value <= LONGEST_SECONDS),
    "retry_backoff": ("a factor of at least 1", lambda value: is_number(value) and value >= 1),
    "retry_jitter": ("a share from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1),
    "retry_on": (_AN_ERROR, _are_errors),
    "no_retry_on": (_AN_ERROR, _are_errors),
    "delay": (
        "seconds or a timedelta, 0 or more, or an aware datetime",
        lambda value: in_seconds(value) <= LONGEST_SECONDS and (isinstance(value, datetime) or in_seconds(value) >= 0),
    ),
    "expires": (
        "seconds or a timedelta, more than 0, an aware datetime, or None",
        lambda value: value is None or isinstance(value, datetime) or 0 < in_seconds(value) <= LONGEST_SECONDS,
    ),
    "unique": (
        f"a whole number, a text of 1 to {LONGEST_KEY} characters, a function of the call's arguments, or None",
        lambda value: value is None or callable(value) or is_key(value),
    ),
    "unique_until": ("'start' or 'end'", lambda value: value in ("start", "end")),
    "on_commit": ("True or False", _is_bool_or_none),
    "transactional": ("True or False", _is_bool_or_none),
    "priority": (
        f"a whole number from -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}",
        lambda value: _is_whole(value, -HIGHEST_PRIORITY) and value <= HIGHEST_PRIORITY,
    ),
    "rate": (
        "a number of starts per second, minute, hour or day, such as '10/s', '100/m', '1000/h' or '5/d', or None",
        lambda value: value is None or (isinstance(value, str) and _RATE.fullmatch(value) is not None),
    ),
    "rate_scope": (f"{TENANT!r} or {SITE!r}", lambda value: value in (TENANT, SITE)),
    "tenant_cache_seconds": ("seconds, 0 or more", lambda value: is_number(value) and 0 <= value <= LONGEST_SECONDS),
}


def is_key(value: Any) -> bool:
    """Return whether a value can be a unique key: a whole number, or a text of a possible length that is UTF-8."""
    if type(value) is int:
        return -LARGEST_NUMBER <= value <= LARGEST_NUMBER
    is_text = isinstance(value, str) and 0 < len(value) <= LONGEST_KEY
    return is_text and value == value.encode("utf-8", "replace").decode()


def in_seconds(delay: Any) -> float:
    """Return the option `delay` in seconds from now: given as seconds, a timedelta or an aware datetime.

    A negative number stands for anything else, and for a moment that has passed.
    """
    if isinstance(delay, timedelta):
        return delay.total_seconds()
    if isinstance(delay, datetime):
        return (delay - datetime.now(UTC)).total_seconds()
    return float(delay) if is_number(delay) else -1.0


def seconds_between(rate: str) -> float:
    """Return the seconds between two starts by the option `rate`, such as '10/s'. Raises `ValueError` if it is none."""
    found = _RATE.fullmatch(rate)
    if found is None:
        raise ValueError(f"{rate!r} is not a rate")
    return _UNIT_SECONDS[found[2]] / int(found[1])


def refuse_too_long(task: Mapping[str, Any]) -> None:
    """Raise `EnqueueError` if the function or an option of a task does not fit into its column."""
    for field, longest in LONGEST.items():
        value = task.get(field)
        text = stored_name(value) if field in ("func", "hook") and value else str(value or "")
        if len(text) > longest:
            raise EnqueueError(f"The {field} of a task to enqueue has {len(text)} characters; use at most {longest}.")
        if "\0" in text or text != text.encode("utf-8", "replace").decode():
            raise EnqueueError(
                f"The {field} of a task to enqueue has a character that PostgreSQL cannot hold: {text!r}."
            )


def fill_defaults(task: dict[str, Any], declared: Mapping[str, Any]) -> None:
    """Add the options that the function declares, and then those that have a default in the settings.

    A transactional task keeps its result in its tenant's table, whatever the setting `cached` says.
    """
    for option, value in declared.items():
        task.setdefault(option, value)
    ours = conf()
    for option, value in (("cached", ours.cached), ("sync", ours.sync), ("ack_failure", ours.ack_failures)):
        if option not in task and value and not (option == "cached" and task.get("transactional")):
            task[option] = value
