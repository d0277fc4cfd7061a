"""Options and output of the operators' commands, in one style.

A table has its column names in the first line and two spaces between columns. Colours and lines folded to the width are
for terminals; elsewhere a row is one line, for `grep` and `awk`. `--json` is for programs: times are ISO 8601,
durations are seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from io import StringIO
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from tenant_q.exceptions import TenantQError
from tenant_q.support.moments import aware
from tenant_q.support.visible import one_line, visible

NOTHING = "-"
"""The text of an empty cell."""
_STYLES = {
    **dict.fromkeys(("failure", "gone", "dead", "broken"), "bold red"),
    **dict.fromkeys(("excluded", "paused", "unready", "failed", "stopping", "starting", "late"), "yellow"),
    **dict.fromkeys(("success", "working", "ok"), "green"),
}
_UNFOLDED = 10_000
"""The width of output that is not folded, because it does not go to a terminal."""


class OperatorCommand(BaseCommand):
    """A command for operators: `--json`, errors in one sentence, tables. Subclasses implement `perform`."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Write JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        self._no_color = bool(options.get("no_color"))
        self._force_color = bool(options.get("force_color"))
        try:
            self.perform(options)
        except (TenantQError, CommandError) as error:  # both may contain names of tenants
            raise CommandError(visible(str(error)), returncode=getattr(error, "returncode", 1)) from error

    def perform(self, options: dict[str, Any]) -> None:
        """Do what the operators' command is for. The text of a `TenantQError` becomes its error message."""
        raise NotImplementedError

    def write_json(self, data: Any) -> None:
        """Write the output of an operators' command as JSON."""
        text = json.dumps(data, indent=2, default=_plain)
        self.stdout.write(text.replace("\x7f", "\\u007f"))  # the only control character that is left

    def write_line(self, text: str) -> None:
        """Write a line of an operators' command, which may contain names of tenants."""
        self.stdout.write(visible(text))

    def show(self, *parts: RenderableType) -> None:
        """Write texts and tables below each other on the console; on a terminal folded and in colour."""
        is_terminal = self.stdout.isatty()
        out = StringIO()
        console = Console(
            file=out,
            force_terminal=(is_terminal or self._force_color) and not self._no_color,
            no_color=self._no_color,
            width=shutil.get_terminal_size().columns if is_terminal else _UNFOLDED,
            highlight=False,
            emoji=False,
            markup=False,
        )
        for part in parts:
            console.print(part)
        self.stdout.write("\n".join(line.rstrip() for line in out.getvalue().splitlines()))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    numbers: Iterable[str] = (),
    width: int | None = None,
    least: Sequence[str] = (),
) -> Table:
    """Return a table for the console. A cell that is None or empty becomes a dash.

    Args:
        columns: The names of the columns.
        rows: The cells of each row.
        numbers: The columns that are aligned to the right.
        width: The width of a screen on which no line may be folded. Columns that do not fit are left out, and cells
            that are still too long are cut.
        least: The columns to leave out, the least important first.
    """
    on_the_right = set(numbers)
    cells = [[cell if isinstance(cell, Text) else styled(words(cell)) for cell in row] for row in rows]
    if width is not None:
        kept = _fitting(columns, cells, width, least)
        columns = [columns[place] for place in kept]
        cells = [[row[place] for place in kept] for row in cells]
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        justify: JustifyMethod = "right" if column in on_the_right else "left"
        is_cut = width is not None
        made.add_column(column, justify=justify, overflow="ellipsis" if is_cut else "fold", no_wrap=is_cut)
    for row in cells:
        made.add_row(*row)
    return made


def facts(values: Mapping[str, Any]) -> Table:
    """Return what is known about one thing as a table for the console, without the values that are None or empty."""
    rows = [(styled(name, "bold"), value) for name, value in values.items() if value not in (None, "")]
    made = table(("", ""), rows)
    made.show_header = False
    return made


def _fitting(columns: Sequence[str], cells: Sequence[Sequence[Text]], width: int, least: Sequence[str]) -> list[int]:
    """Return the places of the columns that fit on the console, with two blanks between them."""
    widths = [2 + max(len(name), *(row[place].cell_len for row in cells), 0) for place, name in enumerate(columns)]
    kept = list(range(len(columns)))
    for name in least:
        if sum(widths[place] for place in kept) <= width:
            break
        kept.remove(columns.index(name))
    return kept


def styled(text: str, style: str | None = None) -> Text:
    """Return a text for the console with escaped control characters, in a style or in the colour of its word."""
    text = visible(text)
    return Text(text, style=style or _STYLES.get(text, ""))


def words(value: Any) -> str:
    """Return a value as a cell's text on the console, on one line, with escaped control characters."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, datetime):
        return moment(value)
    return visible(one_line(value))


def moment(value: datetime) -> str:
    """Return a moment as the console shows it: in the current time zone, to the second."""
    return timezone.localtime(aware(value)).isoformat(sep=" ", timespec="seconds")


def positive_integer(text: str) -> int:
    """Return the value of a command's option that takes a positive integer."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return aware(value).isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
