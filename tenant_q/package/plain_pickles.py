"""Unpickle only values of plain types. Nothing else that a pickle names is imported or called.

An unsigned column may hold any pickle, and unpickling can run any code.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from itertools import islice
from typing import Any, Final

ALLOWED: Final = frozenset(
    {
        ("builtins", "complex"),
        ("builtins", "frozenset"),
        ("builtins", "set"),
        ("collections", "OrderedDict"),
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("decimal", "Decimal"),
        ("uuid", "UUID"),
    }
)
"""The allowed classes, by module and name. None of them lets a pickle change the class itself."""


# A text has no more operations.
_FIRST = 5
_WITHOUT_EFFECT = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}


class NotPlain(pickle.UnpicklingError):
    """A pickle names something other than a plain type."""


def load_plain(pickled: bytes) -> Any:
    """Return the value of a plain pickle: of numbers, texts, bytes, containers, moments, decimals and UUIDs.

    Raises:
        NotPlain: The pickle names anything else.
        Exception: The bytes are not a pickle.
    """
    return _Unpickler(io.BytesIO(pickled)).load()


def text_of(pickled: bytes) -> str | None:
    """Return the text that a pickle holds, or None if it holds another value.

    Unlike `load_plain`, it makes no value whose hash or text may take for ever, such as a tuple of tuples of tuples.

    Raises:
        ValueError: The bytes are not a pickle.
    """
    match _operations(pickled):
        case [("SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8" | "UNICODE", str(text)), ("STOP", _)]:
            return text
    return None


def begins_list(pickled: bytes) -> bool:
    """Return whether a pickle begins with a list. Raises `ValueError` if the bytes are not a pickle."""
    match _operations(pickled):
        case [("EMPTY_LIST", _), *_] | [("MARK", _), ("LIST", _), *_]:
            return True
    return False


def _operations(pickled: bytes) -> list[tuple[str, Any]]:
    """Return the first operations of a pickle with their arguments, without those that change no value."""
    first = [(one.name, argument) for one, argument, _ in islice(pickletools.genops(pickled), _FIRST)]
    return [one for one in first if one[0] not in _WITHOUT_EFFECT]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise NotPlain(f"{module}.{name} is not a plain type")
        return super().find_class(module, name)
