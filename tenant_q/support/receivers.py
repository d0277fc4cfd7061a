"""Who listens to a signal."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal


def receivers_of(signal: Signal, *, sender: Any) -> list[Any]:
    """The receivers of a signal of that sender."""
    live: Any = signal._live_receivers(sender)
    # Since Django 5.0: those that are functions, and those that are coroutines.
    return list(itertools.chain.from_iterable(live) if isinstance(live, tuple) else live)


def has_receivers(signal: Signal, *, sender: Any, besides: Callable[..., Any]) -> bool:
    """Whether a signal of that sender has receivers other than one that is known."""
    return any(receiver is not besides for receiver in receivers_of(signal, sender=sender))
