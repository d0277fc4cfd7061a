"""Show stored values in the admin, whatever they are: pickled columns and kinds of schedules."""

from __future__ import annotations

import pprint
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django_q.models import Schedule

from tenant_q.lifecycle.task_rows import Stored

LONGEST = 20_000
"""The most characters of a value that are shown."""
_WIDTH = 100
_DEEPEST = 40
_SHORT = 300
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 100


def as_text(value: Any) -> str:
    """Return a stored value as Python shows it, cut to `LONGEST` characters. Never raises.

    Its cost depends on what is shown: the rest of a large container is not read.
    """
    try:
        text = value if isinstance(value, str) else _pretty(value)
    except Exception as error:  # from a `__repr__` of the project
        return _unshowable(value, error)
    if len(text) > LONGEST:
        text = text[:LONGEST] + "\n" + _("… and more")
    return text


def in_short(value: Any) -> str:
    """Return a stored value on one line, cut to a few hundred characters. Never raises."""
    try:
        text = _BRIEF.repr(value)
    except Exception as error:
        return _unshowable(value, error)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def _pretty(value: Any) -> str:
    return pprint.pformat(_Start(LONGEST).of(value), width=_WIDTH, compact=True, sort_dicts=False)


def _unshowable(value: Any, error: Exception) -> str:
    words = {"type": type(value).__name__, "error": f"{type(error).__name__}: {error}"}
    return _("A %(type)s that cannot be shown: %(error)s") % words


class _Start:
    """The part of a value that fills the first `room` characters of its text. The rest becomes an ellipsis."""

    def __init__(self, room: int) -> None:
        self.room = room

    def of(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if kind in (str, bytes, bytearray):
            start = value[: max(self.room, 1)]
            self.room -= len(start)
            return value if len(start) == len(value) else _Left(repr(start))
        if kind not in (list, tuple, set, frozenset, dict):
            return value
        if depth == _DEEPEST:
            return _Left("")
        if kind is dict:
            return dict(self._items(value, depth))
        return kind(self._elements(value, depth))

    def _elements(self, values: Iterable[Any], depth: int) -> Iterator[Any]:
        for value in values:
            if self.room <= 0:
                yield _Left("")
                return
            self.room -= 1  # each takes at least one character
            yield self.of(value, depth + 1)

    def _items(self, values: dict[Any, Any], depth: int) -> Iterator[tuple[Any, Any]]:
        for name, value in values.items():
            if self.room <= 0:
                yield _Left(""), _Left("")
                return
            self.room -= 1
            yield self.of(name, depth + 1), self.of(value, depth + 1)


class _Left:
    """The start of a value that was cut."""

    def __init__(self, start: str) -> None:
        self.start = start

    def __repr__(self) -> str:
        return f"{self.start}…"


def block(text: str, label: Any) -> SafeString:
    """Return the text of a value in an HTML block that scrolls and can be reached with the keyboard."""
    return format_html('<pre class="tenant-q-block" tabindex="0" role="region" aria-label="{}">{}</pre>', label, text)


def stored_block(stored: Stored, label: Any) -> SafeString | str:
    """Return a pickled column's value in an HTML block, or why it cannot be read; with a note if it is not signed."""
    if stored.error:
        shown = format_html(
            '<p class="tenant-q-note">{}</p>{}', _("The stored value cannot be read."), block(stored.error, label)
        )
    elif stored.value is None:
        return "-"
    else:
        shown = block(as_text(stored.value), label)
    return shown if stored.is_signed else unsigned_note() + shown


def unsigned_note() -> SafeString:
    """Return the note that the admin shows above a value that has no valid signature."""
    note = _("This value is not signed by a cluster of this site, so only plain types are loaded from it.")
    return format_html('<p class="tenant-q-note">{}</p>', note)


def kind_of(row: Schedule) -> str:
    """Return how often a schedule runs, in words, as a value that the admin shows."""
    if row.schedule_type == Schedule.CRON:
        return _("Cron %(text)s") % {"text": row.cron}
    if row.schedule_type == Schedule.MINUTES:
        minutes = row.minutes or 1
        return _("Every minute") if minutes == 1 else _("Every %(count)s minutes") % {"count": minutes}
    return str(row.get_schedule_type_display())
