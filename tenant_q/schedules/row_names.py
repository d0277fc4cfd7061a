"""Name schedules by their names. Django-Q2 names them by their functions, which several schedules may share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django_q.models import Schedule


def install() -> None:
    """Replace `Schedule.__str__()` by the name of the schedule, if it has one. A second call has no effect.

    The admin uses it in titles, questions, messages and its history.
    """
    if not hasattr(Schedule.__str__, "tenant_q_original"):
        Schedule.__str__ = _named(Schedule.__str__)


def group_of(row: Schedule) -> str:
    """Return the group that the tasks of a schedule get: its name, or its id."""
    return row.name or str(row.pk)


def _named(original: Callable[[Schedule], str]) -> Callable[[Schedule], str]:
    @wraps(original)
    def named(self: Schedule) -> str:
        return self.name or original(self)

    named.tenant_q_original = original  # type: ignore[attr-defined]
    return named
