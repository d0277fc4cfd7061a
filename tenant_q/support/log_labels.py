"""The loggers of tenant_q: every record names its tenant, its task and its function.

Text of tenants in a record is one line without control characters: see `visible`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

from tenant_q.support import sentry
from tenant_q.support.visible import shortened, visible, visible_traceback

# The value of a label without a tenant, task or function.
NOTHING = "-"
NAMES = ("schema", "task_id", "func")
EVENT = "event"
# The longest traceback of a record, in characters: the message of an error may contain any value.
LONGEST_TRACEBACK = 100_000
# Types that are logged as they are, also with `%d` and `%.1f`.
_AS_IT_IS = (bool, int, float, type(None))


class LabelledLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry the labels `schema`, `task_id` and `func`; "-" for what `extra` lacks.

    Each call names its `event`, as "task.failed", which stays when the text of the record changes.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            msg, labelled = self.process(msg, kwargs)
            labelled["stacklevel"] = labelled.get("stacklevel", 1) + 1  # the caller's line, not this one
            with sentry.record_scope(labelled["extra"], has_error=bool(labelled.get("exc_info"))):
                self.logger.log(level, msg, *map(_shown, args), **labelled)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        given = kwargs.get("extra") or {}
        labels = {name: visible(str(given.get(name) or NOTHING)) for name in NAMES}
        kwargs["extra"] = {**given, **labels, EVENT: kwargs.pop(EVENT, NOTHING)}
        return msg, kwargs


class _Shown:
    """An argument of a log record, which becomes text only when the record is written."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __str__(self) -> str:
        return visible(str(self.value))

    def __repr__(self) -> str:
        return visible(repr(self.value))


def _shown(value: object) -> object:
    if isinstance(value, str):
        return value if value.isprintable() else _Shown(value)
    if isinstance(value, Mapping):  # the only argument, for `%(name)s`
        return {name: _shown(one) for name, one in value.items()}
    return value if isinstance(value, _AS_IT_IS) else _Shown(value)


def _show_traceback(record: logging.LogRecord) -> bool:
    """Set the text of a log record's traceback, which formatters use. This is a filter that keeps each record."""
    if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
        record.exc_text = shortened(visible_traceback(record.exc_info[1]), LONGEST_TRACEBACK)
    return True


def get_logger(name: str) -> LabelledLogger:
    """Return the logger with this name, whose log records carry the labels."""
    logger = logging.getLogger(name)
    logger.addFilter(_show_traceback)  # a filter is added only once
    return LabelledLogger(logger, {})
