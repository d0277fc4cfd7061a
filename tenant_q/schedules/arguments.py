"""Parse the arguments of a schedule from the text of its row. They are literals and never evaluated.

A text that cannot be understood raises `BadSchedule` and no other error, so that a bad row is reported to its tenant
and stops nothing else.
"""

from __future__ import annotations

import ast
import sys
import warnings
from dataclasses import dataclass, replace
from typing import Any, Final

from tenant_q.exceptions import BadSchedule

MAX_ARGUMENTS: Final = 100_000
"""The longest text of arguments that is parsed, in characters."""


def parse_arguments(args_text: str | None, kwargs_text: str | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments of a schedule.

    Args:
        args_text: The literal of a tuple, `1, 'x'`, or any other literal as the only argument. None and blank mean no
            arguments.
        kwargs_text: Pairs, `a=1, b='x'`, or the literal of a dict with strings as keys. None and blank mean no
            arguments.

    Raises:
        BadSchedule: A text is anything else, also where Django-Q2 would ignore the keyword arguments. The message names
            the field and the place, counted from the first character that is not blank.
    """
    args: Any = ()
    if args_text and not args_text.isspace():
        args = _Text.of("arguments", args_text).literal()
    kwargs: dict[str, Any] = {}
    if kwargs_text and not kwargs_text.isspace():
        kwargs = _Text.of("keyword arguments", kwargs_text).keywords()
    return (args if type(args) is tuple else (args,)), kwargs


@dataclass(frozen=True)
class _Text:
    """The text of one field, stripped. `opening` and `closing` enclose it while it is parsed."""

    field: str
    text: str
    opening: str = ""
    closing: str = ""

    @classmethod
    def of(cls, field: str, text: str) -> _Text:
        if len(text) > MAX_ARGUMENTS:
            raise BadSchedule(f"{field} are longer than {MAX_ARGUMENTS} characters")
        return cls(field, text.strip().replace("\r\n", "\n").replace("\r", "\n"))

    def literal(self) -> Any:
        return self._value(self._tree())

    def keywords(self) -> dict[str, Any]:
        try:
            tree = self._tree()
        except BadSchedule:
            if self.text.startswith("{"):
                raise
            return replace(self, opening="f(", closing="\n)")._names()
        if not isinstance(tree, ast.Dict):
            raise self._bad(tree, "a dict or name=value pairs are expected")
        for key in tree.keys:
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                raise self._bad(key or tree, "every name must be a string")
        return dict(self._value(tree))

    def _names(self) -> dict[str, Any]:
        """Return the keyword arguments of a text of pairs, parsed as those of a call. The call is never made."""
        call = self._tree()
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise self._bad(call, "a dict or name=value pairs are expected")
        if call.args:
            raise self._bad(call.args[0], "a value has no name")
        values: dict[str, Any] = {}
        for keyword in call.keywords:
            if keyword.arg is None:
                raise self._bad(keyword.value, "** is not allowed")
            if keyword.arg in values:
                raise self._bad(keyword, "the name was given before")
            values[keyword.arg] = self._value(keyword.value)
        return values

    def _tree(self) -> ast.expr:
        try:
            with warnings.catch_warnings(action="ignore"):  # the parser warns about unusual number literals
                return ast.parse(f"{self.opening}{self.text}{self.closing}", mode="eval").body
        except SyntaxError as error:
            line = (
                error.lineno if error.lineno and error.offset else sys.maxsize
            )  # an error without a place is at the end
            raise self._error(error.msg, line, (error.offset or 0) - 1) from error
        except (ValueError, MemoryError, RecursionError) as error:
            raise self._unreadable(error) from error

    def _value(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError) as error:
            raise self._bad(_culprit(node), "this is not a literal") from error
        except (MemoryError, RecursionError) as error:
            raise self._unreadable(error) from error

    def _bad(self, node: ast.expr | ast.keyword, reason: str) -> BadSchedule:
        line = f"{self.opening}{self.text}".encode().split(b"\n")[node.lineno - 1]
        return self._error(reason, node.lineno, len(line[: node.col_offset].decode()))  # the parser counts bytes

    def _error(self, reason: str, line: int, column: int) -> BadSchedule:
        """Return the error for a text of arguments, with the place in it.

        `line` counts from 1, and `column` from 0 with the opening. A place outside the text becomes its nearest end.
        """
        lines = self.text.split("\n")
        if line > len(lines):
            line, column = len(lines), len(lines[-1])
        elif line == 1:
            column -= len(self.opening)
        place = f"column {min(max(column, 0), len(lines[line - 1])) + 1}"
        place = place if len(lines) == 1 else f"line {line}, {place}"
        return BadSchedule(f"{self.field} do not parse as Python literals at {place}: {reason}")

    def _unreadable(self, error: Exception) -> BadSchedule:
        reason = "nested too deeply" if isinstance(error, MemoryError | RecursionError) else str(error)
        return BadSchedule(f"{self.field} do not parse as Python literals: {reason}")


def _culprit(node: ast.expr) -> ast.expr:
    """Return the first part of `node` that keeps an argument from being a literal."""
    parts: list[ast.expr | None] = []
    if isinstance(node, ast.Dict):
        parts = [part for pair in zip(node.keys, node.values, strict=True) for part in pair]
    elif isinstance(node, ast.List | ast.Set | ast.Tuple):
        parts = list(node.elts)
    for part in parts:
        if part is not None:
            try:
                ast.literal_eval(part)
            except (ValueError, TypeError, MemoryError, RecursionError):
                return _culprit(part)
    return node
