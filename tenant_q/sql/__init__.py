"""The statements in `sql/`, read once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

_SQL = Path(__file__).parent


@cache
def statement(name: str) -> Any:
    """The text of `sql/<name>.sql` without its head: nothing is to be filled into a comment, which a line break ends.

    Typed as Any, since psycopg takes only literals, so that nobody builds statements of strings.
    """
    lines = (_SQL / f"{name}.sql").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))
