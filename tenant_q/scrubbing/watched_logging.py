"""Restore what a task changes in the loggers of its process: levels, handlers, filters, `logging.disable`."""

from __future__ import annotations

import logging
from typing import Any

_FIELDS = ("level", "propagate", "disabled")
_LISTS = ("handlers", "filters")
# A key in the cache of one of our loggers. `setLevel` of any logger empties the caches of all.
_MARK = "tenant_q"
_marked = logging.getLogger("tenant_q.process_state")


class Logging:
    """The noted loggers. All are read only if the mark has changed."""

    def __init__(self) -> None:
        self._noted: dict[str, dict[str, Any]] = {}
        self._disable = 0

    def mark(self) -> tuple[Any, ...]:
        """Return a mark that changes with a logger's level, a new handler, the root logger, or `logging.disable`."""
        root = logging.root
        return (
            root.manager.disable,
            _MARK in _marked._cache,  # type: ignore[attr-defined]
            len(logging._handlerList),  # type: ignore[attr-defined]
            tuple(root.handlers),
            tuple(root.filters),
        )

    def note(self) -> None:
        """Note the present state of all loggers."""
        self._noted = {name: _state(logger) for name, logger in _loggers().items()}
        self._disable = logging.root.manager.disable
        _marked._cache[_MARK] = True  # type: ignore[attr-defined]

    def restore(self, _: Any) -> str | None:
        """Restore the loggers that a task has changed. Return their names; None if there are none."""
        changed = []
        if logging.root.manager.disable != self._disable:
            logging.disable(self._disable)
            changed.append("logging.disable")
        for name, logger in _loggers().items():
            was = self._noted.get(name, _NEW)
            if _state(logger) != was:
                _put_back(logger, was)
                changed.append(name)
        if changed:
            logging.root.manager._clear_cache()  # type: ignore[attr-defined]
        _marked._cache[_MARK] = True  # type: ignore[attr-defined]
        return ", ".join(changed) or None


def _loggers() -> dict[str, logging.Logger]:
    made = {name: one for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    return {"root": logging.root, **made}


def _state(logger: logging.Logger) -> dict[str, Any]:
    return {name: getattr(logger, name) for name in _FIELDS} | {name: list(getattr(logger, name)) for name in _LISTS}


def _put_back(logger: logging.Logger, was: dict[str, Any]) -> None:
    for name in _FIELDS:
        setattr(logger, name, was[name])
    for name in _LISTS:
        getattr(logger, name)[:] = was[name]


# The state of a new logger.
_NEW = _state(logging.Logger("new"))  # noqa: LOG001 (nobody shall find it)
