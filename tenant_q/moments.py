"""Moments as Django's own functions give them: aware with `USE_TZ`, else naive local time."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone


def at(epoch: float) -> datetime:
    """Return the moment so many seconds after the epoch, as `timezone.now()` would have given it."""
    moment = datetime.fromtimestamp(epoch, UTC)
    return moment if settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())


def aware(moment: datetime) -> datetime:
    """Return a moment with its offset, which naive local time lacks."""
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment, timezone.get_default_timezone())
