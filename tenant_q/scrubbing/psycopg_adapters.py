"""Read and restore psycopg's adapters, which convert values to text and back: of one connection, and the defaults."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap


def _named(adapters: AdaptersMap) -> list[str]:
    """Return the attributes of psycopg's adapters that are tables of dumpers, loaders and types."""
    names = [*vars(adapters), *(f"types.{name}" for name in vars(adapters.types))]
    return [name for name in names if name != "types" and "_own" not in name]


# A copy shares its tables with the original until either registers something, so comparing them is cheap.
tables: Callable[[AdaptersMap], tuple[Any, ...]] = attrgetter(*_named(AdaptersMap(psycopg.adapters)))


class GlobalAdapters:
    """The noted state of psycopg's default adapters."""

    def __init__(self) -> None:
        self._noted = AdaptersMap(psycopg.adapters)

    def look(self) -> tuple[Any, ...]:
        """Return the tables of psycopg's default adapters."""
        return tables(psycopg.adapters)

    def take(self) -> tuple[Any, ...]:
        """Note the present state of psycopg's default adapters, and return a copy of their tables."""
        self._noted = AdaptersMap(psycopg.adapters)
        return tables(self._noted)

    def restore(self, _: Any) -> None:
        """Restore the noted state of psycopg's default adapters."""
        vars(psycopg.adapters).update(vars(AdaptersMap(self._noted)))
