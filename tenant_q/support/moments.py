"""Convert moments between Django's form (aware with `USE_TZ`, otherwise naive local time) and others; show them."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

_FORMAT = "%Y-%m-%d %H:%M:%S"


def at(epoch: float) -> datetime:
    """Convert seconds since the epoch to a moment in Django's form, that of `timezone.now()`."""
    moment = datetime.fromtimestamp(epoch, UTC)
    return moment if settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())


def aware(moment: datetime) -> datetime:
    """Convert a moment to an aware one. A naive moment is in local time."""
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment, timezone.get_default_timezone())


def text(moment: datetime) -> str:
    """Return a moment as the admin shows it everywhere: 2026-05-17 09:30:00, in the current time zone."""
    return _local(moment).strftime(_FORMAT)


def shown(moment: datetime | None) -> SafeString | str:
    """Return a moment in an HTML element that also has its time zone, for the admin; "-" for None."""
    if moment is None:
        return "-"
    return format_html('<time datetime="{}">{}</time>', _local(moment).isoformat(timespec="seconds"), text(moment))


def _local(moment: datetime) -> datetime:
    return timezone.localtime(moment) if timezone.is_aware(moment) else moment
