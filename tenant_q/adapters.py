"""How psycopg turns values into text and back: the tables of one connection, and those that new connections get."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap


def tables(adapters: AdaptersMap) -> list[Any]:
    """The tables of dumpers, loaders and types.

    A copy shares them with its template until one of the two registers something, so comparing them is cheap.
    """
    fields = {**vars(adapters), **vars(adapters.types)}
    return [value for name, value in fields.items() if not name.startswith("_own") and name != "types"]


class GlobalAdapters:
    """The adapters of `psycopg` itself, as they were noted."""

    def __init__(self) -> None:
        self._noted = AdaptersMap(psycopg.adapters)

    def look(self) -> list[Any]:
        """Their tables."""
        return tables(psycopg.adapters)

    def note(self) -> None:
        """Take them as they are."""
        self._noted = AdaptersMap(psycopg.adapters)

    def restore(self, _: Any) -> None:
        """Put them back."""
        vars(psycopg.adapters).update(vars(AdaptersMap(self._noted)))
