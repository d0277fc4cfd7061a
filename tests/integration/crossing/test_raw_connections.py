"""What a task does to Django's connection, or to the driver's below it, ends with the task."""

from __future__ import annotations

import signal
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.signals import connection_created
from django.test.utils import CaptureQueriesContext
from psycopg.rows import dict_row

from tenant_q import tenancy
from tenant_q.exceptions import DatabaseAway
from tenant_q.utils import QUtilities
from tests.integration.conftest import sql, work
from tests.integration.crossing.conftest import (
    add,
    clean,
    elsewhere,
    execute,
    listening,
    look_in_transaction,
    path_of,
    permanent,
    result,
    seen_behind,
)

pytestmark = pytest.mark.seam


# Raw connections


def raw_client_cursor() -> None:
    psycopg.ClientCursor(connection.connection).execute("SET statement_timeout = 54321; SET ROLE pg_read_all_data")


def ask_about_another_tenant() -> None:
    """The check of its schema goes past the cursors of Django and of the driver."""
    QUtilities.get_progress("f" * 32, schema_name="globex_inc")
    QUtilities.get_queue_size(schema_name="globex_inc")
    QUtilities.get_result("f" * 32, cached=True, schema_name="globex_inc")


def row_factory() -> None:
    connection.connection.row_factory = dict_row


def cursor_factory() -> None:
    connection.connection.cursor_factory = psycopg.RawCursor


def server_cursor_factory() -> None:
    connection.connection.server_cursor_factory = psycopg.RawServerCursor


def prepare_threshold() -> None:
    connection.connection.prepare_threshold = 0


def prepare_by_the_driver() -> None:
    """What the driver has prepared it asks for by name, in this session, as long as it knows of it."""
    raw = connection.connection
    raw.prepare_threshold = 0
    psycopg.Cursor(raw).execute("SELECT 1")
    raw.prepare_threshold = None


def prepare() -> None:
    execute("PREPARE kept AS SELECT 1")


def isolation_level() -> None:
    connection.connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE


def read_only() -> None:
    connection.connection.read_only = True


def deferrable() -> None:
    connection.connection.deferrable = True


def transaction_defaults() -> None:
    execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE")


def ring_for_acme(*_: Any) -> None:
    raise RuntimeError("acme's alarm")


def set_an_alarm() -> None:
    signal.signal(signal.SIGALRM, ring_for_acme)
    signal.setitimer(signal.ITIMER_REAL, 60)


def _own_wrapper(execute: Any, statement: Any, parameters: Any, many: bool, context: Any) -> Any:
    return execute(statement, parameters, many, context)


def add_a_wrapper() -> None:
    connection.execute_wrappers.append(_own_wrapper)


def drop_all_wrappers() -> None:
    connection.execute_wrappers.clear()


def add_a_wrapper_and_close() -> None:
    connection.execute_wrappers.append(_own_wrapper)
    connection.close()


MESSES = (
    raw_client_cursor,
    ask_about_another_tenant,
    row_factory,
    cursor_factory,
    server_cursor_factory,
    prepare_threshold,
    prepare_by_the_driver,
    prepare,
    isolation_level,
    read_only,
    deferrable,
    transaction_defaults,
    add_a_wrapper,
)


@pytest.mark.parametrize("mess", MESSES, ids=lambda mess: mess.__name__)
def test_nothing_of_a_raw_connection_reaches_the_next_task(tenants, worker, mess):
    for _ in range(2):  # before the first scrub, and after it
        found = seen_behind(worker, path_of(mess))
        assert found == {name: clean(name) for name in found}


def test_an_alarm_of_a_task_without_a_timeout_ends_with_it(tenants, worker):
    found = seen_behind(worker, path_of(set_an_alarm))
    assert found == {name: clean(name) for name in found}
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("mess", [add_a_wrapper, drop_all_wrappers, add_a_wrapper_and_close, raw_client_cursor])
def test_a_projects_own_wrappers_stay(tenants, worker, mess):
    connection.execute_wrappers.append(permanent)
    try:
        for _ in range(3):
            found = seen_behind(worker, path_of(mess))
            assert [seen["wrappers"] for seen in found.values()] == [["permanent"]] * 2
    finally:
        connection.execute_wrappers = []


def test_a_projects_own_wrappers_of_a_database_not_used_yet_stay(tenants, worker):
    replica = connections["replica"]
    replica.close()
    replica.execute_wrappers.append(permanent)
    try:
        add("acme_corp", "tests.tasks.where_everywhere")
        add("globex_inc", "tests.tasks.where")
        work(worker)
        assert replica.execute_wrappers == [permanent]
    finally:
        replica.execute_wrappers = []


def test_a_wrapper_that_comes_with_each_connection_is_there_once(tenants, worker):
    def receiver(connection: Any, **_: Any) -> None:
        if permanent not in connection.execute_wrappers or connection.alias == "default":
            connection.execute_wrappers.append(permanent)

    connections.close_all()
    connection.execute_wrappers = []
    try:
        with listening(connection_created, receiver):
            for _ in range(3):
                found = seen_behind(worker, path_of(prepare))
                assert [seen["wrappers"] for seen in found.values()] == [["permanent"]] * 2
    finally:
        connections.close_all()
        connection.execute_wrappers = []


def wrappers_of_the_replica() -> list[str]:
    connections["replica"].ensure_connection()
    return [wrapper.__name__ for wrapper in connections["replica"].execute_wrappers]


def test_a_wrapper_that_comes_with_a_connection_that_a_task_opened_stays(tenants, worker):
    def receiver(connection: Any, **_: Any) -> None:
        if permanent not in connection.execute_wrappers:
            connection.execute_wrappers.append(permanent)

    connections.close_all()
    try:
        with listening(connection_created, receiver):
            for name in ("acme_corp", "globex_inc", "acme_corp"):
                id = add(name, path_of(wrappers_of_the_replica))
                work(worker)
                assert result(id, name) == ["permanent"]
    finally:
        connections.close_all()
        for one in connections.all():
            one.execute_wrappers = []


def test_what_a_project_sets_in_each_new_connection_is_there_for_each_task(tenants, worker):
    def receiver(connection: Any, **_: Any) -> None:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET statement_timeout = '99s'")

    connections.close_all()
    try:
        with listening(connection_created, receiver):
            for mess in (raw_client_cursor, row_factory, prepare):
                found = seen_behind(worker, path_of(mess))
                assert [seen["statement_timeout"] for seen in found.values()] == ["99s"] * 2
    finally:
        connections.close_all()


def test_the_role_that_a_project_assumes_is_there_for_each_task(tenants, worker, monkeypatch):
    (own,) = elsewhere("SELECT current_user")[0]
    connection.close()
    options = connection.settings_dict.get("OPTIONS", {})
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {**options, "assume_role": own})
    found = seen_behind(worker, path_of(raw_client_cursor))
    assert [(seen["role"], seen["statement_timeout"]) for seen in found.values()] == [(own, "0")] * 2
    connections.close_all()


@pytest.mark.parametrize("how", ["isolation_level", "options"])
def test_the_isolation_that_a_project_sets_is_there_for_each_task(tenants, worker, monkeypatch, how):
    value = (
        {"isolation_level": psycopg.IsolationLevel.REPEATABLE_READ}
        if how == "isolation_level"
        else {"options": "-c default_transaction_isolation=repeatable\\ read"}
    )
    connection.close()
    options = connection.settings_dict.get("OPTIONS", {})
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {**options, **value})
    try:
        assert look_in_transaction()["transaction_isolation"] == "repeatable read"
        for mess in (prepare, read_only):
            found = seen_behind(worker, path_of(mess))
            kept = {
                name: (seen["transaction_isolation"], seen["transaction_read_only"]) for name, seen in found.items()
            }
            assert kept == dict.fromkeys(found, ("repeatable read", "off"))
    finally:
        connections.close_all()


def test_a_projects_prepared_statements_are_prepared_for_each_task(tenants, worker, monkeypatch):
    """What the driver has prepared is gone with the scrub, so it is not to believe in it any more."""
    connection.close()
    options = connection.settings_dict.get("OPTIONS", {})
    own = {**options, "prepare_threshold": 0, "server_side_binding": True}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", own)
    try:
        for _ in range(2):
            found = seen_behind(worker, path_of(select))
            assert {name: seen["tenant"] for name, seen in found.items()} == {name: name for name in found}
    finally:
        connections.close_all()


def select() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::int", [1])


def test_a_process_of_the_cluster_keeps_no_pool(tenants, monkeypatch):
    """It would hand what a task left in a session on to the next."""
    connections.close_all()
    for one in connections.all():
        monkeypatch.setitem(one.settings_dict, "CONN_MAX_AGE", one.settings_dict["CONN_MAX_AGE"])
        options = one.settings_dict.get("OPTIONS", {})
        with_pool = {**options, "pool": {"min_size": 1}} if one.vendor == "postgresql" else dict(options)
        monkeypatch.setitem(one.settings_dict, "OPTIONS", with_pool)
        monkeypatch.setattr(one, "close_at", one.close_at)
    tenancy.keep_connections_open()
    for one in connections.all():
        assert "pool" not in one.settings_dict["OPTIONS"]
        assert one.settings_dict["CONN_MAX_AGE"] is None
    assert connection.pool is None
    assert connections["replica"].pool is None
    connection.ensure_connection()
    assert sql("SELECT 1") == [(1,)]
    connections.close_all()


def test_an_error_in_a_callers_transaction_costs_it_nothing(tenants):
    """A session in a failed transaction answers nothing, and is not lost for that: its owner rolls it back."""
    connection.ensure_connection()
    raw = connection.connection
    with pytest.raises(DatabaseError), transaction.atomic():
        with pytest.raises(DatabaseError):
            execute("SELECT 1 / 0")
        tenancy.forget_tenants()
        with pytest.raises(tenancy.DATABASE_ERRORS) as found:
            result("a" * 32, "globex_inc")
        assert not isinstance(found.value, DatabaseAway)
        assert connection.connection is raw
        assert connection.in_atomic_block
        raise DatabaseError("to the caller")
    assert connection.connection is raw
    with CaptureQueriesContext(connection) as asked:
        assert result("a" * 32, "globex_inc") is None
    assert len(asked) > 0
