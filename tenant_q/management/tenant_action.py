"""The base of what `mstenant` can do: one class for each action, in a module of its own in `tenant_actions`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q.management.console import OperatorCommand


class TenantAction:
    """An action of `mstenant`, such as "pause", which is the name of its module.

    Subclasses implement `perform`, and `perform_all` if they can be for all tenants.

    Attributes:
        help: What it does, for `--help`: a sentence in the third person.
        needs_tenant: Whether it is for a tenant that must be named.
        all_help: The help of `--all`, if it can be for all tenants instead of one; else None.
    """

    help = ""
    needs_tenant = True
    all_help: str | None = None

    def __init__(self, name: str, command: OperatorCommand) -> None:
        self.name = name
        self.command = command

    def add_arguments(self, parser: CommandParser) -> None:
        """Add to the parser what the action of `mstenant` takes besides SCHEMA, `--schema`, `--all` and `--json`."""

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        """Do for one tenant what the action of `mstenant` is for.

        Args:
            schema: The tenant. It may not exist.
            options: The values of all its arguments, with their defaults.

        Raises:
            CommandError: The arguments do not fit, or it could not be done.
            TenantQError: It could not be done. The text becomes the error message.
        """
        raise NotImplementedError

    def perform_all(self, options: dict[str, Any]) -> None:
        """Do what the action of `mstenant` is for with `--all`, or without a tenant if none is needed.

        Args:
            options: The values of all its arguments, with their defaults.

        Raises:
            CommandError: The arguments do not fit, or it could not be done.
            TenantQError: It could not be done. The text becomes the error message.
        """
        raise NotImplementedError

    def tenant_of(self, options: dict[str, Any]) -> str | None:
        """Return the tenant that the action of `mstenant` is for; None for all, or if none is needed.

        Raises:
            CommandError: Two tenants are named, or none where one is needed.
        """
        schema, named = options["schema"], options["named"]
        every_tenant = bool(options.get("all"))
        if schema and named and schema != named:
            raise CommandError(f"Two tenants are named, {schema} and {named}; name one.")
        schema = schema or named or None
        if every_tenant and schema:
            raise CommandError(f"--all belongs to `mstenant {self.name}` without a tenant; leave out {schema} or it.")
        if self.needs_tenant and not schema and not every_tenant:
            others = "" if self.all_help is None else ", or give --all"
            raise CommandError(
                f"Name the tenant: `mstenant {self.name} SCHEMA`{others}; `mstenant list --all` lists every tenant."
            )
        return schema
