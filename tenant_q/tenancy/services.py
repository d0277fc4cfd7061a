"""What the connection service file of libpq says of a database that the settings name by `OPTIONS["service"]`."""

from __future__ import annotations

import functools
import os
from typing import Any

from psycopg.pq import Conninfo

_PLACE = {"HOST": "host", "PORT": "port", "NAME": "dbname"}


def without_service(values: dict[str, Any]) -> dict[str, Any]:
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
    """Return what libpq reads in the service file, as it tells only for the service that the environment names."""
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
