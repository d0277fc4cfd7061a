"""The workflows of the benchmarks."""

from __future__ import annotations

from tenant_q.workflows import Context, Workflow

diamond = Workflow("diamond")


@diamond.step
def top(ctx: Context) -> None:
    """Do nothing."""


@diamond.step(after=top)
def left(ctx: Context) -> None:
    """Do nothing."""


@diamond.step(after=top)
def right(ctx: Context) -> None:
    """Do nothing."""


@diamond.step(after=[left, right])
def bottom(ctx: Context) -> None:
    """Do nothing."""
