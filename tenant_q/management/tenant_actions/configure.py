"""`mstenant configure`: change a tenant's configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit, policies
from tenant_q.conf import conf
from tenant_q.exceptions import TenantQError
from tenant_q.management.tenant_action import TenantAction
from tenant_q.management.tenant_facts import value_words
from tenant_q.models.tenants import CONFIGURED
from tenant_q.operations.tenant_details import read_details
from tenant_q.support.call_checks import short
from tenant_q.support.hints import did_you_mean

_MAPPINGS = tuple(name for name in CONFIGURED if name != "display_name")
_PYTHON = {"True": "true", "False": "false", "None": "null"}


class Action(TenantAction):
    help = (
        "Changes the configuration of a tenant. A value is JSON or else text; without a value, as in "
        "limits.max_items=, the key is removed. Keys that are not named stay."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        keys = ", ".join(["display_name", *(f"{name}.KEY" for name in _MAPPINGS)])
        parser.add_argument(
            "changes", nargs="*", metavar="KEY=VALUE", default=[], help=f"What to change: {keys}. Several may be given."
        )

    def tenant_of(self, options: dict[str, Any]) -> str | None:
        if options["named"] is not None and "=" in (options["schema"] or ""):  # the first change, after --schema
            options["changes"], options["schema"] = [options["schema"], *options["changes"]], None
        return super().tenant_of(options)

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        given = _changes(schema, options["changes"])
        config = policies.configure(schema, actor=audit.operator(), **_values(given))
        applied = self._apply(schema) if ("limits", "max_connections") in given else ""
        if options["json"]:
            self.command.write_json({"schema": schema, **config.as_json()})
            return
        self.command.write_line(f"{schema} has {', '.join(_said(key, value) for key, value in given.items())}.")
        self.command.write_line(f"Running processes use it within {conf().tenant_cache_seconds:g} s.")
        if applied:
            self.command.write_line(applied)

    def _apply(self, schema: str) -> str:
        """Apply a changed limit of connections to the tenant's role. Return what came of it; empty without a role."""
        details = read_details(schema)
        if details.role is None:
            return ""
        if not conf().admin_database:
            return f"{details.advice} It needs TENANT_Q['admin_database']." if details.advice else ""
        from tenant_q.provisioning import apply_connection_limit  # for projects whose tenants have roles

        try:
            role = apply_connection_limit(schema)
        except TenantQError as error:
            raise CommandError(
                f"The configuration is saved, and its max_connections is not applied: {error} Then run the same again."
            ) from error
        if role is None:
            return ""
        limit = role.connection_limit
        return f"Its role may have {'any number of' if limit is None else limit} session{'s' * (limit != 1)} at once."


def _changes(schema: str, words: Sequence[str]) -> dict[tuple[str, str], Any]:
    """Return what `mstenant configure` is to set: values by field and key, None for a key to remove."""
    if not words:
        raise CommandError(f"Nothing to change for {schema}: give KEY=VALUE, such as limits.max_items=500.")
    found: dict[tuple[str, str], Any] = {}
    for word in words:
        name, is_given, text = word.partition("=")
        if not is_given:
            raise CommandError(f"{short(word)} has no value; give {name}=VALUE, or {name}= to remove it.")
        key = _key(name)
        if key in found:
            raise CommandError(f"{name} is given twice; give it once.")
        found[key] = _value(name, text)
    return found


def _key(name: str) -> tuple[str, str]:
    """Return the field and the key in it that a name such as "limits.max_items" means; no key for the display name."""
    field, _, key = name.partition(".")
    if field not in CONFIGURED:
        raise CommandError(f"A tenant's configuration has no {short(field)}: {did_you_mean(field, CONFIGURED)}")
    if field == "display_name":
        if key:
            raise CommandError(f"display_name is a text and has no {short(key)}; give display_name=TEXT.")
        return field, ""
    if not key:
        raise CommandError(f"{field} holds several keys; name one, as {field}.KEY=VALUE.")
    if "." in key:
        outer = f"{field}.{key.partition('.')[0]}"
        raise CommandError(f"{name} would be a part of the value {outer}; give all of {outer} as JSON.")
    return field, key


def _value(name: str, text: str) -> Any:
    """Return the value that `mstenant configure` was given: JSON if it is that, else the text itself."""
    if name == "display_name":
        return text
    if not text:
        return None
    if text in _PYTHON:
        raise CommandError(f"{name}={text} is Python; give {_PYTHON[text]}, or '\"{text}\"' for the text.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text[0] in '[{"':
            raise CommandError(
                f"{name} begins as JSON and is none ({error}); put the whole argument into the shell's single quotes."
            ) from None
        return text


def _values(changes: dict[tuple[str, str], Any]) -> Any:
    values: dict[str, Any] = {}
    for (field, key), value in changes.items():
        if key:
            values.setdefault(field, {})[key] = value
        else:
            values[field] = value
    return values


def _said(key: tuple[str, str], value: Any) -> str:
    """Return in words of `mstenant configure` what a key of a tenant's configuration is now."""
    name = ".".join(filter(None, key))
    return f"no {name}" if value in (None, "") else f"{name} {value_words(value)}"
