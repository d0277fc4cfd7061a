"""Workflows of the chaos tests. Each start of a step leaves an effect in its tenant's schema: what it saw, and when."""

from __future__ import annotations

from typing import Any

from django.db import connection

from tenant_q.workflows import Context, Workflow
from tests import tasks
from tests.chaos import points

EFFECTS = "chaos_flow"
ITEMS, AT_ONCE = 4, 2
# The steps with a transaction of their own, each with the number of its effects in a run.
TRANSACTIONAL = {"first": 1, "right": ITEMS, "last": 1, "on_end": 1}
# The other one may be done again.
PLAIN = "left"
# Whatever happens to a step, it is started again.
PERSISTENT = {"max_attempts": 0, "retry_delay": 0.2, "retry_backoff": 1}

CREATE = (
    "CREATE TABLE {}.chaos_flow "
    "(run text, step text, item int, key text, state text, early bigint, crowd bigint, at timestamptz)"
)
# What is wrong about a start: dependencies that have not succeeded, and more items that are ready than may be.
_INSERT = """
INSERT INTO chaos_flow SELECT %s, %s, %s, %s, %s,
    (SELECT count(*) FROM tenant_q_workflows_step
        WHERE run = %s AND index = -1 AND name = ANY (%s) AND state <> 'succeeded'),
    (SELECT count(*) FROM tenant_q_workflows_step WHERE run = %s AND index >= 0 AND state = 'ready'),
    clock_timestamp()
"""


def effect(ctx: Context, *after: str) -> None:
    """Leave an effect of a step that depends on the steps `after`."""
    index, key, state = -1 if ctx.index is None else ctx.index, ctx.idempotency_key, str(ctx.state or "")
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [ctx.run_id, ctx.step, index, key, state, ctx.run_id, list(after), ctx.run_id])


def first(ctx: Context) -> dict[str, Any]:
    effect(ctx)
    points.reached("in-transactional-step", [ctx.idempotency_key])
    return {"items": list(range(ITEMS))}


def left(ctx: Context) -> int:
    """Not transactional. It fails as often as the input says, in the first generation, or waits until it is let go."""
    points.reached("before-plain-effect", [ctx.idempotency_key])
    effect(ctx, "first")
    points.reached("after-plain-effect", [ctx.idempotency_key])
    if ctx.generation == 1 and ctx.attempt <= ctx.input.get("failures", 0):
        raise ValueError(f"failure {ctx.attempt}")
    if key := ctx.input.get("hold"):
        tasks.hold(key)
    return ctx.attempt


def right(ctx: Context) -> int:
    effect(ctx, "first")
    points.reached("in-transactional-item", [ctx.idempotency_key])
    ctx.set(f"item {ctx.index}", ctx.item)
    return int(ctx.item) * 2


def last(ctx: Context) -> int:
    effect(ctx, "left", "right")
    return sum(ctx.results["right"])


def on_end(ctx: Context) -> None:
    effect(ctx)


def _declare(flow: Workflow, **options: Any) -> None:
    """A diamond: `first`, then beside each other `left` and a map, `right`, then `last`."""
    flow.step(transactional=True, **options)(first)
    flow.step(after=first, **options)(left)
    flow.step(each=(first, "items"), at_once=AT_ONCE, transactional=True, **options)(right)
    flow.step(after=[left, right], transactional=True, **options)(last)
    flow.on_end(transactional=True, **options)(on_end)


diamond = Workflow("diamond")
_declare(diamond, **PERSISTENT)

brittle = Workflow("brittle")
_declare(brittle, max_attempts=1)

# Its runs are gone soon, with all their rows.
fleeting = Workflow("fleeting", retention=5)
_declare(fleeting, **PERSISTENT)
