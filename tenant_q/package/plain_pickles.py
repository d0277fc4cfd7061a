"""Unpickle only values of plain types. Nothing else that a pickle names is imported or called.

An unsigned column may hold any pickle, and unpickling can run any code.
"""

from __future__ import annotations

import io
import pickle
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


class NotPlain(pickle.UnpicklingError):
    """A pickle names something other than a plain type."""


def load_plain(pickled: bytes) -> Any:
    """Return the value of a plain pickle: of numbers, texts, bytes, containers, moments, decimals and UUIDs.

    Raises:
        NotPlain: The pickle names anything else.
        Exception: The bytes are not a pickle.
    """
    return _Unpickler(io.BytesIO(pickled)).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise NotPlain(f"{module}.{name} is not a plain type")
        return super().find_class(module, name)
