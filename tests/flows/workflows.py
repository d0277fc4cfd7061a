"""The workflows of the tests."""

from __future__ import annotations

import time
from typing import Any

from tenant_q.workflows import Context, Workflow

line = Workflow("line", input={"number": int})


@line.step
def first(ctx: Context) -> dict[str, Any]:
    ctx.set("seen", ["first"])
    return {"numbers": [ctx.input["number"] + place for place in range(3)]}


@line.step(after=first)
def second(ctx: Context) -> int:
    ctx.set("seen", [*ctx.get("seen"), "second"])
    return sum(ctx.results["first"]["numbers"])


mapped = Workflow("mapped", input={"items": list, "fail": (list, type(None))})


@mapped.step
def items(ctx: Context) -> dict[str, Any]:
    return {"lines": ctx.input["items"]}


@mapped.step(each=(items, "lines"), at_once=2)
def double(ctx: Context) -> int:
    if ctx.item in (ctx.input.get("fail") or ()):
        raise ValueError(f"no {ctx.item}")
    return int(ctx.item) * 2


@mapped.step(after=double)
def total(ctx: Context) -> int:
    return sum(ctx.results["double"])


@mapped.on_end
def note(ctx: Context) -> str:
    return f"{ctx.state}: {ctx.error}"


diamond = Workflow("diamond", input={"seconds": float})


@diamond.step
def top(ctx: Context) -> None:
    time.sleep(ctx.input["seconds"])


@diamond.step(after=top)
def left(ctx: Context) -> None:
    time.sleep(ctx.input["seconds"])


@diamond.step(after=top)
def right(ctx: Context) -> None:
    time.sleep(ctx.input["seconds"])


@diamond.step(after=[left, right])
def bottom(ctx: Context) -> None:
    time.sleep(ctx.input["seconds"])


acting = Workflow("acting", input={"number": int})


@acting.step(transactional=True)
def begin(ctx: Context) -> dict[str, Any]:
    return {"items": [1, 2], **_who()}


@acting.step(each=(begin, "items"), at_once=1)
def each(ctx: Context) -> dict[str, Any]:
    return _who()


@acting.step(after=each, when="any_failed", optional=True)
def never(ctx: Context) -> None: ...


@acting.on_end
def finish(ctx: Context) -> dict[str, Any]:
    return _who()


def _who() -> dict[str, Any]:
    from tests.tasks_isolated import who

    return who()


def start_from_a_task(number: int) -> str:
    """Start a workflow in a task, and return the id of the run."""
    return acting.start({"number": number}).id
