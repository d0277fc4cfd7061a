"""The line of progress of a long command: on a terminal only, and never beside JSON."""

from __future__ import annotations

import io

import pytest
from django.core.management.base import OutputWrapper

from tenant_q.management.progress import progress_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(file: io.StringIO, *, total: int | None = 3, as_json: bool = False) -> str:
    with progress_line(OutputWrapper(file), total, as_json=as_json) as line:
        line.at("acme_corp: \x1b[31mmigrations")
        line.done(2)
    return file.getvalue()


@pytest.fixture(autouse=True)
def wide(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_shows_what_is_being_done_and_how_much_is_done():
    text = shown(Terminal())
    assert "acme_corp: " in text and "2/3" in text
    assert "\x1b[31mmigrations" not in text, "a name cannot control the terminal"


def test_a_total_that_is_not_known_is_not_shown():
    text = shown(Terminal(), total=None)
    assert "acme_corp: " in text and "2/" not in text


def test_nothing_is_shown_elsewhere_or_with_json():
    assert shown(io.StringIO()) == ""
    assert shown(Terminal(), as_json=True) == ""
