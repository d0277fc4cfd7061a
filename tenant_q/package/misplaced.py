"""Name the right form where a keyword of a call is probably meant as an option of the task.

Every keyword reaches the function, also one with the name of an option. Only if the function does not take it, the call
or the failed row says how the option is given.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tenant_q.exceptions import WrongArgument
from tenant_q.package.functions import name_of
from tenant_q.package.options import KEYWORD_OPTIONS, TENANT_OPTIONS
from tenant_q.support.call_checks import short

_OPTIONS = frozenset((*KEYWORD_OPTIONS, *TENANT_OPTIONS))
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")


def refuse_misplaced(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Raise `WrongArgument` if a function does not take a keyword that is the name of an option.

    Args:
        func: The function of a call.
        kwargs: The keyword arguments of the call.
    """
    named = _OPTIONS & kwargs.keys()
    if named and (lost := _not_taken(func, sorted(named))):
        raise WrongArgument(f"{name_of(func)} takes no keyword {lost!r}. {_right_form(lost, kwargs[lost])}")


def _not_taken(func: Callable[..., Any], names: Iterable[str]) -> str | None:
    """Return the first of these keywords that a function does not take; None if that is not known either."""
    try:
        parameters = inspect.signature(func, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):  # a function of C without a signature
        return None
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    taken = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return next((name for name in names if name not in taken), None)


def _right_form(name: str, value: Any) -> str:
    own = short(value)
    return (
        f'If it is meant as the option of the task, write q_options={{"{name}": {own}}}, or for a declared task '
        f"using({name}={own})."
    )


def add_right_form(error: BaseException, kwargs: Mapping[str, Any]) -> None:
    """Add a note to the error of a task whose function did not take a keyword that is the name of an option.

    Args:
        error: What the call of the function raised.
        kwargs: The keyword arguments of the call.
    """
    if type(error) is not TypeError or _OPTIONS.isdisjoint(kwargs):  # another class may break any code that looks at it
        return
    name = _UNEXPECTED.search(str(error.args[0])) if error.args and type(error.args[0]) is str else None
    if name and name[1] in _OPTIONS & kwargs.keys():
        error.add_note(_right_form(name[1], kwargs[name[1]]))
