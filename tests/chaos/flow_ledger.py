"""What became of the runs of the chaos tests' workflows: their effects and rows in the tenants' schemas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from tenant_q.workflows.plan import ON_END
from tests.chaos import workflows as flows

_COUNT = "SELECT run, step, item, count(*), count(DISTINCT key), max(state), sum(early), max(crowd) FROM {}.chaos_flow"


@dataclass(frozen=True)
class Effect:
    """What the starts of a step, or of one of its items, have left."""

    count: int
    keys: int
    state: str
    early: int
    crowd: int


Effects = dict[tuple[str, str], dict[tuple[str, int], Effect]]
"""Effects by schema and run, then by step and item."""


def select(schemas: Iterable[str], statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement in every tenant, each with the tenant's name before it."""
    query = " UNION ALL ".join(f"SELECT '{name}', t.* FROM ({statement.format(name)}) t" for name in schemas)
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def effects(schemas: Sequence[str]) -> Effects:
    found: Effects = {}
    for schema, run, step, item, *counted in select(schemas, f"{_COUNT} GROUP BY 1, 2, 3"):
        found.setdefault((schema, run), {})[step, item] = Effect(*counted)
    return found


def starts(schemas: Sequence[str]) -> int:
    """How many starts of steps have left an effect."""
    return sum(count for _, count in select(schemas, "SELECT count(*) FROM {}.chaos_flow"))


def expected() -> dict[tuple[str, int], int]:
    """The effects of the transactional steps of a run that succeeds."""
    counts = {(name, -1): 1 for name in flows.TRANSACTIONAL if name != "right"}
    return counts | {("right", item): 1 for item in range(flows.ITEMS)}


def problems_of(run: str, found: dict[tuple[str, int], Effect], *, plain: int | None = None) -> list[str]:
    """What is wrong with the effects of a run that has succeeded.

    Parameters: `plain`, the most effects of the step without a transaction; None for any number.
    """
    problems = []
    for place, count in expected().items():
        has = found[place].count if place in found else 0
        if has != count:
            problems.append(f"{run}: {place} has {has} effects and should have {count}")
    left = found.get((flows.PLAIN, -1))
    if left is None or (plain is not None and left.count > plain):
        problems.append(f"{run}: {flows.PLAIN} has {left.count if left else 0} effects, and at most {plain} may be")
    if left is not None and left.keys != 1:
        problems.append(f"{run}: {flows.PLAIN} has {left.keys} idempotency keys")
    for place, one in found.items():
        if one.early:
            problems.append(f"{run}: {place} started before a dependency")
        if one.crowd > flows.AT_ONCE:
            problems.append(f"{run}: {one.crowd} items were ready at once")
        if place not in expected() and place != (flows.PLAIN, -1):
            problems.append(f"{run}: {place} is no step of it")
    state = found[ON_END, -1].state if (ON_END, -1) in found else ""
    if state != "succeeded":
        problems.append(f"{run}: it ended as {state!r}")
    return problems


def rows_left(schemas: Sequence[str]) -> Counter[str]:
    """The rows of runs, by table, in the tenants' schemas and in `public`."""
    found: Counter[str] = Counter()
    for table in ("run", "step", "signal"):
        found[table] = sum(n for _, n in select(schemas, f"SELECT count(*) FROM {{}}.tenant_q_workflows_{table}"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.tenant_q_dueworkflow")
        found["due"] = cursor.fetchone()[0]
    return +found
