"""Name functions by the code, never by data.

A partial, a bound method or a callable object has data in its `repr`, which changes with each call. A name is kept in
rows, log records, metrics and the broker's estimates, so it must be stable.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from typing import Any

LONGEST_NAME = 256
"""The longest name of a function that a row stores and the broker counts, in characters."""
NOT_A_PATH = "(not a path)"
"""The name under which functions are counted that are given as a text but not as a dotted path."""
_UNNAMED = "(unnamed)"
_FROM_CODE = ("<locals>", "<lambda>")
_FUNC_OF_PARTIAL = functools.partial.__dict__["func"]
_OF_METHODS = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)
_OF_CLASSES = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)


def name_of(func: Any) -> str:
    """Return the name of a function: its dotted path, or for a callable with data the path of the code that it runs.

    Args:
        func: A callable, or a text, which is returned unchanged.
    """
    return str(func) if issubclass(type(func), str) else _describe(func)[0]


def stored_name(func: Any) -> str:
    """Return the name of a function as a row stores it: with a remark if the name does not identify it.

    So "shop.tasks.add (partial)" cannot be confused with `shop.tasks.add`, whose arguments differ.
    """
    if issubclass(type(func), str):
        return str(func)
    name, remark = _describe(func)
    return f"{name} ({remark})" if remark else name


def counted_name(func: Any) -> str:
    """Return the name of a function under which the broker counts and estimates its runs."""
    if issubclass(type(func), str):
        return func if is_path(func) else NOT_A_PATH
    name = _describe(func)[0]
    return name if len(name) <= LONGEST_NAME else NOT_A_PATH


@functools.lru_cache(maxsize=4096)
def is_path(text: str) -> bool:
    """Return whether a text may be the dotted path of a function."""
    return len(text) <= LONGEST_NAME and all(part.isidentifier() for part in text.split("."))


def _describe(func: Any) -> tuple[str, str]:
    """Return the name of a function or callable, and a remark if the name alone does not identify it."""
    try:
        return _describe_by_kind(func)
    except Exception:  # the object raises when it is inspected
        return _of_type(func, "object")


def _describe_by_kind(func: Any) -> tuple[str, str]:
    if isinstance(func, functools.partial):
        return name_of(_FUNC_OF_PARTIAL.__get__(func)), "partial"
    if isinstance(func, types.FunctionType):
        name = _joined(func.__module__, func.__qualname__)
        return (name, "" if is_path(name) else "local") if name else _of_type(func, "function")
    if isinstance(func, type):
        return _path_of_class(func), ""
    if isinstance(func, _OF_METHODS):
        return _of_method(func)
    if isinstance(func, _OF_CLASSES):
        return _joined(_path_of_class(func.__objclass__), func.__name__) or _UNNAMED, ""
    name = _global_name(func)
    return (name, "") if name else _of_type(func, "object")


def _of_method(method: Any) -> tuple[str, str]:
    """Name a function that is bound: a method to an object or a class, a builtin function to its module."""
    owner, name = method.__self__, _attribute(method, "__name__")
    if owner is None or isinstance(owner, types.ModuleType):
        return _joined(_attribute(method, "__module__"), name) or _UNNAMED, ""
    kind, remark = (owner, "") if isinstance(owner, type) else (type(owner), "bound method")
    return _joined(_path_of_class(kind), name) or _UNNAMED, remark


def _of_type(func: Any, remark: str) -> tuple[str, str]:
    return _path_of_class(type(func)), remark


def _path_of_class(kind: type) -> str:
    return _joined(_attribute(kind, "__module__"), _attribute(kind, "__qualname__")) or _UNNAMED


def _global_name(func: Any) -> str | None:
    """Return the path of a function that is a global of its module, such as the result of a decorator; or None."""
    module, qualname = _attribute(func, "__module__"), _attribute(func, "__qualname__")
    name = _joined(module, qualname)
    if name is None or not is_path(name):
        return None
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = inspect.getattr_static(found, part, None)
    return name if found is func else None


def _joined(module: Any, qualname: Any) -> str | None:
    """Return the dotted path of a function: module and qualified name; None if either cannot be one in code."""
    return _joined_texts(module, qualname) if type(module) is str and type(qualname) is str else None


@functools.lru_cache(maxsize=4096)
def _joined_texts(module: str, qualname: str) -> str | None:
    parts = (*module.split("."), *qualname.split("."))
    is_from_code = all(part.isidentifier() or part in _FROM_CODE for part in parts)
    return f"{module}.{qualname}" if is_from_code else None


def _attribute(of: Any, name: str) -> Any:
    try:
        return getattr(of, name, None)
    except Exception:  # a property of the project
        return None
