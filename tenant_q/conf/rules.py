"""Rules for values of settings that a type and limits do not express."""

from __future__ import annotations

import logging
from keyword import iskeyword
from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from tenant_q.conf.setting import Rule
from tenant_q.support import call_checks
from tenant_q.support.call_checks import is_text

NAME: Rule = (is_text, "a name that is not empty")
LOG_LEVEL: Rule = (lambda value: value in logging.getLevelNamesMapping(), "a level of Python's logging, as 'INFO'")
SAVE_LIMIT_PER: Rule = (lambda value: value in ("group", "name", "func"), "'group', 'name', 'func' or None")
CATCH_UP: Rule = (call_checks.is_catch_up, call_checks.CATCH_UP)
ISOLATION: Rule = (lambda value: value in ("path", "role", "login"), "'path', 'role' or 'login'")
ROLE_KEY_BYTES = 32
ROLE_KEY: Rule = (
    lambda value: len(str(value).encode()) >= ROLE_KEY_BYTES,
    f"a secret of at least {ROLE_KEY_BYTES} bytes, as of `secrets.token_urlsafe(32)`, from the environment",
)
LONGEST_DAYS = 36_500
"""The longest time for which outcomes may be kept by a limit, in days."""
MOST_ROWS = 2**31 - 1
RELEASE: Rule = (lambda value: 0 < len(str(value)) <= 100, "a number, or a text of 1 to 100 characters")
TIME_ZONE: Rule = (lambda value: value in available_timezones(), "a name such as 'Europe/Berlin'")

# Packages whose functions enqueue and call what their arguments name.
_NEVER_OFFERED = ("django_q", "tenant_q")


def is_keep(value: object) -> bool:
    """Return whether a value is right for `TENANT_Q["keep_successes"]` and `["keep_failures"]`."""
    if not isinstance(value, dict) or not value or value.keys() - {"days", "rows"}:
        return False
    days, rows = value.get("days"), value.get("rows")
    is_time = days is None or (_is_number(days, int | float) and 0 < days <= LONGEST_DAYS)
    is_count = rows is None or (_is_number(rows, int) and 1 <= rows <= MOST_ROWS)
    return is_time and is_count and (days is not None or rows is not None)


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


KEEP: Rule = (
    is_keep,
    f"a dict with 'days', a number above 0 and at most {LONGEST_DAYS}, with 'rows', a whole number from 1 on, or with "
    "both",
)


def switches_schemas(alias: object) -> bool:
    """Return whether an alias in the settings names a database with the engine of a tenancy package."""
    try:
        return hasattr(connections[str(alias)], "set_tenant")
    except (ConnectionDoesNotExist, ImproperlyConfigured):
        return False


def database_problem(alias: object) -> str | None:
    """Apply the rules for an item of `TENANT_Q["databases"]`. Return what is wrong with it, or None."""
    if not isinstance(alias, str) or alias not in settings.DATABASES:
        return f"names {alias!r}, which DATABASES does not have; add it or remove it."
    if not switches_schemas(alias):
        return f"names {alias!r}, which does not switch schemas; give it the ENGINE of the tenants' database."
    return None


def alias_problem(alias: object) -> str | None:
    """Apply the rules for an item of `TENANT_Q["open_aliases"]`. Return what is wrong with it, or None."""
    if not isinstance(alias, str) or alias not in settings.DATABASES:
        return f"names {alias!r}, which DATABASES does not have; add it or remove it."
    return None


def table_problem(name: object) -> str | None:
    """Apply the rules for an item of `TENANT_Q["shared_read"]`. Return what is wrong with it, or None."""
    if not isinstance(name, str) or not name or name.count(".") > 1 or not all(name.split(".")):
        return f"names {name!r}; name a model as 'app_label.Model', or a table of the public schema by its name."
    return None


def function_problem(entry: object) -> str | None:
    """Apply the rules for an item of `TENANT_Q["admin_functions"]`. Return what is wrong with it, or None."""
    parts = entry.removesuffix(".*").split(".") if isinstance(entry, str) else []
    if len(parts) < (1 if str(entry).endswith(".*") else 2) or not all(map(_is_name, parts)):
        return f"names {entry!r}; name a function by its dotted path, or a module's functions as 'billing.reports.*'."
    if parts[0] in _NEVER_OFFERED:
        return f"names {entry!r}; its functions call others by name, so offer functions of your own instead."
    return None


def _is_name(part: str) -> bool:
    return part.isascii() and part.isidentifier() and not iskeyword(part)
