r"""Show text of tenants in terminals and logs without obeying it.

Names, functions, errors and progress texts come from tenants. An escape sequence in one could move the cursor of an
operator's terminal, set its title or hide what follows; a line break could forge a log record. `visible` shows such
characters as Python escapes: `\x1b`, `\n`, `\u202e`.
"""

from __future__ import annotations

import re
import traceback

# Control characters (C0, DEL, C1), line and paragraph separators, marks that change the direction of text, and
# surrogates, which no stream can write.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_BUT_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# The lines that Python writes between an error and its cause.
_BETWEEN = (traceback._cause_message, traceback._context_message)  # type: ignore[attr-defined]


def visible(text: str) -> str:
    """Return a text on one line with its control characters visible, as escapes."""
    return text if text.isprintable() else _UNSAFE.sub(_written_out, text)


def one_line(text: object) -> str:
    """Return the text of an object, such as an error, with its line breaks and runs of blanks as single blanks."""
    return " ".join(str(text).split())


def error_line(error: BaseException) -> str:
    """Return the class and the text of an error, with its line breaks and runs of blanks as single blanks."""
    return one_line(f"{type(error).__name__}: {error}")


def shortened(text: str, longest: int) -> str:
    """Return a text without its middle if it has more than `longest` characters."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters are left out ...\n{text[-half:]}"


def visible_lines(text: str) -> str:
    """Return a text with its control characters visible, as escapes, except for line breaks and tabs."""
    return text if text.isprintable() else _UNSAFE_BUT_LINES.sub(_written_out, text)


def visible_traceback(error: BaseException) -> str:
    """Return a traceback with visible control characters, and the text of each error on one line."""
    try:
        parts = list(traceback.TracebackException.from_exception(error).format())
    except BaseException as broken:  # the error raises when it is formatted
        parts = [f"{type(error).__name__} (its traceback cannot be shown: {type(broken).__name__})"]
    return "\n".join(_part(part) for part in parts)


def _part(part: str) -> str:
    if part in _BETWEEN:
        return part.removesuffix("\n")
    part = part.removesuffix("\n")
    if part.startswith(" "):  # a frame: its further lines are indented too
        part = re.sub(r"\n(?! )", r"\\n", part)
        return visible_lines(part)
    return visible(part)


def _written_out(match: re.Match[str]) -> str:
    return ascii(match.group())[1:-1]
