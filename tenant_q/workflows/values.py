"""Check values that a run keeps: inputs, outputs and what steps set in the context. They are JSON that `jsonb` holds."""

from __future__ import annotations

import json
import math
from typing import Any

from tenant_q.exceptions import ValueRefused
from tenant_q.support.call_checks import short

MOST_BYTES = 1024 * 1024
"""The largest value of a step or of an input, in bytes of its JSON."""
MOST_LEVELS = 100
"""The deepest nesting of a value. PostgreSQL and Python limit it too, at depths that depend on their stacks."""
_MOST_DIGITS = 1000


def json_of(value: Any) -> str:
    """Return the JSON text of a value that a run is to keep.

    Args:
        value: Dicts with texts as keys, lists, tuples, texts, numbers, True, False and None.

    Raises:
        ValueRefused: JSON or `jsonb` cannot hold a part of it, or it is too large. The message has the part's path.
    """
    _check(value)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if len(text) > MOST_BYTES or len(text.encode()) > MOST_BYTES:
        raise ValueRefused(
            f"the value at $ takes {len(text.encode())} bytes as JSON, and at most {MOST_BYTES} are kept; keep it "
            "elsewhere and return its key."
        )
    return text


def _check(value: Any) -> None:
    """Raise `ValueRefused` for the first part of a value that cannot be kept. It needs no recursion."""
    left: list[tuple[Any, str, int]] = [(value, "$", 0)]
    while left:
        part, path, level = left.pop()
        if problem := _problem_of(part):
            raise ValueRefused(f"the value at {path} is {short(part)}, {problem}.")
        if level > MOST_LEVELS:
            raise ValueRefused(f"the value at {path[:200]} is nested more than {MOST_LEVELS} levels deep.")
        if isinstance(part, dict):
            for name in part:
                if not isinstance(name, str):
                    raise ValueRefused(f"the value at {path} has the key {short(name)}, which is no text.")
                if problem := _problem_of(name):
                    raise ValueRefused(f"the value at {path} has the key {short(name)}, {problem}.")
            left += [(inner, f"{path}.{name}", level + 1) for name, inner in reversed(part.items())]
        elif isinstance(part, list | tuple):
            left += [(inner, f"{path}[{place}]", level + 1) for place, inner in reversed(list(enumerate(part)))]


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
