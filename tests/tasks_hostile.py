"""Tasks that leave a mess, each in its own way, for the tests that nothing of it reaches the next task."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from django.conf import settings
from django.db import connection, connections, transaction
from django.utils import timezone, translation

from tests.tasks import note

OTHER = "initech_llc"
_kept: list[Any] = []


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def set_schema_and_no_reset() -> None:
    connection.set_schema(OTHER)
    _execute("SELECT 1")


def raw_search_path() -> None:
    _execute(f"SET search_path TO {OTHER}")


def raw_search_path_past_django() -> None:
    connection.ensure_connection()
    connection.connection.execute(f"SET search_path TO {OTHER}")


def set_role() -> None:
    _execute("SET ROLE pg_read_all_data")


def set_time_zone() -> None:
    _execute("SET TIME ZONE 'Asia/Tokyo'")


def set_statement_timeout() -> None:
    _execute("SET statement_timeout = 1")


def temporary_table() -> None:
    _execute("CREATE TEMPORARY TABLE django_q_task (id int)")


def advisory_lock() -> None:
    _execute("SELECT pg_advisory_lock(4711)")


def listen() -> None:
    _execute("LISTEN somebody_elses_news")


def open_atomic_of_a_generator() -> None:
    def generator() -> Any:
        with transaction.atomic():
            _execute("SELECT 1")
            yield

    kept = generator()
    next(kept)
    _kept.append(kept)


def raw_transaction() -> None:
    connection.ensure_connection()
    connection.connection.execute("BEGIN")


def transaction_in_error() -> None:
    kept = transaction.atomic()
    kept.__enter__()
    try:
        _execute("SELECT 1 / 0")
    except Exception:
        return


def autocommit_off() -> None:
    connection.set_autocommit(False)
    _execute("SELECT 1")


def transaction_elsewhere() -> None:
    transaction.atomic(using="elsewhere").__enter__()


def closed_within_a_transaction() -> None:
    transaction.atomic().__enter__()
    connection.close()


def transaction_past_the_driver() -> None:
    connection.ensure_connection()
    connection.connection.pgconn.exec_(b"BEGIN")


def holdable_cursor() -> None:
    _execute("DECLARE kept CURSOR WITH HOLD FOR SELECT 1")


def close_connection() -> None:
    connection.close()


def killed_backend() -> None:
    connection.ensure_connection()
    pid = connection.connection.info.backend_pid
    from tests.schemas import terminate

    terminate(pid)


def activate_language() -> None:
    translation.activate("de")


def activate_time_zone() -> None:
    timezone.activate("Asia/Tokyo")


def on_commit_not_run() -> None:
    connection.set_autocommit(False)
    waiting: list[Any] = connection.run_on_commit
    waiting.append((set(), lambda: note("hostile:on_commit"), False))


def thread_with_its_own_connection() -> None:
    def work() -> None:
        from tenant_q.tenancy import in_schema

        with in_schema(OTHER):
            _execute("SELECT 1")
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def timeout_in_a_query() -> None:
    _execute("SELECT pg_sleep(30)")


def savepoint_rolled_back() -> None:
    with transaction.atomic():
        try:
            with transaction.atomic():
                connection.set_schema(OTHER)
                _execute("SELECT 1")
                raise ValueError
        except ValueError:
            _execute("SELECT 1")


def ignore_signals() -> None:
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})


def change_the_tenant() -> None:
    connection.tenant.name = "changed by a task"


def server_side_cursor() -> None:
    from django_q.models import Task

    _kept.append(iter(Task.objects.iterator(chunk_size=1)))


HOSTILE = (
    set_schema_and_no_reset,
    raw_search_path,
    raw_search_path_past_django,
    set_role,
    set_time_zone,
    set_statement_timeout,
    temporary_table,
    advisory_lock,
    listen,
    open_atomic_of_a_generator,
    raw_transaction,
    transaction_in_error,
    autocommit_off,
    transaction_elsewhere,
    closed_within_a_transaction,
    transaction_past_the_driver,
    holdable_cursor,
    close_connection,
    killed_backend,
    activate_language,
    activate_time_zone,
    on_commit_not_run,
    thread_with_its_own_connection,
    timeout_in_a_query,
    savepoint_rolled_back,
    ignore_signals,
    change_the_tenant,
    server_side_cursor,
)


def look_around() -> dict[str, Any]:
    """All that a task can see of where it runs."""
    import signal

    raw = connection.connection
    status = raw.info.transaction_status.name if raw is not None else "IDLE"
    autocommit = connection.get_autocommit()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_schema(), current_setting('search_path'), current_user, current_setting('TimeZone'), "
            "current_setting('statement_timeout'), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
            "AND pid = pg_backend_pid()), (SELECT count(*) FROM pg_listening_channels()), "
            "(SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid)), "
            "(SELECT count(*) FROM pg_cursors WHERE is_holdable), session_user"
        )
        schema, path, user, zone, limit, locks, channels, temporary, cursors, session = cursor.fetchone()
    time.sleep(0.002)  # a statement_timeout of 1 ms left behind would have struck by now
    return {
        "schema": schema,
        "path": path.replace(" ", "").replace('"', ""),
        "is_own_user": user == session,
        "zone": zone,
        "statement_timeout": limit,
        "locks": locks,
        "channels": channels,
        "temporary": temporary,
        "cursors": cursors,
        "autocommit": autocommit,
        "status": status,
        "elsewhere": connections["elsewhere"].in_atomic_block,
        "in_atomic_block": connection.in_atomic_block,
        "on_commit": len(connection.run_on_commit),
        "tenant": connection.tenant.schema_name,
        "tenant_name": connection.tenant.name,
        "language": translation.get_language(),
        "time_zone": timezone.get_current_timezone_name(),
        "sigterm": callable(signal.getsignal(signal.SIGTERM)),
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "default_time_zone": settings.TIME_ZONE,
        "pid": os.getpid(),
    }
