"""Convert moments between Django's form (aware with `USE_TZ`, otherwise naive local time) and other forms."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone


def at(epoch: float) -> datetime:
    """Convert seconds since the epoch to a moment in Django's form, that of `timezone.now()`."""
    moment = datetime.fromtimestamp(epoch, UTC)
    return moment if settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())


def aware(moment: datetime) -> datetime:
    """Convert a moment to an aware one. A naive moment is in local time."""
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment, timezone.get_default_timezone())
