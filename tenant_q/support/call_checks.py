"""Check types and values of the arguments of public calls, before they reach a server."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from tenant_q.exceptions import WrongArgument

LONGEST_SECONDS = 10**9
"""A time in seconds that every timer of the operating system accepts: about 30 years."""
LARGEST_NUMBER = 10**15
"""The largest number in an argument or a setting."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def require(call: str, **arguments: Any) -> None:
    """Check the types and values of the arguments of a public call.

    Args:
        call: The name of the method, for the message.
        **arguments: The arguments by their names in `_WANTED`.

    Raises:
        WrongArgument: An argument has a wrong type or value. The message names the first one.
    """
    for name, value in arguments.items():
        wanted, fits = _WANTED[name]
        if not fits(value):
            name = name.removesuffix("_path")
            raise WrongArgument(f"{call}() was called with {name}={shown(value)}; it must be {wanted}.")


def require_schema_name(schema: Any) -> None:
    """Check the argument `schema_name` of a public call: a text, or None for the current tenant."""
    if schema is not None and not is_text(schema):
        raise WrongArgument(f"The schema_name of a call is {shown(schema)}; it must be {_WANTED['schema_name'][0]}.")


def shown(value: Any) -> str:
    """Return a short text for an argument of a call, and its type unless it is None. Never raise an error."""
    text = short(value)
    return text if value is None else f"{text} ({type(value).__name__})"


def short(value: Any) -> str:
    """Return a short text for an argument of a call, without its type. Never raise an error."""
    try:
        return _SHORT.repr(value)
    except Exception:  # a `__repr__` of the project
        return "an object"


def is_text(value: Any) -> bool:
    """Return whether an argument is a text that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def is_function(value: Any) -> bool:
    """Return whether an argument can stand for a function: a callable, or a text that is not blank."""
    return callable(value) or is_text(value)


def is_name(value: Any) -> bool:
    """Return whether an argument can be the name of a group or a task. It is saved, and found, as text."""
    return isinstance(value, str | int | UUID) and not isinstance(value, bool)


def is_flag(value: Any) -> bool:
    """Return whether an argument is True or False, or 1 or 0."""
    return isinstance(value, int) and value in (0, 1)


def is_number(value: Any) -> bool:
    """Return whether an argument is a usable number: no bool, not infinite, not NaN, within `LARGEST_NUMBER`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


CATCH_UP = "True, False, or a whole number of runs from 2 on"
"""What the option and the setting `catch_up` may be, in words for a message."""


def is_catch_up(value: Any) -> bool:
    """Return whether a value says how a schedule catches up on missed runs."""
    return isinstance(value, bool) or (type(value) is int and value >= 2)


def is_cached(value: Any) -> bool:
    """Return whether an argument is valid for the option `cached`."""
    return value is None or (isinstance(value, int) and 0 <= value <= LONGEST_SECONDS)


def is_broker(value: Any) -> bool:
    """Return whether an argument is a broker of Django-Q2, or None for the configured one."""
    return value is None or (hasattr(value, "enqueue") and hasattr(value, "list_key"))


def is_many(value: Any) -> bool:
    """Return whether an argument is a list or another iterable, but not a text, whose items would be letters."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | Mapping)


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


_A_NAME = "a text, or None"
# For each argument: the value it must have, in words for the message, and a test.
_WANTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "func": ("a function, or its dotted path such as 'shop.tasks.send'", is_function),
    "func_path": ("a function's dotted path, such as 'shop.tasks.send'", is_text),
    "schema_name": ("a schema's name, or None for the current tenant", _or_none(is_text)),
    "task_id": ("a task's id or name, a text that is not empty", is_text),
    "group_id": ("a group's name, not empty", lambda value: is_name(value) and value != ""),
    "group": ("a group's name, or None", _or_none(is_name)),
    "path": ("a workflow's dotted path, such as 'shop.workflows.order'", is_text),
    "id": ("the id of a run, a text that is not empty", is_text),
    "wait": ("milliseconds, negative to wait without limit", is_number),
    "count": ("a number of tasks of at least 0, or None", _or_none(lambda value: is_number(value) and value >= 0)),
    "cached": ("True, False, seconds, or None for what Q_CLUSTER['cached'] says", is_cached),
    "sync": ("True, False or None", _or_none(is_flag)),
    "failures": ("True or False", lambda value: isinstance(value, bool)),
    "tasks": ("True or False", lambda value: isinstance(value, bool)),
    "broker": ("a broker of Django-Q2, or None for the configured one", is_broker),
    "by": ("a text", _is_string),
    "args_iter": ("a list of tuples of arguments, or of single arguments", is_many),
    "chain": ("a list of (func, args, kwargs), the last two optional", is_many),
    "args": ("a list of tuples of arguments, or of single arguments, or None", _or_none(is_many)),
    "kwargs": ("a dict of keywords, or None", _or_none(lambda value: isinstance(value, dict))),
    "name": (_A_NAME, _or_none(_is_string)),
    "hook_path": ("a function's dotted path, or None", _or_none(_is_string)),
    "next_run": ("a datetime, or None", _or_none(lambda value: isinstance(value, datetime | str))),
    "cron": (_A_NAME, _or_none(_is_string)),
    "cluster": ("a cluster's name, or None", _or_none(_is_string)),
    "intended_date_kwarg": ("a keyword's name, or None", _or_none(_is_string)),
}
