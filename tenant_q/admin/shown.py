"""Values for people: pickled columns, durations, kinds of schedules. Whatever is stored, the page is shown."""

from __future__ import annotations

import pprint
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django_q.models import Schedule
from picklefield.fields import _ObjectWrapper, dbsafe_decode

LONGEST = 20_000
"""So many characters of a value are shown."""
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Stored:
    """What a pickled column holds, or why that cannot be read."""

    value: Any
    error: str = ""


def read_pickle(text: str | None) -> Stored:
    """Read a pickled column from its text. Never raises: a class that is gone is told in `error`."""
    if text is None:
        return Stored(None)
    try:
        value = dbsafe_decode(text)
        return Stored(value._obj if isinstance(value, _ObjectWrapper) else value)
    except Exception as error:  # whatever unpickling a class raises
        return Stored(None, f"{type(error).__name__}: {error}")


def as_text(value: Any) -> str:
    """A value as Python shows it, at most `LONGEST` characters of it. Never raises."""
    try:
        text = value if isinstance(value, str) else pprint.pformat(value, width=_WIDTH, compact=True, sort_dicts=False)
    except Exception as error:  # a `__repr__` of the project's
        return _("A %(type)s that cannot be shown: %(error)s") % {
            "type": type(value).__name__,
            "error": f"{type(error).__name__}: {error}",
        }
    if len(text) > LONGEST:
        text = text[:LONGEST] + "\n" + _("… %(count)s characters more") % {"count": len(text) - LONGEST}
    return text


def block(text: str, label: Any) -> SafeString:
    """Text as it is, in a block that scrolls by itself and can be reached with the keyboard."""
    return format_html('<pre class="tenant-q-block" tabindex="0" role="region" aria-label="{}">{}</pre>', label, text)


def stored_block(text: str | None, label: Any) -> SafeString | str:
    """A pickled column's value in a block, or what is wrong with it."""
    stored = read_pickle(text)
    if stored.error:
        return format_html(
            '<p class="tenant-q-note">{}</p>{}', _("The stored value cannot be read."), block(stored.error, label)
        )
    return "-" if stored.value is None else block(as_text(stored.value), label)


def duration(seconds: float | None) -> str:
    """Seconds in words: 3 ms, 1.25 s, 2 min 5 s, 3 h 4 min."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def kind_of(row: Schedule) -> str:
    """How often a schedule runs, in words."""
    if row.schedule_type == Schedule.CRON:
        return _("Cron %(text)s") % {"text": row.cron}
    if row.schedule_type == Schedule.MINUTES:
        minutes = row.minutes or 1
        return _("Every minute") if minutes == 1 else _("Every %(count)s minutes") % {"count": minutes}
    return str(row.get_schedule_type_display())
