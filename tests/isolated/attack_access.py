"""Tasks that open sessions of their own, with what Django's settings and the environment show."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
from django.conf import settings
from django.db import connection, connections

from tenant_q.conf import conf
from tenant_q.tenancy import credentials

Outcome = list[Any]


def show_settings() -> list[tuple[str, dict[str, Any]]]:
    """Return where a task finds what looks like the access to a database, with the parameters for libpq."""
    found = []
    for alias in ("default", "replica"):
        found += [
            (f"settings.DATABASES of {alias}", _of_settings(settings.DATABASES[alias])),
            (f"connections.settings of {alias}", _of_settings(connections.settings[alias])),
            (f"connections.databases of {alias}", _of_settings(connections.databases[alias])),
            (f"settings_dict of {alias}", _of_settings(connections[alias].settings_dict)),
        ]
        found.append((f"get_connection_params of {alias}", connections[alias].get_connection_params()))
    connection.ensure_connection()
    raw = connection.connection
    found.append(("the driver's session", raw.info.get_parameters() | {"password": raw.info.password}))
    for where, text in _texts():
        if "://" in text:
            found.append((where, psycopg.conninfo.conninfo_to_dict(text)))
    return found


def _of_settings(values: dict[str, Any]) -> dict[str, Any]:
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {name: values[key] for key, name in names.items() if values.get(key)} | {
        name: one for name, one in values.get("OPTIONS", {}).items() if name in ("user", "password", "service")
    }


def _texts() -> Iterator[tuple[str, str]]:
    """Yield every text in the settings of tenant_q, in Django's and in the environment, from inside of JSON too."""
    named: list[tuple[str, Any]] = [
        ("TENANT_Q", settings.TENANT_Q),
        ("Q_CLUSTER", settings.Q_CLUSTER),
        ("conf", conf()),
    ]
    named += [(name, getattr(settings, name)) for name in dir(settings) if name.isupper() and name != "DATABASES"]
    named += [(f"os.environ[{name!r}]", value) for name, value in os.environ.items()]
    for where, value in named:
        for text in _strings(value):
            yield where, text


def _strings(value: Any, depth: int = 6) -> Iterator[str]:
    if isinstance(value, str):
        inner: Any = None
        with suppress(ValueError):
            inner = json.loads(value)
        if isinstance(inner, dict | list):
            yield from _strings(inner, depth - 1)
        elif urlsplit(value).scheme.startswith("postgres"):
            yield value
    elif depth and isinstance(value, dict):
        for one in value.values():
            yield from _strings(one, depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from _strings(one, depth - 1)
    elif depth and hasattr(value, "__dict__"):
        yield from _strings(vars(value), depth - 1)


def raw_sessions(statements: list[str]) -> list[Outcome]:
    """Execute them in sessions that libpq opens with what the settings show."""
    outcomes: list[Outcome] = []
    for where, parameters in show_settings():
        keys = ("dbname", "user", "password", "host", "port", "service", "options")
        known = {key: value for key, value in parameters.items() if key in keys and value}
        try:
            with psycopg.connect(**known, autocommit=True) as raw:
                outcomes.append([where, "user", raw.info.user])
                for statement in statements:
                    try:
                        found = raw.execute(statement)
                        outcomes.append([statement, "done", repr(found.fetchall() if found.description else "")])
                    except psycopg.Error as error:
                        outcomes.append([statement, error.sqlstate, repr(error)])
        except psycopg.OperationalError as error:
            outcomes.append([where, "refused", repr(error)])
    return outcomes


def with_computed_passwords(roles: list[str], statements: list[str]) -> list[Outcome]:
    """Execute them as other roles, whose passwords are computed from the role key that the settings show."""
    info = connection.get_connection_params()
    outcomes: list[Outcome] = []
    for role in roles:
        message = "\0".join((info["dbname"], role, "1")).encode()
        for key in {str(settings.TENANT_Q.get("role_key")), credentials.HIDDEN, settings.SECRET_KEY, ""}:
            digest = hmac.new(key.encode(), message, hashlib.sha256).digest()
            for password in (
                credentials._base62(digest),
                digest.hex(),
                base64.b64encode(digest).decode(),
                info["password"],
            ):
                try:
                    with psycopg.connect(host=info["host"], dbname=info["dbname"], user=role, password=password) as raw:
                        outcomes.append([role, "done", repr([raw.execute(one).fetchall() for one in statements])])
                except psycopg.OperationalError as error:
                    outcomes.append([role, "refused", repr(error)])
    return outcomes
