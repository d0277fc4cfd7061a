"""`mstenant limit`: set a tenant's weight and limits."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q.management import tenant_policies
from tenant_q.management.tenant_action import TenantAction
from tenant_q.models import LEAST_WEIGHT, MOST_WEIGHT

_OF_SETTINGS = "0: as the settings say."


class Action(TenantAction):
    help = "Sets the weight and the limits of a tenant. What is not given stays."

    def add_arguments(self, parser: CommandParser) -> None:
        limits: dict[str, Any] = {"type": _limit, "default": argparse.SUPPRESS, "metavar": "N"}
        parser.add_argument(
            "--weight",
            type=_weight,
            default=argparse.SUPPRESS,
            metavar="W",
            help=f"Its share of worker time relative to others, {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}; 1 by default.",
        )
        parser.add_argument("--max-running", help="The most workers that it may occupy at once. 0: no limit.", **limits)
        parser.add_argument("--max-queued", help="The most tasks of it that may wait. 0: no limit.", **limits)
        days: dict[str, Any] = {"type": _days, "default": argparse.SUPPRESS, "metavar": "D"}
        parser.add_argument("--max-results", help=f"The number of its successes to keep. {_OF_SETTINGS}", **limits)
        parser.add_argument("--success-days", help=f"The days for which they are kept. {_OF_SETTINGS}", **days)
        parser.add_argument("--max-failures", help=f"The number of its failures to keep. {_OF_SETTINGS}", **limits)
        parser.add_argument("--failure-days", help=f"The days for which they are kept. {_OF_SETTINGS}", **days)

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        values: Any = {name: options[name] for name in tenant_policies.LIMITS if name in options}
        if not values:
            known = ", ".join(f"--{name.replace('_', '-')}" for name in tenant_policies.LIMITS)
            raise CommandError(f"Nothing to change for {schema}: give one of {known}.")
        tenant_policies.change(self.command, schema, self.name, as_json=options["json"], **values)


def _limit(text: str) -> int | None:
    if text.lower() in ("0", "none"):
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; give 1 or more, or 0 for no limit") from None


def _days(text: str) -> float | None:
    if text.lower() in ("0", "none"):
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of days; give one above 0, or 0 for what the settings say"
        ) from None


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number; give one from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}"
        ) from None
