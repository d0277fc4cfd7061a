"""Restore what a task changes in Django: settings, and receivers of signals."""

from __future__ import annotations

import sys
from operator import attrgetter
from typing import Any

from django.conf import settings
from django.dispatch import Signal

# The last name in the cache of `settings`. A setting that is set leaves the cache, and is behind this name once read.
_MARK = "_tenant_q_mark"
_receivers_of = attrgetter("receivers")


class Settings:
    """The noted settings of Django. All are compared only if the mark has changed."""

    def __init__(self) -> None:
        self._wrapped: Any = None
        self._noted: dict[str, Any] = {}
        self._deleted: set[str] = set()

    def mark(self) -> tuple[Any, ...]:
        """Return a mark that changes when a task sets, deletes or overrides a Django setting."""
        cache = vars(settings)
        wrapped = cache["_wrapped"]
        return wrapped is self._wrapped, len(vars(wrapped)), len(cache), next(reversed(cache))

    def note(self) -> None:
        """Note the present settings of Django."""
        cache = vars(settings)
        for name in dir(settings):
            if name.isupper():
                try:
                    getattr(settings, name)  # now it is in the cache
                except Exception:
                    continue
        self._wrapped = settings._wrapped
        self._noted = dict(vars(self._wrapped))
        self._deleted = set(self._noted.get("_deleted", ()))  # where settings are overridden
        cache.pop(_MARK, None)
        cache[_MARK] = True

    def restore(self, _: Any) -> str | None:
        """Restore the Django settings that a task has changed. Return their names; None if there are none."""
        changed = []
        if settings._wrapped is not self._wrapped:
            changed.append("all, by an override that was not ended")
            settings._wrapped = self._wrapped
        now = vars(self._wrapped)
        for name in sorted({*now, *self._noted}):
            if name not in self._noted:
                del now[name]
            elif name not in now or now[name] is not self._noted[name]:
                now[name] = self._noted[name]
            else:
                continue
            vars(settings).pop(name, None)
            changed.append(name)
        if now.get("_deleted", set()) != self._deleted:
            changed += sorted(now["_deleted"] ^ self._deleted)
            now["_deleted"] = set(self._deleted)
        self.note()
        return ", ".join(changed) or None


class Receivers:
    """The watched receivers of every Django signal that is an attribute of a module, also of the project."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._signals: list[Signal] = []
        self._names: list[str] = []

    def find(self) -> None:
        """Find Django signals to watch in the modules that were loaded since the last call."""
        known = {id(signal) for signal in self._signals}
        for name in sys.modules.keys() - self._seen:
            self._seen.add(name)
            for attribute, value in list(getattr(sys.modules[name], "__dict__", {}).items()):
                # Not `isinstance`, which makes lazy objects evaluate themselves.
                if issubclass(type(value), Signal) and id(value) not in known:
                    known.add(id(value))
                    self._signals.append(value)
                    self._names.append(attribute)

    def look(self) -> list[Any]:
        """Return the present receivers of each Django signal."""
        return [*map(_receivers_of, self._signals)]

    def restore(self, was: list[Any]) -> str:
        """Restore the receivers of Django signals that a task has changed. Return the names of the signals."""
        changed = []
        for name, signal, receivers in zip(self._names, self._signals, was, strict=True):
            if signal.receivers != receivers:
                with signal.lock:
                    signal.receivers = list(receivers)
                    signal.sender_receivers_cache.clear()
                changed.append(name)
        return ", ".join(changed)
