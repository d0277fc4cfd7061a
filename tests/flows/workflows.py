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
