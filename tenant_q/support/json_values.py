"""Check that `jsonb` of PostgreSQL can hold a value."""

from __future__ import annotations

import math
from typing import Any

from tenant_q.support.call_checks import short

MOST_LEVELS = 100
"""The deepest nesting of a value. PostgreSQL and Python limit it too, at depths that depend on their stacks."""
_MOST_DIGITS = 1000


def json_problem(value: Any) -> str:
    """Return why JSON or `jsonb` cannot hold a value, with the path of the first such part; empty if they can.

    Args:
        value: Dicts with texts as keys, lists, tuples, texts, numbers, True, False and None. It may be nested as deep
            as it likes, because this needs no recursion.
    """
    left: list[tuple[Any, str, int]] = [(value, "$", 0)]
    while left:
        part, path, level = left.pop()
        if problem := _problem_of(part):
            return f"the value at {path} is {short(part)}, {problem}."
        if level > MOST_LEVELS:
            return f"the value at {path[:200]} is nested more than {MOST_LEVELS} levels deep."
        if isinstance(part, dict):
            for name in part:
                if not isinstance(name, str):
                    return f"the value at {path} has the key {short(name)}, which is no text."
                if problem := _problem_of(name):
                    return f"the value at {path} has the key {short(name)}, {problem}."
            left += [(inner, f"{path}.{name}", level + 1) for name, inner in reversed(part.items())]
        elif isinstance(part, list | tuple):
            left += [(inner, f"{path}[{place}]", level + 1) for place, inner in reversed(list(enumerate(part)))]
    return ""


def _problem_of(part: Any) -> str:
    """Return why JSON or `jsonb` cannot hold a value, without what is inside it; empty if they can."""
    if part is None or isinstance(part, bool | dict | list | tuple):
        return ""
    if isinstance(part, str):
        if "\0" in part:
            return "which has a zero character"
        return "" if part.isascii() or _is_utf8(part) else "which has half of a surrogate pair"
    if isinstance(part, int):
        return "" if abs(part) < 10**_MOST_DIGITS else f"which has more than {_MOST_DIGITS} digits"
    if isinstance(part, float):
        return "" if math.isfinite(part) else "which is no number in JSON"
    return f"whose type {type(part).__name__} is not one of JSON; convert it"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
