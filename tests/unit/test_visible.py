"""Text of tenants is shown, never obeyed."""

from __future__ import annotations

import io
import logging
import unicodedata
from collections.abc import Iterator

import pytest

from tenant_q.management.console import OperatorCommand, styled, table, words
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import visible, visible_lines, visible_traceback

BIDI = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]
DANGEROUS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)] + BIDI + ["\ud800"]


def has_control(text: str, *, but: str = "") -> bool:
    return any(char in DANGEROUS or unicodedata.category(char) == "Cc" for char in text if char not in but)


@pytest.mark.parametrize("char", DANGEROUS, ids=ascii)
def test_a_control_character_is_seen(char):
    shown = visible(f"a{char}b")
    assert not has_control(shown) and shown.isascii()
    assert shown == f"a{ascii(char)[1:-1]}b"


def test_what_is_seen_in_their_place():
    assert visible("\x1b[2J\x9b\x7f\n\r\t\u202e\u2028\0") == r"\x1b[2J\x9b\x7f\n\r\t\u202e\u2028\x00"


@pytest.mark.parametrize("text", ["", "shop.tasks.f", "Grüße aus Köln", "日本語", "שלום", "👩‍💻", "a\u00a0b", r"C:\n"])
def test_other_text_is_as_it_was(text):
    assert visible(text) is text or visible(text) == text


def test_lines_may_stay_lines():
    assert visible_lines("a\n\tb\x1b\r") == "a\n\tb\\x1b\\r"


# Tables

EVIL = "\x1b]0;owned\x07\x1b[2J\u202eevil\x9bm"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nothing_of_a_tenant_reaches_a_terminal_as_it_is(stream):
    command = OperatorCommand(stdout=stream(), no_color=True)
    command._no_color, command._force_color = True, False
    command.show(table(("name", "func"), [(EVIL, "f\nnext"), (styled(EVIL, "red"), 1)]), styled(EVIL, "red"))
    command.write_line(f"x {EVIL}")
    shown = command.stdout._out.getvalue()
    assert not has_control(shown, but="\n"), ascii(shown)
    assert shown.count(r"\x1b]0;owned\x07\x1b[2J\u202eevil\x9bm") == 4


def test_json_has_no_control_character():
    command = OperatorCommand(stdout=io.StringIO())
    command.write_json({"name": f"{EVIL}\x7f"})
    assert not has_control(command.stdout._out.getvalue(), but="\n")


def test_words_are_on_one_line():
    assert words("a\n b\x1b") == r"a b\x1b"


# Log records


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("LINE %(schema)s %(task_id)s %(func)s %(message)s"))
    logger = logging.getLogger("tenant_q.test_visible")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel("DEBUG")
    yield stream
    logger.removeHandler(handler)


def test_a_record_is_one_line(logged):
    logger = get_logger("tenant_q.test_visible")
    forged = "x\nLINE - - - all is well\x1b[2J"
    logger.info(
        "%s of %s: %s", forged, ValueError(forged), 5, extra={"func": forged, "schema": forged, "task_id": "a\r"}
    )
    assert logged.getvalue().count("\n") == 1 and not has_control(logged.getvalue(), but="\n")
    assert r"x\nLINE - - - all is well\x1b[2J" in logged.getvalue()


def test_numbers_keep_their_format(logged):
    get_logger("tenant_q.test_visible").info("%s %d %.1f %s %r %s", "a", 5, 1.25, None, "\x1b", True)
    assert logged.getvalue() == "LINE - - - a 5 1.2 None '\\x1b' True\n"


def test_a_dict_of_arguments(logged):
    get_logger("tenant_q.test_visible").info("%(a)s", {"a": "x\n"})
    assert logged.getvalue() == "LINE - - - x\\n\n"


def test_a_text_is_made_only_where_it_is_logged(logged):
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("nobody looks at it")

    logging.getLogger("tenant_q.test_visible").setLevel("INFO")
    get_logger("tenant_q.test_visible").debug("%s", Costly())


def test_a_traceback_forges_no_line(logged):
    try:
        try:
            raise ValueError("one\nLINE - - - forged\x1b[2J\n  File")
        except ValueError as error:
            raise KeyError("two\nLINE - - - forged") from error
    except KeyError:
        get_logger("tenant_q.test_visible").exception("It failed")
    found = logged.getvalue()
    assert not has_control(found, but="\n")
    assert [line for line in found.splitlines() if line.startswith("LINE")] == ["LINE - - - It failed"]
    assert r"ValueError: one\nLINE - - - forged\x1b[2J\n  File" in found.splitlines()
    assert "The above exception was the direct cause of the following exception:" in found.splitlines()
    assert found.count('  File "') == 2 and found.count("Traceback (most recent call last):") == 2


def test_the_traceback_of_an_error_that_breaks_whatever_looks_at_it():
    class Broken(Exception):
        def __str__(self) -> str:
            raise SystemExit("no")

    assert "Broken" in visible_traceback(Broken())


def test_the_traceback_of_a_syntax_error_in_a_file_of_odd_name():
    try:
        compile("1 +", "x\nLINE forged", "exec")
    except SyntaxError as error:
        assert not [line for line in visible_traceback(error).splitlines() if line.startswith("LINE")]
