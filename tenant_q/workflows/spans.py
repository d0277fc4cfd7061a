"""Read spans of time as people write them: "7d", "1h", seconds, or a timedelta."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from tenant_q.exceptions import WorkflowError
from tenant_q.support.call_checks import LONGEST_SECONDS, is_number, shown

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds_of(span: Any, name: str) -> float | None:
    """Return a span of time in seconds; None for None.

    Args:
        span: Seconds, a timedelta, a text such as "90s", "15m", "1h", "7d" or "2w", or None.
        name: What it is for, for the message.

    Raises:
        WorkflowError: It is none of these, or not more than 0.
    """
    if span is None:
        return None
    if isinstance(span, str) and (found := _SPAN.fullmatch(span.strip())):
        seconds = float(found[1]) * _SECONDS[found[2]]
    elif isinstance(span, timedelta):
        seconds = span.total_seconds()
    else:
        seconds = float(span) if is_number(span) else -1.0
    if not 0 < seconds <= LONGEST_SECONDS:
        raise WorkflowError(
            f"{name} is {shown(span)}; it must be more than 0: seconds, a timedelta, or a text such as '90s', '15m', "
            "'1h' or '7d'."
        )
    return seconds
