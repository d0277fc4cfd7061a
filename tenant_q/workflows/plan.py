"""The plan of a run: the graph of its steps, frozen when the run starts.

It holds names and options, and never a path to import: functions, conditions and hooks are looked up in the registered
workflow, because a tenant's own role can write the rows of its runs.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from tenant_q.workflows.task_options import CODE_OPTIONS, checked

ON_END = "on_end"
"""The name of the step that runs last."""
ALL_OK, ANY_OK, ANY_FAILED, ALWAYS = "all_ok", "any_ok", "any_failed", "always"
WHEN = (ALL_OK, ANY_OK, ANY_FAILED, ALWAYS)
"""What the dependencies of a step must have come to, so that it runs."""
LONGEST_STEP = 100
"""The longest name of a step, in characters."""
_MOST_PLANS = 256


@dataclass(frozen=True, slots=True)
class PlanStep:
    """A step in a plan.

    Attributes:
        name: Its name.
        after: The steps it depends on, the source of its items included.
        when: What these must have come to.
        each: The step whose output has the items, and the keys that lead to them; None for a step that runs once.
        at_once: The most items that are ready at once.
        allow_failures: The most items that may fail before the step counts as failed.
        optional: Whether the run may succeed although the step has failed.
        options: The options of its tasks.
    """

    name: str
    after: tuple[str, ...] = ()
    when: str = ALL_OK
    each: tuple[str, ...] | None = None
    at_once: int = 1
    allow_failures: int = 0
    optional: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        workflow: The path of the workflow.
        steps: The steps, each behind those it depends on.
        on_end: The options of the step that runs last; None without one.
        timeout: The seconds from the start to the deadline; None without one.
        retention: The seconds that an ended run is kept; None for good.
    """

    workflow: str
    steps: tuple[PlanStep, ...]
    on_end: Mapping[str, Any] | None = None
    timeout: float | None = None
    retention: float | None = None

    @cached_property
    def by_name(self) -> Mapping[str, PlanStep]:
        """The steps of the plan by name, the last one included."""
        last = [] if self.on_end is None else [PlanStep(ON_END, options=self.on_end)]
        return {step.name: step for step in [*self.steps, *last]}

    @property
    def roots(self) -> list[PlanStep]:
        """The steps of the plan that depend on no other: a run begins with them."""
        return [step for step in self.steps if not step.after]

    @cached_property
    def text(self) -> str:
        """The plan as JSON. Equal plans have equal texts."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @cached_property
    def version(self) -> str:
        """The hash of the plan."""
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()

    def behind(self, names: Iterable[str]) -> set[str]:
        """Return these steps of the plan, and those that depend on one of them, directly or not."""
        found = set(names)
        for step in self.steps:
            if not found.isdisjoint(step.after):
                found.add(step.name)
        return found

    def before(self, name: str) -> set[str]:
        """Return the steps of the plan that a step depends on, directly or not."""
        found = {name}
        for step in reversed(self.steps):
            if step.name in found:
                found.update(step.after)
        return found - {name}


_plans: OrderedDict[str, Plan] = OrderedDict()


def known_plan(version: str) -> Plan | None:
    """Return the plan with this hash if it was read or made in this process lately."""
    plan = _plans.get(version)
    if plan is not None:
        _plans.move_to_end(version)
    return plan


def remember(plan: Plan) -> Plan:
    """Remember a plan under its hash, which is computed: a row could name the hash of another plan."""
    _plans[plan.version] = plan
    while len(_plans) > _MOST_PLANS:
        _plans.popitem(last=False)
    return plan


def read_plan(stored: Any) -> Plan:
    """Return the plan that a run's row stores. Raises `ValueError` if it is none: a tenant's role may have changed it.

    Args:
        stored: The value of the column, as JSON text or parsed.
    """
    try:
        found = json.loads(stored) if isinstance(stored, str) else stored
        steps = tuple(_read_step(step) for step in found["steps"])
        plan = Plan(
            str(found["workflow"]),
            steps,
            on_end=None if found["on_end"] is None else _read_options(found["on_end"], ON_END),
            timeout=found["timeout"],
            retention=found["retention"],
        )
        seen: set[str] = set()
        for step in steps:
            if step.name in seen or not seen.issuperset(step.after) or step.when not in WHEN:
                raise ValueError(f"its step {step.name!r} is out of order")
            seen.add(step.name)
    except Exception as error:  # whatever a tenant's role has written
        raise ValueError(f"the plan of the run cannot be read: {error}") from error
    return remember(plan)


def _read_options(stored: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Check the options that a plan stores. Those that come from the code are left as they are, and not used."""
    unused = {option: value for option, value in stored.items() if option in CODE_OPTIONS}
    return unused | checked({option: stored[option] for option in stored if option not in unused}, f"step {name!r}")


def _read_step(stored: Mapping[str, Any]) -> PlanStep:
    each = stored["each"]
    name = str(stored["name"])
    options = _read_options(stored["options"], name)
    if not name.isidentifier() or len(name) > LONGEST_STEP:
        raise ValueError(f"the step {name[:50]!r} has no name of a function")
    return PlanStep(
        name=name,
        after=tuple(map(str, stored["after"])),
        when=str(stored["when"]),
        each=None if each is None else tuple(map(str, each)),
        at_once=max(1, int(stored["at_once"])),
        allow_failures=max(0, int(stored["allow_failures"])),
        optional=bool(stored["optional"]),
        options=options,
    )
