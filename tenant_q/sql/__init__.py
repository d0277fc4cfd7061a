"""Load the SQL statements, one from each file of this folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

_SQL = Path(__file__).parent


@cache
def statement(name: str) -> Any:
    """Return the text of `<name>.sql` without its comments.

    A parameter in a comment would be filled in too, and a line break in its value would end the comment. The type is
    Any, because psycopg accepts only literals as statements, so that nobody builds them from strings.
    """
    lines = (_SQL / f"{name}.sql").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))


@cache
def titled_statements(name: str) -> dict[str, Any]:
    """Return the statements of `<name>.sql` by their titles, the lines that begin with three hyphens.

    Statements under one title are one text. Their type is Any, as that of `statement`.
    """
    found: dict[str, list[str]] = {}
    title = None
    for line in (_SQL / f"{name}.sql").read_text().splitlines():
        if line.startswith("--- "):
            title = line.removeprefix("--- ")
            found[title] = []
        elif title is not None and line and not line.startswith("--"):
            found[title].append(line)
    return {title: "\n".join(lines) for title, lines in found.items()}
