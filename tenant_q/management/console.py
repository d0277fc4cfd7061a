"""How the operators' commands take their options and answer: one style for all of them.

A table has its heads in the first line and two spaces between columns. Colours, and lines that are folded to the
width, are for terminals; elsewhere a row is a line, for `grep` and `awk`. `--json` is for programs: times are ISO 8601,
durations seconds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
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

# What is written where there is nothing.
NOTHING = "-"
_STYLES = {
    **dict.fromkeys(("failure", "gone", "dead", "broken"), "bold red"),
    **dict.fromkeys(("excluded", "paused", "unready", "failed", "stopping", "starting", "late"), "yellow"),
    **dict.fromkeys(("success", "working", "ok"), "green"),
}
# Wide enough that nothing is folded where nobody looks at a terminal.
_UNFOLDED = 10_000


class OperatorCommand(BaseCommand):
    """A command for operators: `--json`, errors in one sentence, tables. Subclasses have `act(options)`."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Answer in JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        self._no_color = bool(options.get("no_color"))
        self._force_color = bool(options.get("force_color"))
        try:
            self.act(options)
        except (TenantQError, CommandError) as error:  # names of tenants may be in both
            raise CommandError(visible(str(error)), returncode=getattr(error, "returncode", 1)) from error

    def act(self, options: dict[str, Any]) -> None:
        """Do what the command is for. A `TenantQError` ends it with its sentence."""
        raise NotImplementedError

    def answer(self, data: Any) -> None:
        """Write JSON."""
        text = json.dumps(data, indent=2, default=_plain)
        self.stdout.write(text.replace("\x7f", "\\u007f"))  # the only control character that is left

    def say(self, text: str) -> None:
        """Write a line, which may hold names of tenants."""
        self.stdout.write(visible(text))

    def show(self, *parts: RenderableType) -> None:
        """Write parts below each other, folded and coloured on a terminal only."""
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
    """A table of cells. What is None or empty is a dash.

    Parameters: `numbers`, the columns whose cells stand on the right; `width`, of a screen on which nothing may be
    folded: columns that do not fit are left out, those first that `least` names first, and what is too long all the
    same is cut.
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


def _fitting(columns: Sequence[str], cells: Sequence[Sequence[Text]], width: int, least: Sequence[str]) -> list[int]:
    """The places of the columns that fit on a screen, two blanks between them."""
    widths = [2 + max(len(name), *(row[place].cell_len for row in cells), 0) for place, name in enumerate(columns)]
    kept = list(range(len(columns)))
    for name in least:
        if sum(widths[place] for place in kept) <= width:
            break
        kept.remove(columns.index(name))
    return kept


def styled(text: str, style: str | None = None) -> Text:
    """A text in the colour of what it says, with its control characters written out."""
    text = visible(text)
    return Text(text, style=style or _STYLES.get(text, ""))


def words(value: Any) -> str:
    """A value as a cell says it, on one line, with its control characters written out."""
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
    """A moment to the second, in the current time zone."""
    return timezone.localtime(aware(value)).isoformat(sep=" ", timespec="seconds")


def as_data(value: Any) -> Any:
    """A frozen dataclass as plain data for JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return aware(value).isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
