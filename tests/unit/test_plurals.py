"""A number stands with its noun in the right form."""

from __future__ import annotations

import pytest

from tenant_q.support.plurals import counted


@pytest.mark.parametrize(("number", "text"), [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (1000, "1,000 tasks")])
def test_a_noun_follows_its_number(number, text):
    assert counted(number, "task") == text


def test_a_noun_may_have_a_plural_of_its_own():
    assert [counted(number, "process", "processes") for number in (1, 2)] == ["1 process", "2 processes"]
