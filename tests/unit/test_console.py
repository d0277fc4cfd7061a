"""The tables of the operators' commands."""

from __future__ import annotations

import pytest

from tenant_q.management.console import table

COLUMNS = ("schema", "queued", "policy")
ROWS = [("acme_corp", 7, "weight 2"), ("globex_inc", None, None)]


def heads(width: int | None) -> list[str]:
    made = table(COLUMNS, ROWS, numbers=("queued",), width=width, least=("policy", "queued"))
    assert all(len(list(column.cells)) == len(ROWS) for column in made.columns)
    return [str(column.header) for column in made.columns]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (None, "schema queued policy"),
        (30, "schema queued policy"),
        (29, "schema queued"),
        (19, "schema"),
        (5, "schema"),
    ],
)
def test_a_narrow_screen_does_without_the_least_columns(width, shown):
    """They need 12, 8 and 10 characters, with the two blanks behind each."""
    assert heads(width) == shown.split()


def test_a_table_without_rows():
    assert len(table(COLUMNS, [], width=80, least=("policy",)).columns) == 3
