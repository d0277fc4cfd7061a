"""The settings of databases in a worker that isolates tenants: the owner's, which it keeps, and those for a role."""

from __future__ import annotations

import functools
import os
from copy import deepcopy
from typing import Any

from django.conf import settings
from django.db import connections
from psycopg.pq import Conninfo

from tenant_q.tenancy.worker_state import process

# Options that name the owner, hold its password, or switch to its role.
_PLACE = {"HOST": "host", "PORT": "port", "NAME": "dbname"}
_OWNERS_OPTIONS = {"user", "password", "passfile", "service", "assume_role"}


def owner_settings(alias: str) -> dict[str, Any]:
    """Return a copy of the owner's settings of a database, with which a connection of the owner is opened."""
    found = deepcopy(process.owner.get(alias) or connections.settings[alias])
    if "SCHEMA" in connections.settings[alias]:
        found["SCHEMA"] = connections.settings[alias]["SCHEMA"]
    return found


def all_owner_settings() -> dict[str, dict[str, Any]]:
    """Return copies of the owner's settings of all databases."""
    return {alias: owner_settings(alias) for alias in connections.settings}


def owners_passwords() -> list[str]:
    """Return the owner's passwords in the settings of all databases."""
    found = [one.get("PASSWORD") for one in process.owner.values()]
    found += [one.get("OPTIONS", {}).get("password") for one in process.owner.values()]
    return [str(password) for password in found if password]


def with_environment(values: dict[str, Any]) -> dict[str, Any]:
    """Return the owner's settings of a database with the user and the password that libpq takes from the environment.

    They are removed there, so that no task logs in with them.
    """
    names = {"USER": "PGUSER", "PASSWORD": "PGPASSWORD"}
    return values | {name: values.get(name) or os.environ.get(variable, "") for name, variable in names.items()}


def settings_for(alias: str, role: str, password: str) -> dict[str, Any]:
    """Return the settings of a database for a role, without what belongs to its owner."""
    found = _without_service(owner_settings(alias)) | {"USER": role, "PASSWORD": password}
    options = {name: one for name, one in found.get("OPTIONS", {}).items() if name not in _OWNERS_OPTIONS}
    # With the login, so that Django needs no statement for it, and the role's own setting has no effect.
    zone = (found.get("TIME_ZONE") or "UTC") if settings.USE_TZ else settings.TIME_ZONE
    options["options"] = " ".join([str(options.get("options", "")), f"-c TimeZone={zone}"]).strip()
    return found | {"OPTIONS": options}


def _without_service(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a database with what its service file says in place of the name of the service."""
    service = values.get("OPTIONS", {}).get("service")
    if not service:
        return values
    found = dict(_parameters_of(service))
    place = {name: values.get(name) or found.pop(key, "") for name, key in _PLACE.items()}
    others = {name: one for name, one in found.items() if name not in _PLACE.values()}
    return values | place | {"OPTIONS": others | values["OPTIONS"]}


@functools.cache
def _parameters_of(service: str) -> tuple[tuple[str, str], ...]:
    """Return what libpq reads in the service file, as it does only for the service that the environment names."""
    before = os.environ.pop("PGSERVICE", None)
    try:
        plain = _default_parameters()
        os.environ["PGSERVICE"] = service
        return tuple(sorted(_default_parameters() - plain))
    finally:
        os.environ.pop("PGSERVICE", None)
        if before is not None:
            os.environ["PGSERVICE"] = before


def _default_parameters() -> set[tuple[str, str]]:
    return {(one.keyword.decode(), one.val.decode()) for one in Conninfo.get_defaults() if one.val}


def base_role(alias: str) -> str:
    """Return the role that the owner's sessions of a database have: the project's `assume_role`, or "none"."""
    return str(process.owner.get(alias, {}).get("OPTIONS", {}).get("assume_role") or "none")


def open_owner(alias: str) -> Any:
    """Return a new connection of the owner to a database. It opens its session with its first statement."""
    connection = connections.create_connection(alias)
    for name in ("connect", "get_new_connection"):
        vars(connection).pop(name, None)
    connection.settings_dict = owner_settings(alias)
    return connection
