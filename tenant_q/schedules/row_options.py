"""The options of a schedule itself, which stand among the `q_options` of its task and are not passed on to it."""

from __future__ import annotations

from typing import Any

from tenant_q.conf import conf
from tenant_q.exceptions import BadSchedule, EnqueueError
from tenant_q.schedules.arguments import parse_arguments
from tenant_q.support.call_checks import CATCH_UP, is_catch_up, shown

_CATCH_UP = "catch_up"


def take_out(options: dict[str, Any]) -> None:
    """Remove the options of a schedule itself from the options of its task.

    Raises:
        EnqueueError: One of them has a wrong value.
    """
    value = options.pop(_CATCH_UP, None)
    if value is not None and not is_catch_up(value):
        raise EnqueueError(f"q_options['catch_up'] is {shown(value)}; it must be {CATCH_UP}.")


def catch_up_of(kwargs_text: str | None) -> bool | int:
    """Return how a schedule catches up: as its own `q_options` say, otherwise as the setting says.

    Args:
        kwargs_text: The keyword arguments in its row.

    Returns:
        True for every missed run, False for one, and a number for at most that many, the latest ones.
    """
    if kwargs_text and _CATCH_UP in kwargs_text:
        try:
            options = parse_arguments(None, kwargs_text)[1].get("q_options")
        except BadSchedule:  # its run leaves a failed task that says so
            options = None
        own = options.get(_CATCH_UP) if isinstance(options, dict) else None
        if isinstance(own, int) and is_catch_up(own):
            return own
    return conf().catch_up
