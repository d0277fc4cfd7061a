"""Which names a schema may have."""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError

LONGEST = 63


def validate_schema_name(name: str) -> None:
    """A validator for the schema names of new tenants, in a project's forms and models.

    Allowed are letters, digits and underscores, a letter first, at most 63 characters (PostgreSQL cuts longer names),
    and no name that is PostgreSQL's own. Such a name needs no quoting anywhere.

    Raises `ValidationError` with the reason.
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
        return "that schema is PostgreSQL's own"
    if name.lower().startswith("pg_"):
        return "names that start with 'pg_' are PostgreSQL's own"
    return None
