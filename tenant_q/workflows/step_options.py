"""Check what the declaration of a step says, and keep it."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenant_q.exceptions import WorkflowError
from tenant_q.support.call_checks import shown
from tenant_q.support.hints import did_you_mean
from tenant_q.workflows.plan import ALL_OK, LONGEST_STEP, WHEN
from tenant_q.workflows.task_options import TASK_OPTIONS, checked

_OWN_OPTIONS = ("after", "each", "at_once", "allow_failures", "when", "if_", "optional")
DEFAULT_AT_ONCE = 100
MOST_ITEMS = 10_000
"""The most items of a step, and the largest `at_once`."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A step as it is declared.

    Attributes:
        func: Its function.
        after: The steps it depends on: functions or names.
        each: The step that its items come from, followed by the keys that lead to them; None if it runs once.
        at_once: The most items that are ready at once.
        allow_failures: The most items that may fail.
        when: What the steps before must have come to.
        if_: The condition, or None.
        optional: Whether the run may succeed although it has failed.
        options: The options of its tasks, as a package carries them.
    """

    func: Callable[..., Any]
    after: tuple[Any, ...] = ()
    each: tuple[Any, ...] | None = None
    at_once: int = DEFAULT_AT_ONCE
    allow_failures: int = 0
    when: str = ALL_OK
    if_: Callable[[Any], Any] | None = None
    optional: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def name_of_step(workflow: str, func: Any) -> str:
    """Return the name of the step that a function is declared as: the function's own.

    Raises:
        WorkflowError: It is no function with a name.
    """
    name = getattr(func, "__name__", "")
    if not callable(func) or not name.isidentifier() or len(name) > LONGEST_STEP:
        raise WorkflowError(f"A step of workflow {workflow} is {shown(func)}; it must be a function with a name.")
    return str(name)


def declared(
    workflow: str,
    func: Any,
    *,
    after: Any = (),
    each: Any = None,
    at_once: int | None = None,
    allow_failures: int = 0,
    when: str = ALL_OK,
    if_: Any = None,
    optional: bool = False,
    options: Mapping[str, Any],
) -> Declared:
    """Return the declaration of a step whose values are checked. Raises `WorkflowError`, which names the step."""
    where = f"step {name_of_step(workflow, func)!r} of workflow {workflow}"
    if when not in WHEN:
        raise WorkflowError(f"The option 'when' of {where} is {shown(when)}: {did_you_mean(when, WHEN)}")
    if if_ is not None and not callable(if_):
        raise WorkflowError(f"The option 'if_' of {where} is {shown(if_)}; it must be a function of the context.")
    if at_once is not None and each is None:
        raise WorkflowError(f"The option 'at_once' of {where} needs 'each'; leave it out.")
    for name, value, least in (("at_once", at_once, 1), ("allow_failures", allow_failures, 0)):
        if value is not None and (type(value) is not int or not least <= value <= MOST_ITEMS):
            raise WorkflowError(
                f"The option {name!r} of {where} is {shown(value)}; it must be a whole number from {least} to "
                f"{MOST_ITEMS}."
            )
    return Declared(
        func=func,
        after=_as_tuple(after),
        each=None if each is None else _as_tuple(each),
        at_once=at_once or DEFAULT_AT_ONCE,
        allow_failures=allow_failures,
        when=when,
        if_=if_,
        optional=bool(optional),
        options=checked(options, where, (*TASK_OPTIONS, *_OWN_OPTIONS)),
    )


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)


def input_types(workflow: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the types of a workflow's input by key. Raises `WorkflowError` if a value is no type."""
    for name, kind in given.items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(name, str) or not all(isinstance(one, type | types.UnionType) for one in kinds):
            raise WorkflowError(
                f"The input of workflow {workflow} has {shown(name)}: {shown(kind)}; give a type such as int or str."
            )
    return dict(given)


def check_input(workflow: str, wanted: Mapping[str, Any] | None, given: Any) -> dict[str, Any]:
    """Return the input of a run, which fits the types that its workflow declares.

    Raises:
        WorkflowError: It is no dict, lacks a key, or has an unknown key or a value of a wrong type.
    """
    found = {} if given is None else given
    if not isinstance(found, Mapping):
        raise WorkflowError(f"The input of workflow {workflow} is {shown(given)}; it must be a dict.")
    for name in found:
        if wanted is not None and name not in wanted:
            raise WorkflowError(
                f"The input of workflow {workflow} has an unknown key {name!r}: {did_you_mean(name, wanted)}"
            )
    for name, kind in (wanted or {}).items():
        if name not in found:
            if _fits(None, kind):
                continue
            raise WorkflowError(f"The input of workflow {workflow} lacks the key {name!r}.")
        if not _fits(found[name], kind):
            raise WorkflowError(
                f"The input of workflow {workflow} has {name!r}: {shown(found[name])}; it must be {_named(kind)}."
            )
    return dict(found)


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) and not isinstance(kind, tuple | types.UnionType):
        return kind in (bool, object)
    return isinstance(value, kind) or (kind is float and type(value) is int)


def _named(kind: Any) -> str:
    kinds: Sequence[Any] = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(one.__name__ if isinstance(one, type) else str(one) for one in kinds)
