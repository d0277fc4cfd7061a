"""`python manage.py mstenant`: show and change tenants. Each action is in a module of `management.tenant_actions`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from tenant_q.management.console import OperatorCommand
from tenant_q.management.tenant_actions import tenant_actions
from tenant_q.management.tenant_parser import TenantArguments


class Command(OperatorCommand):
    help = (
        "Lists tenants with their policies, and changes one, at once and while clusters run. "
        "`mstenant ACTION --help` describes an action."
    )
    stealth_options = ("action",)  # call_command() does not find the name of a parser's choice of parsers

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--schema", dest="named", metavar="SCHEMA", help="The tenant, as in the other commands.")
        self._actions = tenant_actions(self)
        self._arguments = TenantArguments(self._actions, parser)

    def perform(self, options: dict[str, Any]) -> None:
        name = options["action"] or "list"
        values = self._arguments.values(name, options)
        action = self._actions[name]
        schema = action.tenant_of(values)
        if schema is None:
            action.perform_all(values)
        else:
            action.perform(schema, values)
