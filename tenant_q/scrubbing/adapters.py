"""How psycopg turns values into text and back: the tables of one connection, and those that new connections get."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap


def _named(adapters: AdaptersMap) -> list[str]:
    """The attributes of adapters that are tables of dumpers, loaders and types."""
    names = [*vars(adapters), *(f"types.{name}" for name in vars(adapters.types))]
    return [name for name in names if name != "types" and "_own" not in name]


# A copy shares the tables with its template until one of the two registers something, so comparing them is cheap.
tables: Callable[[AdaptersMap], tuple[Any, ...]] = attrgetter(*_named(AdaptersMap(psycopg.adapters)))


class GlobalAdapters:
    """The adapters of `psycopg` itself, as they were noted."""

    def __init__(self) -> None:
        self._noted = AdaptersMap(psycopg.adapters)

    def look(self) -> tuple[Any, ...]:
        """Their tables."""
        return tables(psycopg.adapters)

    def take(self) -> tuple[Any, ...]:
        """Take them as they are. Returns their tables, which nobody else changes."""
        self._noted = AdaptersMap(psycopg.adapters)
        return tables(self._noted)

    def restore(self, _: Any) -> None:
        """Put them back."""
        vars(psycopg.adapters).update(vars(AdaptersMap(self._noted)))
