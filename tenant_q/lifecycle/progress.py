"""Report the progress of a task, and read it in any process that knows the id of the task.

A worker writes the progress into memory that it shares with the sentinel. The sentinel sends the progress of all its
workers to the broker, a few times a second. So a report costs the task no round trip, and the last one always arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from tenant_q.brokers import site_brokers
from tenant_q.exceptions import ProgressError
from tenant_q.lifecycle import aliases
from tenant_q.package.running import running
from tenant_q.states import LONGEST_TEXT, Progress
from tenant_q.support.call_checks import shown

# The last report of a task in sync mode, which is known only where the task runs.
_reported_here: ContextVar[tuple[str, Progress] | None] = ContextVar("tenant_q_progress", default=None)
_report: Callable[[str, Progress], None] | None = None


def report_to(report: Callable[[str, Progress], None] | None) -> None:
    """Pass the progress that this process's tasks report to a function, or with None to no one."""
    global _report
    _report = report


def report(fraction: float, text: str = "") -> None:
    """Report the progress of the running task.

    Args:
        fraction: The part of the work that is done, from 0 to 1.
        text: A text, which is cut to `LONGEST_TEXT` bytes.

    Raises:
        ProgressError: No task runs here, or the fraction is out of range.
    """
    package = running.get()
    if package is None:
        raise ProgressError(
            "set_progress() sets the progress of a running task, and no task runs here; call it in a task."
        )
    if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:  # NaN is not either
        raise ProgressError(f"A task's progress is a fraction from 0 to 1, not {shown(fraction)}; divide by the whole.")
    progress = Progress(float(fraction), str(text).encode()[:LONGEST_TEXT].decode(errors="ignore"))
    if _report is None or package.option("sync"):
        _reported_here.set((package.id, progress))
    else:
        _report(package.id, progress)


def read(schema: str, id: str) -> Progress | None:
    """Return the last progress that a tenant's task has reported; None if it has reported none, or does not run.

    Args:
        schema: The tenant's schema.
        id: The id of the task.

    Raises:
        BrokerError: A broker does not answer.
        ConfigurationError: The broker keeps no progress.
    """
    found = _read(schema, id)
    if found is None and (real := aliases.real_id(schema, id)):
        found = _read(schema, real)
    return found


def _read(schema: str, id: str) -> Progress | None:
    here = _reported_here.get()
    if here and here[0] == id:
        return here[1]
    return next((found for broker in site_brokers() if (found := broker.get_progress(schema, id))), None)
