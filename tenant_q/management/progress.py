"""The progress of a long action of `mstenant`: one line on a terminal, which is gone at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import OutputWrapper
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tenant_q.support.visible import one_line, visible


class ProgressLine:
    """A line of progress on a terminal: how many of how many are done, and what is being done."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)

    def at(self, text: str) -> None:
        """Show in the line of progress what is being done, such as "acme_corp: migrations"."""
        self._progress.update(self._task, description=visible(one_line(text)), refresh=True)

    def done(self, count: int = 1) -> None:
        """Count in the line of progress as many more that are done."""
        self._progress.update(self._task, advance=count, refresh=True)


@contextmanager
def progress_line(stderr: OutputWrapper, total: int | None, *, as_json: bool) -> Iterator[ProgressLine]:
    """Show a line of progress while an action of `mstenant` is at work. It is drawn when something is reported.

    Args:
        stderr: The command's standard error. Nothing is shown unless it is a terminal.
        total: How many are to be done; None if that is not known.
        as_json: Whether the command writes JSON. Nothing is shown then.
    """
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    progress = Progress(
        *(columns if total is not None else columns[:1] + columns[3:]),
        console=Console(file=_Unstyled(stderr), highlight=False, emoji=False, markup=False),  # type: ignore[arg-type]
        transient=True,
        auto_refresh=False,  # without a thread of its own
        disable=as_json or not stderr.isatty(),
    )
    with progress:
        yield ProgressLine(progress, total)


class _Unstyled:
    """A command's standard error for a line of progress, without the red of errors and without added line ends."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out

    def write(self, text: str) -> None:
        self._out.write(text, str, "")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)
