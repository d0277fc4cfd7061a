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
