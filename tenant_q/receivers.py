"""Who listens to a signal."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal


def has_receivers(signal: Signal, *, sender: Any, besides: Callable[..., Any]) -> bool:
    """Whether a signal of that sender has receivers other than one that is known."""
    live: Any = signal._live_receivers(sender)
    # Since Django 5.0: those that are functions, and those that are coroutines.
    found = itertools.chain.from_iterable(live) if isinstance(live, tuple) else live
    return any(receiver is not besides for receiver in found)
