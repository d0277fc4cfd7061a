"""Find the receivers of Django's signals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal


def receivers_of(signal: Signal, *, sender: Any) -> list[Any]:
    """Return the live receivers of a Django signal from a sender."""
    live: Any = signal._live_receivers(sender)
    # Since Django 5.0 a pair: functions, and coroutines.
    return list(itertools.chain.from_iterable(live) if isinstance(live, tuple) else live)


def has_receivers(signal: Signal, *, sender: Any, besides: Callable[..., Any]) -> bool:
    """Return whether a Django signal from a sender has a receiver other than `besides`."""
    return any(receiver is not besides for receiver in receivers_of(signal, sender=sender))
