"""A task reports its progress, and any process that knows its id reads it.

A worker writes it into memory that it shares with the sentinel, which passes it on to the broker a few times a
second, of all its workers at once. So telling costs a task no round trip, and the last value arrives also when nothing
follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from tenant_q.brokers import site_brokers
from tenant_q.exceptions import ProgressError
from tenant_q.package.running import running
from tenant_q.states import LONGEST_TEXT, Progress
from tenant_q.support.call_checks import shown

# In sync mode nobody passes anything on: what a task told is known where it runs.
_told_here: ContextVar[tuple[str, Progress] | None] = ContextVar("tenant_q_progress", default=None)
_report: Callable[[str, Progress], None] | None = None


def report_to(report: Callable[[str, Progress], None] | None) -> None:
    """From here on, tell `report` the progress of this process's tasks; with None it is known here only."""
    global _report
    _report = report


def report(fraction: float, text: str = "") -> None:
    """Report the progress of the running task. Raises `ProgressError` outside of a task, and for a wrong fraction."""
    package = running.get()
    if package is None:
        raise ProgressError(
            "set_progress() sets the progress of a running task, and no task runs here; call it in a task."
        )
    if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:  # NaN is not either
        raise ProgressError(f"A task's progress is a fraction from 0 to 1, not {shown(fraction)}; divide by the whole.")
    progress = Progress(float(fraction), str(text).encode()[:LONGEST_TEXT].decode(errors="ignore"))
    if _report is None or package.option("sync"):
        _told_here.set((package.id, progress))
    else:
        _report(package.id, progress)


def read(schema: str, id: str) -> Progress | None:
    """How far a tenant's running task says it is; None when it has told nothing, or does not run."""
    told = _told_here.get()
    if told and told[0] == id:
        return told[1]
    found = (broker.get_progress(schema, id) for broker in site_brokers())
    return next((progress for progress in found if progress), None)
