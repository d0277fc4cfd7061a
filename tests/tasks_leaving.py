"""Tasks that leave something in their connection or their process, and one that looks what it finds of it.

Each changes what another tenant's task would see, read or be hurt by, without a statement that the server remembers.
"""

from __future__ import annotations

from typing import Any

import psycopg
from django.db import connection, connections
from psycopg.adapt import Dumper, Loader
from psycopg.rows import dict_row

STOLEN: list[Any] = []


class _StealingLoader(Loader):
    def load(self, data: Any) -> str:
        STOLEN.append(bytes(data))
        return "stolen"


class _StealingDumper(Dumper):
    def dump(self, value: Any) -> bytes:
        STOLEN.append(value)
        return b"stolen"


def _raw() -> Any:
    connection.ensure_connection()
    return connection.connection


# A connection of the driver's


def register_a_loader() -> None:
    _raw().adapters.register_loader("text", _StealingLoader)


def register_a_dumper() -> None:
    _raw().adapters.register_dumper(str, _StealingDumper)


def register_a_loader_and_make_a_cursor() -> None:
    """A cursor shares the tables of its connection, and resets how their owner is known."""
    register_a_loader()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def register_a_loader_on_a_new_connection() -> None:
    connection.close()
    register_a_loader()


def register_a_type() -> None:
    psycopg.types.TypeInfo("made_up", 25, 1009).register(_raw())


def handle_notices() -> None:
    _raw().add_notice_handler(STOLEN.append)


def handle_notifies() -> None:
    _raw().add_notify_handler(STOLEN.append)


def handle_notices_of_the_library() -> None:
    _raw().pgconn.notice_handler = STOLEN.append


def replace_a_method() -> None:
    raw = _raw()
    execute = raw.execute
    raw.execute = lambda query, *args, **kwargs: (STOLEN.append(query), execute(query, *args, **kwargs))[1]


def make_cursors_return_dicts() -> None:
    raw = _raw()
    make = raw.cursor
    raw.cursor = lambda *args, **kwargs: make(*args, **{**kwargs, "row_factory": dict_row})


# Django's connection


def replace_djangos_cursor() -> None:
    make = connections["default"].cursor

    def cursor() -> Any:
        STOLEN.append("cursor")
        return make()

    connections["default"].cursor = cursor


def force_debug() -> None:
    connection.force_debug_cursor = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'a secret'")


def replace_the_settings() -> None:
    connections["default"].settings_dict = {**connection.settings_dict, "NAME": "postgres"}


def change_the_database() -> None:
    connection.settings_dict["NAME"] = "postgres"
    connection.close()


def change_the_database_for_a_while() -> None:
    own = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "postgres"
    connection.close()
    connection.ensure_connection()
    connection.settings_dict["NAME"] = own


def change_an_option() -> None:
    connection.settings_dict.setdefault("OPTIONS", {})["options"] = "-c statement_timeout=777"
    connection.close()


def change_another_databases_option() -> None:
    connections.settings["replica"].setdefault("OPTIONS", {})["options"] = "-c statement_timeout=777"


def replace_the_connection() -> None:
    other = connections.create_connection("default")
    other.set_schema("initech_llc")
    other.cursor = lambda: STOLEN.append("cursor")
    connections["default"] = other


def replace_the_connections_time_zone() -> None:
    import zoneinfo

    vars(connections["default"])["timezone"] = zoneinfo.ZoneInfo("Asia/Tokyo")
    vars(connections["default"])["timezone_name"] = "Asia/Tokyo"


CONNECTION = (
    register_a_loader,
    register_a_dumper,
    register_a_loader_and_make_a_cursor,
    register_a_loader_on_a_new_connection,
    register_a_type,
    handle_notices,
    handle_notifies,
    handle_notices_of_the_library,
    replace_a_method,
    make_cursors_return_dicts,
    replace_djangos_cursor,
    force_debug,
    replace_the_settings,
    change_the_database,
    change_the_database_for_a_while,
    change_an_option,
    change_another_databases_option,
    replace_the_connection,
    replace_the_connections_time_zone,
)


def look_at_the_connection() -> dict[str, Any]:
    """What a task sees of how its connection is set up."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 'text'::text, %s::varchar, current_database(), current_schema(), "
            "current_setting('statement_timeout'), current_setting('TimeZone')",
            ["mine"],
        )
        row = cursor.fetchone()
        cursor.execute("DO $$ BEGIN RAISE NOTICE 'a secret'; END $$")
        cursor.execute("LISTEN to_myself")
        cursor.execute("NOTIFY to_myself, 'a secret'")
        cursor.execute("UNLISTEN *")
    raw = connection.connection
    plain = raw.execute("SELECT 1").fetchone()
    with connections["replica"].cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout')")
        limit = cursor.fetchone()
    found = {
        "row": list(row),
        "plain": plain,
        "replica": limit,
        "stolen": [str(one) for one in STOLEN],
        "queries": len(connection.queries_log),
        "debug": connection.force_debug_cursor,
        "made_up": raw.adapters.types.get("made_up") is None,
        "zone": str(connection.timezone),
    }
    connections["replica"].close()
    return found
