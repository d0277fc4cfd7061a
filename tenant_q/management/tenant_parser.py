"""The arguments of `mstenant`: one parser for each action. An option may also stand before the action's name."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q.management.tenant_action import TenantAction


class TenantArguments:
    """The arguments of `mstenant`.

    Each parser takes the options of all actions, and shows its own. So an option that belongs to another action is
    answered with that action's name. No option has a default of its own while it is parsed: a parser of an action would
    overwrite with it what stood before the action's name.
    """

    def __init__(self, actions: Mapping[str, TenantAction], parser: CommandParser) -> None:
        self._defaults: dict[str, dict[str, Any]] = {}
        self._shown: dict[str, dict[str, str]] = {}
        shared = [option for option in parser._actions if option.dest != "help"]
        parsers = self._add_parsers(actions, parser)
        own = {name: _options(one) for name, one in parsers.items()}
        for name, one in parsers.items():
            self._defaults[name] = {option.dest: option.default for option in one._actions if option.dest != "help"}
            self._shown[name] = {option.dest: max(option.option_strings) for option in own[name]}
            for option in one._actions:
                option.default = argparse.SUPPRESS
            _add_copies(one, shared)
        for one in (parser, *parsers.values()):
            for options in own.values():
                _add_copies(one, options, help=argparse.SUPPRESS, required=False)

    def _add_parsers(self, actions: Mapping[str, TenantAction], parser: CommandParser) -> dict[str, CommandParser]:
        subparsers = parser.add_subparsers(
            dest="action", metavar="ACTION", title="actions", parser_class=_ActionParser, help="`list` by default."
        )
        parsers: dict[str, CommandParser] = {}
        for name, action in actions.items():
            # Without the doubled percent signs that `help` needs.
            one = subparsers.add_parser(
                name, help=action.help, description=action.help, formatter_class=parser.formatter_class
            )
            one.add_argument("schema", nargs="?", metavar="SCHEMA", help="The tenant.")
            action.add_arguments(one)
            if action.all_help is not None:
                one.add_argument("--all", action="store_true", help=action.all_help)
            parsers[name] = one
        return parsers

    def values(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of all arguments that an action of `mstenant` takes.

        Args:
            name: The action.
            options: What was given.

        Raises:
            CommandError: An option belongs to another action.
        """
        for dest, value in options.items():
            owners = [owner for owner, shown in self._shown.items() if dest in shown]
            if owners and name not in owners and value not in (None, False, []):
                option = self._shown[owners[0]][dest]
                named = " and ".join(f"`mstenant {owner}`" for owner in owners)
                raise CommandError(f"{option} belongs to {named}, not to `mstenant {name}`.")
        left_out = {dest: value for dest, value in self._defaults[name].items() if value != argparse.SUPPRESS}
        return left_out | dict(options)


class _ActionParser(CommandParser):
    """The parser of one action: words and options may stand in any order, as in `configure SCHEMA --json key=value`."""

    _is_intermixed = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self._is_intermixed:  # called by the method below
            return super().parse_known_args(args, namespace)
        self._is_intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixed = False


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [option for option in parser._actions if option.option_strings and option.dest != "help"]


def _add_copies(parser: argparse.ArgumentParser, options: Sequence[argparse.Action], **changes: Any) -> None:
    """Add options of `mstenant` to another parser, except those that it has, without their defaults."""
    for option in options:
        if not parser._option_string_actions.keys() & set(option.option_strings):
            copied = copy.copy(option)
            for name, value in ({"default": argparse.SUPPRESS} | changes).items():
                setattr(copied, name, value)
            parser._add_action(copied)
