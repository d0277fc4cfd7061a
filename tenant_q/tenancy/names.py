"""Check the names of schemas."""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError

LONGEST = 63


def validate_schema_name(name: str) -> None:
    """Validate the schema name of a new tenant. Use it in a project's forms and models.

    A name consists of letters, digits and underscores, begins with a letter, has at most 63 characters (PostgreSQL cuts
    longer names), and is not reserved by PostgreSQL. Such a name needs no quoting anywhere.

    Raises:
        ValidationError: The name is not valid; the message is the reason.
    """
    reason = _reason(name)
    if reason:
        raise ValidationError(
            "%(name)r cannot be a schema's name: %(reason)s.",
            code="schema_name",
            params={"name": name, "reason": reason},
        )


def _reason(name: str) -> str | None:
    if not isinstance(name, str):
        return "it is not a text"
    if not name:
        return "it is empty"
    if len(name.encode()) > LONGEST:
        return f"it has {len(name.encode())} bytes, and PostgreSQL keeps {LONGEST}"
    if not re.match(r"[A-Za-z]", name):
        return "it must start with a letter (a to z)"
    wrong = re.search(r"[^A-Za-z0-9_]", name)
    if wrong:
        return f"it contains {wrong.group()!r}, and only letters (a to z), digits and underscores are allowed"
    if name.lower() in ("public", "information_schema"):
        return "PostgreSQL reserves that schema"
    if name.lower().startswith("pg_"):
        return "PostgreSQL reserves names that start with 'pg_'"
    return None
