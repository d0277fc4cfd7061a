"""Find out what the settings lack for isolation by the roles of tenants, and what they show to tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.utils.module_loading import import_string

from tenant_q.conf.table import Configuration

_OWN = "TENANT_Q"


@dataclass(frozen=True, slots=True)
class IsolationProblem:
    """A problem of the settings for isolation: the number of its system check, its text, and the way out."""

    number: str
    text: str
    hint: str


def isolation_problems(configuration: Configuration) -> Iterator[IsolationProblem]:
    """Yield what is wrong with the settings for isolation by roles. Numbers with a W are warnings."""
    mode = configuration.isolation
    if mode != "path" and not (configuration.role_key or configuration.credentials):
        yield IsolationProblem(
            "E018",
            f"TENANT_Q['isolation'] is {mode!r}, and the tenants' roles have no passwords.",
            "Set TENANT_Q['role_key'] from the environment to a secret of at least 32 bytes, or name a function in "
            "TENANT_Q['credentials'].",
        )
    if mode != "path" and not configuration.admin_database:
        yield IsolationProblem(
            "E019",
            f"TENANT_Q['isolation'] is {mode!r}, and nothing can create or repair the tenants' roles.",
            "Set TENANT_Q['admin_database'] from the environment to the URL of the tenants' database for a role with "
            "CREATEROLE.",
        )
    yield from _unimportable(configuration)
    if configuration.role_key:
        yield from _shown_twice("W015", "role_key", configuration.role_key)
    if configuration.admin_database and "://" in configuration.admin_database:
        yield from _shown_twice("W016", "admin_database", configuration.admin_database)
        yield from _alias_of_admin(configuration.admin_database)


def _unimportable(configuration: Configuration) -> Iterator[IsolationProblem]:
    for key in ("credentials", "make_tenant", "admin_database"):
        path = getattr(configuration, key)
        if not path or "://" in path:
            continue
        try:
            function = import_string(path)
        except Exception as error:
            text = f"TENANT_Q[{key!r}] ({path.rpartition('@')[2]}) cannot be imported: {type(error).__name__}."
        else:
            if callable(function):
                continue
            text = f"TENANT_Q[{key!r}] ({path}) is not a function."
        yield IsolationProblem("E020", text, "Name a function by its dotted path.")


def _shown_twice(number: str, key: str, secret: str) -> Iterator[IsolationProblem]:
    """Yield other settings that hold a secret. Workers hide that of `TENANT_Q` from tasks, and no other."""
    names = [name for name in dir(settings) if name.isupper() and name != _OWN and _holds(_value(name), secret)]
    if names:
        yield IsolationProblem(
            number,
            f"The setting {names[0]} also holds TENANT_Q[{key!r}], where every task can read it.",
            f"Use a value of its own that is in no other setting than TENANT_Q[{key!r}].",
        )


def _alias_of_admin(url: str) -> Iterator[IsolationProblem]:
    user = unquote(urlsplit(url).username or "")
    for alias, values in settings.DATABASES.items():
        if user and values.get("USER") == user:
            yield IsolationProblem(
                "W016",
                f"DATABASES[{alias!r}] has the role {user!r} of TENANT_Q['admin_database'], so tasks can create roles.",
                "Use a role of its own for TENANT_Q['admin_database'], which no alias has.",
            )


def _value(name: str) -> Any:
    try:
        return getattr(settings, name)
    except Exception:  # a setting of Django that refuses to be read, such as an empty SECRET_KEY
        return None


def _holds(value: Any, secret: str) -> bool:
    if isinstance(value, str):
        return value == secret
    if isinstance(value, dict):
        return any(_holds(one, secret) for one in value.values())
    return isinstance(value, list | tuple) and any(_holds(one, secret) for one in value)
