"""One key of `Q_CLUSTER` or `TENANT_Q`: the values that it accepts, and how the reference describes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from tenant_q.support.call_checks import LARGEST_NUMBER, LONGEST_SECONDS, shown

# A test of a value, and what to write where it fails: "it must be ...".
Rule = tuple[Callable[[Any], bool], str]

# The types of values that a project may write for an attribute of the configuration, where they are not its own.
_WRITTEN: dict[Any, tuple[type, ...]] = {float: (int, float), tuple: (list, tuple)}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A key of `Q_CLUSTER` or `TENANT_Q`. The value None is as if the key were not set.

    Attributes:
        place: `"Q_CLUSTER"` or `"TENANT_Q"`.
        key: Its name there.
        types: The types that its value may have.
        default: The default, as the reference shows it.
        help: What the key does, for the reference.
        unit: The unit of a number.
        minimum: The smallest number allowed; None for no limit.
        maximum: The largest number allowed; None for no limit.
        rule: What else a value has to fulfil.
        item_problem: For a list. Returns what is wrong with an item as the end of a sentence, or None.
        differs: How the key differs from the one of Django-Q2, for the reference.
        no_effect: Why the key has no effect; empty where it has one.
        is_secret: Whether its value appears in no message.
    """

    place: str
    key: str = ""
    types: tuple[type, ...] = ()
    default: str = "none"
    help: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    rule: Rule | None = None
    item_problem: Callable[[object], str | None] | None = None
    differs: str = ""
    no_effect: str = ""
    is_secret: bool = False

    @property
    def limit(self) -> float | None:
        """The largest number that this setting allows: `maximum`, or the longest time for a number of seconds."""
        if self.maximum is None and self.unit == "seconds":
            return LONGEST_SECONDS
        if self.maximum is None and self.minimum is not None and self.place == "TENANT_Q":
            return LARGEST_NUMBER
        return self.maximum

    def problems(self, name: str, value: Any) -> list[str]:
        """Return what is wrong with a value of this setting, one sentence for each problem.

        Args:
            name: The key as the sentences write it, such as `"TENANT_Q['lease']"`.
            value: The value that the project has set.
        """
        if not _is_a(value, self.types):
            found = type(value).__name__ if self.is_secret else shown(value)
            return [f"{name} is {found}; it must be {' or '.join(each.__name__ for each in self.types)}."]
        if isinstance(value, float) and not math.isfinite(value):
            return [f"{name} is {value}; it must be a finite number."]
        if self.minimum is not None and value < self.minimum:
            return [f"{name} is {value!r}; it must be at least {self.minimum}."]
        if self.limit is not None and value > self.limit:
            return [f"{name} is {value!r}; it must be at most {self.limit}."]
        if self.rule and not self.rule[0](value):
            found = f"a secret of {len(str(value))} characters" if self.is_secret else repr(value)
            return [f"{name} is {found}; it must be {self.rule[1]}."]
        if self.item_problem:
            return [f"{name} {problem}" for problem in map(self.item_problem, value) if problem]
        return []


def written_types(hint: Any) -> tuple[type, ...]:
    """Return the types that a project may write for a setting whose attribute has this type hint."""
    members = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    classes = [get_origin(member) or member for member in members if member is not NoneType]
    return tuple(written for each in classes for written in _WRITTEN.get(each, (each,)))


def _is_a(value: object, types: tuple[type, ...]) -> bool:
    # bool is an int in Python; `workers: True` is a slip.
    return isinstance(value, types) and not (isinstance(value, bool) and bool not in types)
