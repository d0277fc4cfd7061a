"""The states of tasks and of workflow runs in words, with their CSS classes, as the pages of both admins show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _

PLACES: Mapping[str, tuple[Any, str]] = {
    "leased": (_("Running"), "tenant-q-good"),
    "queued": (_("Queued"), "tenant-q-soft"),
    "delayed": (_("Delayed"), "tenant-q-warn"),
}
"""The places of a package in the broker."""
RUN_STATES: Mapping[str, tuple[Any, str]] = {
    "pending": (_("Pending"), "tenant-q-soft"),
    "running": (_("Running"), "tenant-q-busy"),
    "cancelling": (_("Being cancelled"), "tenant-q-warn"),
    "succeeded": (_("Succeeded"), "tenant-q-good"),
    "failed": (_("Failed"), "tenant-q-bad"),
    "cancelled": (_("Cancelled"), "tenant-q-warn"),
}
"""The states of a workflow run."""
