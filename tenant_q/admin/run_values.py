"""Show the JSON values of workflow runs: in short or whole, and never more of one than is shown."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import Case, F, Func, IntegerField, Q, TextField, When
from django.db.models.functions import Cast
from django.utils.translation import gettext as _

from tenant_q.admin.values import LONGEST
from tenant_q.support.visible import visible, visible_lines

READ_BYTES = 64 * 1024
"""The largest stored value that a list of several reads, in bytes as PostgreSQL stores it."""
SHORT = 300
"""The most characters of a value in a list."""


def as_json(value: Any) -> str:
    """Return a JSON value as indented text, cut to `LONGEST` characters."""
    text = visible_lines(json.dumps(value, indent=2, ensure_ascii=False))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n{_('… and more')}"


def in_full(step: Any, column: str) -> str | None:
    """Return a value of a row of `step_of` as indented text if it is whole, or its start; None without a value."""
    text = getattr(step, f"start_of_{column}")
    if text is None:
        return None
    return as_json(json.loads(text)) if len(text) <= LONGEST else f"{visible_lines(text[:LONGEST])}\n{_('… and more')}"


def in_short(step: Any, column: str) -> str | None:
    """Return the start of a value of a row on one line; None without a value."""
    text = getattr(step, f"start_of_{column}", None)
    if text is not None:
        return cut(visible(text), SHORT)
    size = getattr(step, f"size_of_{column}", None)
    return None if size is None else _("A large value, %(size)s KiB") % {"size": size // 1024}


def with_starts(rows: Any, *columns: str) -> Any:
    """Return a queryset of step rows with the starts of values, of which large ones are not read."""
    sizes = {f"size_of_{column}": size_of(column) for column in columns}
    starts = {
        f"start_of_{column}": Case(When(Q(**{f"size_of_{column}__lte": READ_BYTES}), then=start_of(column, SHORT)))
        for column in columns
    }
    return rows.defer("output", "context", "item").annotate(**sizes).annotate(**starts)


def size_of(column: str) -> Func:
    """Return an expression: the bytes that a column takes, as PostgreSQL stores it."""
    # With their schema: a function of the same name in a tenant's schema could fit better.
    return Func(F(column), function="pg_catalog.pg_column_size", output_field=IntegerField())


def start_of(column: str, characters: int) -> Func:
    """Return an expression: the first characters of a column's JSON text, and one more if it is longer."""
    return Func(Cast(column, TextField()), characters + 1, function="pg_catalog.left", output_field=TextField())


def cut(text: str, most: int) -> str:
    """Return a text of a run, cut to `most` characters."""
    return text if len(text) <= most else f"{text[:most]}…"
