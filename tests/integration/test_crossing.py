"""One tenant's task, hook, receiver or table reaches no other tenant's: the ways in which it once did."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.signals import connection_created
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext
from django_q.models import Schedule, Task
from django_q.signals import post_execute, pre_enqueue
from psycopg.rows import dict_row

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.checks import check_all, configuration_problems
from tenant_q.cluster import completer as completer_module
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.worker import Worker
from tenant_q.exceptions import DatabaseAway, EnqueueError, SchemaMissing, UnknownTenant
from tenant_q.lifecycle.retries import MOST_PUT_OFFS
from tenant_q.logging import TenantFilter
from tenant_q.package.build import build
from tenant_q.package.envelope import seal
from tenant_q.scrubbing import sessions
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.integration.conftest import know_as_short, make_due, redis_key, sql, work

pytestmark = pytest.mark.seam

HERE = __name__
LOOK = f"{HERE}.look"
FOLDS = not apps.is_installed("django_tenants")


# What a task finds


SEEN: list[Any] = []


def look() -> dict[str, Any]:
    """All of its session that another task, hook or receiver could have changed."""
    raw = connection.connection
    with psycopg.ClientCursor(raw) as cursor:  # before Django's, which sets the path anew
        raw_path = _values(cursor.execute("SELECT current_schemas(false)::text[]").fetchone())[0]
    found = {
        "raw_path": raw_path,
        "tenant": connection.schema_name,
        "status": raw.info.transaction_status.name,
        "autocommit": connection.get_autocommit(),
        "in_atomic_block": connection.in_atomic_block,
        "set_up_by": (
            raw.row_factory.__name__,
            raw.cursor_factory.__qualname__,
            raw.server_cursor_factory.__qualname__,
            raw.prepare_threshold,
        ),
        "wrappers": [wrapper.__name__ for wrapper in connection.execute_wrappers],
        "timer": signal.getitimer(signal.ITIMER_REAL)[0],
        "alarm": signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, signal.SIG_IGN),
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_schemas(false)::text[], current_user = session_user, current_setting('statement_timeout'), "
            "current_setting('lock_timeout'), (SELECT count(*) FROM pg_prepared_statements), current_setting('role')"
        )
        names = ("path", "is_own_user", "statement_timeout", "lock_timeout", "prepared", "role")
        found |= zip(names, cursor.fetchone(), strict=True)
    return found | look_in_transaction()


def _values(row: Any) -> list[Any]:
    """Those of a row, whatever a row is here."""
    return list(row.values() if isinstance(row, dict) else row)


def look_in_transaction() -> dict[str, Any]:
    with transaction.atomic(), connection.cursor() as cursor:
        names = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")
        cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
        return dict(zip(names, cursor.fetchone(), strict=True))


def clean(name: str) -> dict[str, Any]:
    """What it is to find."""
    fresh = connections.create_connection("default")
    fresh.ensure_connection()
    raw = fresh.connection
    fresh.close()
    return {
        "raw_path": [tenancy.physical_schema(name), "public"],
        "tenant": name,
        "status": "IDLE",
        "autocommit": True,
        "in_atomic_block": False,
        "set_up_by": (
            raw.row_factory.__name__,
            raw.cursor_factory.__qualname__,
            raw.server_cursor_factory.__qualname__,
            None,
        ),
        "wrappers": [],
        "timer": 0.0,
        "alarm": True,
        "path": [tenancy.physical_schema(name), "public"],
        "is_own_user": True,
        "statement_timeout": "0",
        "lock_timeout": "0",
        "prepared": 0,
        "role": "none",
        "transaction_isolation": "read committed",
        "transaction_read_only": "off",
        "transaction_deferrable": "off",
    }


@pytest.fixture(autouse=True)
def nothing_seen(tenants: tuple[str, ...], settings: Any) -> None:
    """No task has a timeout but those that say so."""
    SEEN.clear()
    settings.Q_CLUSTER = {name: value for name, value in settings.Q_CLUSTER.items() if name != "timeout"}


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """The log records of tenant_q."""
    found: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Handler()
    logger = logging.getLogger("tenant_q")
    before = logger.level
    logger.setLevel("INFO")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def newcomer(tenants: tuple[str, ...]) -> Iterator[str]:
    """A tenant that is the test's own, to be broken."""
    schemas.clone_tenants(["newcomer"])
    tenancy.forget_tenants()
    yield "newcomer"
    schemas.drop_tenant("newcomer")
    tenancy.forget_tenants()


@pytest.fixture
def public_tables(tenants: tuple[str, ...]) -> Iterator[None]:
    """Where `django_q` is in SHARED_APPS as well, what is missing in a tenant's schema is found in public."""
    for table in ("django_q_task", "django_q_schedule"):
        sql(f"CREATE TABLE public.{table} (LIKE acme_corp.{table} INCLUDING ALL)")
    yield
    sql("DROP TABLE public.django_q_task, public.django_q_schedule")


@contextlib.contextmanager
def listening(signal_: Any, receiver: Callable[..., Any], **options: Any) -> Iterator[None]:
    signal_.connect(receiver, **options)
    try:
        yield
    finally:
        signal_.disconnect(receiver, **options)


def add(schema: str, func: str, *args: Any, **keywords: Any) -> str:
    return QUtilities.add_async_task(func, *args, schema_name=schema, **keywords)


def result(id: str, schema: str) -> Any:
    return QUtilities.get_result(id, schema_name=schema)


def labels_of(record: logging.LogRecord) -> tuple[str, str, str]:
    return record.schema, record.task_id, record.func


def elsewhere(statement: str) -> list[tuple[Any, ...]]:
    """Run a statement in a session of its own, which sees only what is committed."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as raw:
        cursor = raw.execute(statement)
        return cursor.fetchall() if cursor.description else []


def seen_behind(worker: Worker, func: str, *, schema: str = "acme_corp", **keywords: Any) -> dict[str, Any]:
    """What two tasks find that run behind one, in the same batch: the same tenant's next, and another tenant's."""
    other = "globex_inc"
    know_as_short(func, schema)
    know_as_short(LOOK, schema, other)
    tasks.client().delete(redis_key("vtime"), redis_key("ring"))  # no turn is owed, so names decide
    before = worker.lifespan.started
    first = add(schema, func, **keywords)
    ids = {name: add(name, LOOK) for name in (schema, other)}
    worker.tick()
    assert worker.lifespan.started == before + 3, "all in one batch"
    begun = QUtilities.fetch_task(first, schema_name=schema)
    assert begun.success, begun.result
    rows = {name: QUtilities.fetch_task(id, schema_name=name) for name, id in ids.items()}
    assert all(row.started > begun.started for row in rows.values()), "both behind it"
    return {name: row.result for name, row in rows.items()}


def look_now(worker: Worker, *names: str) -> dict[str, Any]:
    """What tasks of these tenants find that are enqueued now."""
    know_as_short(LOOK, *names)
    ids = {name: add(name, LOOK) for name in names}
    work(worker)
    return {name: result(id, name) for name, id in ids.items()}


# Hooks


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def set_role_and_limit(task: Any = None) -> None:
    SEEN.append(("called", connection.schema_name))
    _execute("SET statement_timeout = 54321")
    _execute("SET ROLE pg_read_all_data")


def begin(task: Any = None) -> None:
    SEEN.append(("called", connection.schema_name))
    connection.ensure_connection()
    connection.connection.execute("BEGIN")
    connection.set_schema("initech_llc")


def write(task: Any = None) -> None:
    """Look, and write a row of the tenant's own."""
    SEEN.append(look())
    Schedule.objects.create(func="tests.tasks.add", name="made by a hook", repeats=0)


def endless(task: Any = None) -> None:
    SEEN.append("begun")
    threading.Event().wait()


@pytest.mark.parametrize("hook", [set_role_and_limit, begin], ids=lambda hook: hook.__name__)
@pytest.mark.parametrize("of", ["task", "iter"])
def test_nothing_of_a_hook_reaches_the_next_task(tenants, worker, of, hook):
    path = f"{HERE}.{hook.__name__}"
    if of == "iter":
        QUtilities.add_async_tasks_from_iter("tests.tasks.add", [1, 2], hook=path, schema_name="acme_corp")
    else:
        add("acme_corp", "tests.tasks.add", 1, hook=path)
    work(worker)
    assert SEEN == [("called", "acme_corp")]
    assert look_now(worker, "globex_inc", "acme_corp") == {name: clean(name) for name in ("acme_corp", "globex_inc")}


@pytest.mark.parametrize("hook", [set_role_and_limit, begin], ids=lambda hook: hook.__name__)
def test_hooks_of_two_tenants_in_one_batch(tenants, worker, hook):
    know_as_short("tests.tasks.add", "acme_corp", "globex_inc")
    add("acme_corp", "tests.tasks.add", 1, hook=f"{HERE}.{hook.__name__}")
    add("globex_inc", "tests.tasks.add", 2, hook=f"{HERE}.write")
    worker.tick()
    assert worker.lifespan.started == 2, "in one batch"
    called, seen = SEEN
    assert called == ("called", "acme_corp")
    assert seen == clean("globex_inc")
    assert elsewhere("SELECT name FROM globex_inc.django_q_schedule") == [("made by a hook",)]
    assert elsewhere("SELECT count(*) FROM initech_llc.django_q_schedule") == [(0,)]


def test_a_hook_is_not_called_in_public(newcomer, worker, records):
    """The tenant's schema was dropped when its task had run, and nothing of it is saved."""
    id = add(newcomer, "tests.tasks.add", 1, hook=f"{HERE}.write", save=False)
    other = add("acme_corp", "tests.tasks.add", 2)
    call_hooks = worker.completer._call_hooks

    def drop_first() -> None:
        if worker.completer._to_call:
            sql("DROP SCHEMA newcomer CASCADE")
        call_hooks()

    worker.completer._call_hooks = drop_first
    work(worker)
    assert SEEN == []
    (record,) = [record for record in records if "Did not call" in record.getMessage()]
    assert labels_of(record) == (newcomer, id, "tests.tasks.add")
    assert "The schema 'newcomer' does not exist" in record.getMessage()
    assert get_broker().counts().open == get_broker().counts().dead == 0
    assert result(other, "acme_corp") == 2


def test_a_hook_that_never_ends_is_ended(tenants, worker, records):
    id = add("acme_corp", "tests.tasks.add", 1, timeout=1, hook=f"{HERE}.endless")
    other = add("globex_inc", "tests.tasks.add", 2)
    work(worker)
    assert SEEN == ["begun"]
    (record,) = [record for record in records if "The hook of" in record.getMessage()]
    assert labels_of(record) == ("acme_corp", id, "tests.tasks.add")
    assert "exceeded maximum timeout value (1 seconds)" in str(record.exc_info[1])
    assert result(id, "acme_corp") == 1
    assert result(other, "globex_inc") == 2
    assert worker.slot.running is None


# Receivers


def test_nothing_of_a_receiver_of_post_execute_stays(tenants, worker):
    def receiver(task: dict[str, Any], **_: Any) -> None:
        set_role_and_limit() if task["schema_name"] == "acme_corp" else write()

    know_as_short("tests.tasks.add", "acme_corp", "globex_inc")
    with listening(post_execute, receiver):
        for name in ("acme_corp", "globex_inc"):
            add(name, "tests.tasks.add", 1)
        worker.tick()
        assert worker.lifespan.started == 2, "in one batch"
    assert SEEN[0] == ("called", "acme_corp")
    assert (SEEN[1]["is_own_user"], SEEN[1]["statement_timeout"]) == (True, "0")
    assert elsewhere("SELECT name FROM globex_inc.django_q_schedule") == [("made by a hook",)]
    assert look_now(worker, "globex_inc") == {"globex_inc": clean("globex_inc")}


def test_nothing_of_a_receiver_of_post_save_stays(tenants, worker):
    def receiver(**_: Any) -> None:
        SEEN.append(connection.schema_name)
        _execute("SET statement_timeout = 54321")
        _execute("SET lock_timeout = 54321")
        connection.connection.read_only = True

    with listening(post_save, receiver, sender=Task):
        id = add("acme_corp", "tests.tasks.add", 1)
        work(worker)
        assert SEEN == ["acme_corp"]
    assert result(id, "acme_corp") == 1
    assert look_now(worker, "globex_inc") == {"globex_inc": clean("globex_inc")}


def test_nothing_of_a_receiver_of_pre_enqueue_stays(tenants, worker):
    """The worker calls it for a chain's next link."""

    def receiver(task: dict[str, Any], **_: Any) -> None:
        set_role_and_limit()

    QUtilities.create_async_tasks_chain(["tests.tasks.nothing", "tests.tasks.nothing"], schema_name="acme_corp")
    with listening(pre_enqueue, receiver):
        worker.tick()
    assert len(SEEN) == 1
    assert look_now(worker, "globex_inc") == {"globex_inc": clean("globex_inc")}


def test_a_receiver_of_pre_enqueue_may_choose_another_tenant(tenants, worker):
    def receiver(task: dict[str, Any], **_: Any) -> None:
        task["schema_name"] = "globex_inc"

    with listening(pre_enqueue, receiver), in_schema("acme_corp"):
        id = QUtilities.add_async_task("tests.tasks.add", 1, 2)
    work(worker)
    assert result(id, "globex_inc") == 3
    assert result(id, "acme_corp") is None


@pytest.mark.parametrize("mess", ["BEGIN", "SET ROLE pg_read_all_data"])
def test_a_receiver_of_post_save_costs_no_other_tenant_its_row(tenants, worker, mess):
    """Outcomes of one batch are saved one after another: a later one is not to share what a receiver left."""

    def receiver(**_: Any) -> None:
        SEEN.append(connection.schema_name)
        if connection.schema_name == "acme_corp":
            connection.connection.execute(mess)

    know_as_short("tests.tasks.add", "acme_corp", "globex_inc")
    with listening(post_save, receiver, sender=Task):
        ids = {name: add(name, "tests.tasks.add", 1) for name in ("acme_corp", "globex_inc")}
        worker.tick()
        assert worker.lifespan.started == 2, "in one batch"
    assert SEEN == ["acme_corp", "globex_inc"]
    assert elsewhere("SELECT id FROM globex_inc.django_q_task") == [(ids["globex_inc"],)]


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
    _execute("PREPARE kept AS SELECT 1")


def isolation_level() -> None:
    connection.connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE


def read_only() -> None:
    connection.connection.read_only = True


def deferrable() -> None:
    connection.connection.deferrable = True


def transaction_defaults() -> None:
    _execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE")


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
        found = seen_behind(worker, f"{HERE}.{mess.__name__}")
        assert found == {name: clean(name) for name in found}


def test_an_alarm_of_a_task_without_a_timeout_ends_with_it(tenants, worker):
    found = seen_behind(worker, f"{HERE}.set_an_alarm")
    assert found == {name: clean(name) for name in found}
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def permanent(execute: Any, statement: Any, parameters: Any, many: bool, context: Any) -> Any:
    return execute(statement, parameters, many, context)


@pytest.mark.parametrize("mess", [add_a_wrapper, drop_all_wrappers, add_a_wrapper_and_close, raw_client_cursor])
def test_a_projects_own_wrappers_stay(tenants, worker, mess):
    connection.execute_wrappers.append(permanent)
    try:
        for _ in range(3):
            found = seen_behind(worker, f"{HERE}.{mess.__name__}")
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
                found = seen_behind(worker, f"{HERE}.prepare")
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
                id = add(name, f"{HERE}.wrappers_of_the_replica")
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
            for mess in ("raw_client_cursor", "row_factory", "prepare"):
                found = seen_behind(worker, f"{HERE}.{mess}")
                assert [seen["statement_timeout"] for seen in found.values()] == ["99s"] * 2
    finally:
        connections.close_all()


def test_the_role_that_a_project_assumes_is_there_for_each_task(tenants, worker, monkeypatch):
    (own,) = elsewhere("SELECT current_user")[0]
    connection.close()
    options = connection.settings_dict.get("OPTIONS", {})
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {**options, "assume_role": own})
    found = seen_behind(worker, f"{HERE}.raw_client_cursor")
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
        for mess in ("prepare", "read_only"):
            found = seen_behind(worker, f"{HERE}.{mess}")
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
            found = seen_behind(worker, f"{HERE}.select")
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


# Other databases


@pytest.mark.parametrize("alias", ["elsewhere", "nowhere"])
def test_a_database_that_does_not_switch_schemas_is_refused(tenants, alias):
    with pytest.raises(EnqueueError, match="must be aliases of databases with tenants: default, replica"):
        add("acme_corp", "tests.tasks.add", 1, q_options={"databases": ["default", alias]})
    assert get_broker().counts().open == 0


def test_a_setting_of_a_database_that_does_not_switch_schemas_is_a_problem(tenants, settings):
    settings.TENANT_Q = {"databases": ["elsewhere"]}
    found = configuration_problems()
    settings.TENANT_Q = {}
    assert [problem for problem in found if "names 'elsewhere', which does not switch schemas" in problem]


def test_a_replica_that_is_down_holds_up_its_own_tasks_alone(tenants, worker, monkeypatch):
    replica = connections["replica"]
    replica.close()
    with monkeypatch.context() as down:
        down.setitem(replica.settings_dict, "HOST", "127.0.0.1")
        down.setitem(replica.settings_dict, "PORT", "1")
        waiting = add("acme_corp", "tests.tasks.add", 1, q_options={"databases": ["replica"]})
        for n in range(MOST_PUT_OFFS + 3):
            other = add("globex_inc", "tests.tasks.add", n)
            make_due()
            work(worker)
            assert result(other, "globex_inc") == n
        assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0)
    make_due()
    work(worker)
    assert result(waiting, "acme_corp") == 1


# The project's own say in which tenants are ready


def only_acme(tenants: Any) -> Any:
    return tenants.filter(schema_name="acme_corp")


def ready_raises(tenants: Any) -> Any:
    raise ValueError("no plan")


def ready_asks_amiss(tenants: Any) -> Any:
    return tenants.extra(where=["no_such_column"])


@pytest.mark.parametrize("path", ["no.such.function", "tests.tasks.no_such", f"{HERE}.HERE"])
def test_ready_tenants_that_is_no_function_is_a_problem(tenants, settings, path):
    settings.TENANT_Q = {"ready_tenants": path}
    assert [message.id for message in check_all() if message.is_serious()] == ["tenant_q.E008"]


@pytest.mark.parametrize("path", ["no.such.function", f"{HERE}.ready_raises", f"{HERE}.ready_asks_amiss"])
def test_ready_tenants_that_fails_puts_off_and_buries_nothing(tenants, worker, scheduler, settings, path):
    id = add("acme_corp", "tests.tasks.add", 1)
    QUtilities.create_schedule("tests.tasks.add", 2, name="fired", schema_name="acme_corp")
    tenancy.forget_tenants()
    settings.TENANT_Q = {"ready_tenants": path}
    for _ in range(MOST_PUT_OFFS + 3):
        make_due()
        work(worker)
        scheduler.tick()
    assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0)
    assert result(id, "acme_corp") is None
    settings.TENANT_Q = {}
    make_due()
    again = Scheduler(worker.slot)
    again.tick()
    again.stopping.restore()
    work(worker)
    assert result(id, "acme_corp") == 1
    assert QUtilities.get_result_group("fired", schema_name="acme_corp") == [2]


def test_a_tenant_held_back_can_be_enqueued_for_and_asked(tenants, worker, settings):
    settings.TENANT_Q = {"ready_tenants": f"{HERE}.only_acme"}
    tenancy.forget_tenants()
    id = add("globex_inc", "tests.tasks.add", 1)
    assert result(id, "globex_inc") is None
    with in_schema("globex_inc"):
        assert QUtilities.get_result(id) is None
    assert QUtilities.get_queue_size(schema_name="globex_inc") == 1
    work(worker)
    assert result(id, "globex_inc") is None
    settings.TENANT_Q = {}
    make_due()
    work(worker)
    assert result(id, "globex_inc") == 1


# Broken tables


def test_a_tenant_whose_task_table_lacks_a_column_is_waited_for(newcomer, worker):
    sql("ALTER TABLE newcomer.django_q_task DROP COLUMN attempt_count")
    id = add(newcomer, f"{HERE}.note_in_seen")
    other = add("acme_corp", "tests.tasks.add", 2)
    for _ in range(MOST_PUT_OFFS + 3):
        make_due()
        work(worker)
    assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0)
    assert SEEN == []
    assert result(other, "acme_corp") == 2
    sql("ALTER TABLE newcomer.django_q_task ADD COLUMN attempt_count integer NOT NULL DEFAULT 0")
    make_due()
    work(worker)
    assert [newcomer] == SEEN
    assert QUtilities.fetch_task(id, schema_name=newcomer).success


def note_in_seen() -> None:
    SEEN.append(connection.schema_name)


RAISING_VIEW = """
    ALTER TABLE newcomer.{table} RENAME TO whole;
    CREATE FUNCTION newcomer.boom() RETURNS SETOF newcomer.whole LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'boom'; END $$;
    CREATE VIEW newcomer.{table} AS SELECT * FROM newcomer.boom();
"""


def test_a_tenant_whose_task_table_cannot_be_read_is_put_off(newcomer, worker):
    id = add(newcomer, f"{HERE}.note_in_seen")
    get_broker().fetch("gone")
    get_broker().reclaim("gone", running=None)  # whether a redelivered package has succeeded is asked of the table
    sql(RAISING_VIEW.format(table="django_q_task"))
    for n in range(3):
        other = add("acme_corp", "tests.tasks.add", n)
        make_due()
        work(worker)
        assert result(other, "acme_corp") == n
    assert get_broker().counts().delayed == 1
    assert SEEN == []
    sql("DROP VIEW newcomer.django_q_task; ALTER TABLE newcomer.whole RENAME TO django_q_task")
    make_due()
    work(worker)
    assert [newcomer] == SEEN
    assert QUtilities.fetch_task(id, schema_name=newcomer).success


@pytest.mark.parametrize(
    "breakage",
    [
        "ALTER TABLE newcomer.django_q_schedule ALTER repeats TYPE text",
        RAISING_VIEW.format(table="django_q_schedule"),
        "ALTER TABLE newcomer.django_q_schedule RENAME TO whole; "
        "CREATE INDEX django_q_schedule ON newcomer.whole (func)",
    ],
    ids=["repeats as text", "a view that raises", "an index of that name"],
)
def test_a_broken_table_of_schedules_is_told_once(newcomer, worker, scheduler, records, breakage):
    scheduler.tick()  # that the table is broken later is not what the look at the start finds
    QUtilities.create_schedule("tests.tasks.add", 0, schema_name=newcomer)
    QUtilities.create_schedule("tests.tasks.add", 1, name="fired", schema_name="acme_corp")
    sql(breakage)
    for _ in range(3):
        scheduler.tick()
    work(worker)
    assert QUtilities.get_result_group("fired", schema_name="acme_corp") == [1]
    told = [record.schema for record in records if record.levelno >= logging.WARNING]
    assert told == [newcomer]


# A tenant whose schema is gone, in the caller's own process


def test_sync_mode_is_not_run_in_public(newcomer, public_tables):
    with in_schema(newcomer):
        sql("DROP SCHEMA newcomer CASCADE")
        with pytest.raises(SchemaMissing, match="'newcomer' does not exist"):
            add(newcomer, f"{HERE}.note_in_seen", sync=True)
    with pytest.raises(SchemaMissing):
        QUtilities.create_async_tasks_chain([(f"{HERE}.note_in_seen", ())], sync=True, schema_name=newcomer)
    assert SEEN == []
    assert sql("SELECT count(*) FROM public.django_q_task") == [(0,)]


@pytest.mark.parametrize(
    "call",
    [
        lambda **where: QUtilities.create_schedule("tests.tasks.add", 1, **where),
        lambda **where: QUtilities.fetch_task("a" * 32, **where),
        lambda **where: QUtilities.get_result("public's name", **where),
        lambda **where: QUtilities.fetch_task_group("public's group", **where),
        lambda **where: QUtilities.get_group_count("public's group", **where),
        lambda **where: QUtilities.delete_task_group("public's group", **where),
        lambda **where: QUtilities.delete_task_group("public's group", tasks=True, **where),
    ],
    ids=["create_schedule", "fetch_task", "get_result", "fetch_task_group", "count", "ungroup", "delete"],
)
@pytest.mark.parametrize("how", ["schema_name", "current"])
def test_calls_for_a_tenant_whose_schema_is_gone_touch_nothing_in_public(newcomer, public_tables, call, how):
    sql(
        'INSERT INTO public.django_q_task (id, name, func, "group", started, stopped, success, attempt_count) VALUES '
        f"('{'a' * 32}', 'public''s name', 'f', 'public''s group', now(), now(), true, 1)"
    )
    tenancy.get_tenant(newcomer)
    sql("DROP SCHEMA newcomer CASCADE")
    if how == "schema_name":
        with pytest.raises(SchemaMissing):
            call(schema_name=newcomer)
    else:
        with in_schema(newcomer), pytest.raises(SchemaMissing):
            call()
    assert elsewhere('SELECT "group" FROM public.django_q_task') == [("public's group",)]
    assert elsewhere("SELECT count(*) FROM public.django_q_schedule") == [(0,)]


# Names with capitals


@contextlib.contextmanager
def tenant_rows(*names: str) -> Iterator[None]:
    """Tenants without schemas of their own."""
    model = tenancy.tenant_model()
    connection.set_schema_to_public()
    model.objects.bulk_create(model(schema_name=name, name=name, **schemas.domain_of(model, name)) for name in names)
    tenancy.forget_tenants()
    try:
        yield
    finally:
        table = model._meta.db_table
        for name in names:
            sql(f"DELETE FROM {table} WHERE schema_name = %s", name)
        tenancy.forget_tenants()


def smuggle(schema: str, func: str) -> str:
    """Put a task on a tenant's queue, past all that looks whether it is there."""
    package = build(func, (), {}, schema=schema)
    get_broker().enqueue([Message(package.id, schema, func, seal(package))])
    return package.id


@pytest.mark.skipif(not FOLDS, reason="django-tenants quotes names")
def test_a_tenant_whose_name_folds_to_anothers_is_refused(tenants, worker, scheduler):
    QUtilities.create_schedule("tests.tasks.own_schema", name="fired", schema_name="acme_corp")
    with tenant_rows("Acme_Corp"):
        for call in (
            lambda: add("Acme_Corp", f"{HERE}.note_in_seen"),
            lambda: add("Acme_Corp", f"{HERE}.note_in_seen", sync=True),
            lambda: result("a" * 32, "Acme_Corp"),
            lambda: QUtilities.create_schedule("tests.tasks.add", 1, schema_name="Acme_Corp"),
        ):
            with pytest.raises(UnknownTenant, match="Tenant 'Acme_Corp' shares the schema 'acme_corp' with another"):
                call()
        smuggle("Acme_Corp", f"{HERE}.note_in_seen")
        scheduler.tick()
        work(worker)
        assert get_broker().counts().delayed == 1
        assert SEEN == []
        assert QUtilities.get_result_group("fired", schema_name="acme_corp") == ["acme_corp"]
        assert schemas.count_tasks("acme_corp") == 1


@pytest.mark.skipif(not FOLDS, reason="django-tenants quotes names")
def test_two_tenants_whose_names_fold_to_one_schema_are_refused(newcomer, worker):
    """Neither of them is the folded name itself."""
    schemas.clone_tenants(["CamelCase"])
    try:
        with tenant_rows("Camelcase"):
            with pytest.raises(UnknownTenant):
                add("Camelcase", f"{HERE}.note_in_seen")
            smuggle("Camelcase", f"{HERE}.note_in_seen")
            work(worker)
            assert SEEN == []
    finally:
        schemas.drop_tenant("CamelCase")


@pytest.mark.parametrize(
    "hostile", ["raw_search_path", "set_role", "temporary_table", "raw_transaction", "change_the_tenant"]
)
def test_a_tenant_with_capitals_leaves_nothing(tenants, worker, hostile):
    schemas.clone_tenants(["CamelCase"])
    tenancy.forget_tenants()
    try:
        found = seen_behind(worker, f"tests.tasks_hostile.{hostile}", schema="CamelCase")
        assert found == {name: clean(name) for name in ("CamelCase", "globex_inc")}
        assert elsewhere("SELECT count(*) FROM public.customers_customer WHERE name = 'changed by a task'") == [(0,)]
    finally:
        schemas.drop_tenant("CamelCase")
        tenancy.forget_tenants()


# The tenant's row


def change_the_plan() -> Any:
    plan = connection.tenant.plan
    SEEN.append((connection.schema_name, repr(plan)))
    plan["seats"].append("stolen")
    plan["is"] = "gold"


def test_what_a_task_changes_in_its_tenants_row_is_gone(tenants, worker):
    """As a JSON field would hold it; the test project's tenant has none."""
    know_as_short(f"{HERE}.change_the_plan", "acme_corp")
    tenancy.get_tenant("acme_corp")
    tenancy.tenants._known["acme_corp"].tenant.plan = {"is": "free", "seats": [1]}
    for _ in range(3):
        add("acme_corp", f"{HERE}.change_the_plan")
    work(worker)
    assert SEEN == [("acme_corp", "{'is': 'free', 'seats': [1]}")] * 3


def test_a_tenant_that_is_gone_is_not_found_in_the_cache(newcomer, worker):
    tenancy.get_tenant(newcomer)
    know_as_short(f"{HERE}.note_in_seen", newcomer)
    asks_anew = add(newcomer, f"{HERE}.note_in_seen", q_options={"tenant_cache_seconds": 0})
    sql(f"DELETE FROM {tenancy.tenant_model()._meta.db_table} WHERE schema_name = %s", newcomer)
    worker.tick()
    assert get_broker().counts().delayed == 1, asks_anew
    smuggle(newcomer, f"{HERE}.note_in_seen")
    worker.tick()
    assert get_broker().counts().delayed == 2, "neither does the next one run, which would look into the cache"
    assert SEEN == []
    with pytest.raises(UnknownTenant):
        tenancy.get_tenant(newcomer)


def test_a_schema_that_no_tenant_has_is_not_enqueued_for(tenants, worker):
    """`set_schema()` takes any name, and makes no tenant of it."""
    connection.set_schema("acme_corp")
    id = QUtilities.add_async_task("tests.tasks.where")
    connection.set_schema("no_such")
    with pytest.raises(UnknownTenant, match="No tenant has the schema name 'no_such'"):
        QUtilities.add_async_task("tests.tasks.where")
    with pytest.raises(UnknownTenant):
        QUtilities.get_result("a" * 32)
    connection.set_schema_to_public()
    assert get_broker().counts().queued == 1
    work(worker)
    assert result(id, "acme_corp")["schema"] == "acme_corp"


# What the log says


def test_a_connection_that_is_closed_names_the_task_that_left_it_so(tenants, worker, records):
    know_as_short(f"{HERE}.begin", "acme_corp")
    know_as_short("tests.tasks.add", "acme_corp")
    id = add("acme_corp", f"{HERE}.begin")
    add("acme_corp", "tests.tasks.add", 1)
    worker.tick()
    (record,) = [record for record in records if "is closed" in record.getMessage()]
    assert record.name == "tenant_q.session"
    assert labels_of(record) == ("acme_corp", id, f"{HERE}.begin")


def test_a_connection_that_a_hook_left_so_names_its_task(tenants, worker, records):
    id = add("acme_corp", "tests.tasks.add", 1, hook=f"{HERE}.begin")
    work(worker)
    (record,) = [record for record in records if "is closed" in record.getMessage()]
    assert labels_of(record) == ("acme_corp", id, "tests.tasks.add")


def test_a_buried_package_is_named(tenants, worker, records):
    id = smuggle("nobody", f"{HERE}.note_in_seen")
    for _ in range(MOST_PUT_OFFS + 1):
        make_due()
        work(worker)
    (dead,) = get_broker().dead()
    assert dead.id == id
    (record,) = [record for record in records if record.levelno == logging.ERROR]
    assert "is given up: UnknownTenant" in record.getMessage()
    assert labels_of(record) == ("nobody", id, f"{HERE}.note_in_seen")


def log_a_line(task: Any) -> None:
    logging.getLogger(HERE).warning("from the hook")


def test_a_hooks_own_records_carry_its_task(tenants, worker):
    found: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Handler()
    handler.addFilter(TenantFilter())
    logging.getLogger(HERE).addHandler(handler)
    try:
        know_as_short("tests.tasks.add", "acme_corp", "globex_inc")
        ids = {name: add(name, "tests.tasks.add", 1, hook=f"{HERE}.log_a_line") for name in tenants[:2]}
        worker.tick()
        logging.getLogger(HERE).warning("outside")
    finally:
        logging.getLogger(HERE).removeHandler(handler)
    assert [labels_of(record) for record in found] == [
        *((name, id, "tests.tasks.add") for name, id in ids.items()),
        ("public", "-", "-"),
    ]


# Guards inside a batch


@pytest.fixture
def flushed_at_once(monkeypatch) -> None:
    """Each outcome is settled before the batch's next task."""
    monkeypatch.setattr(completer_module, "FLUSH_SECONDS", -1)


def test_a_task_behind_a_flush_is_in_its_schema(tenants, worker, flushed_at_once):
    """What was settled before it left no tenant current, and may have called hooks."""
    know_as_short("tests.tasks.add", "acme_corp")
    know_as_short(LOOK, "acme_corp")
    add("acme_corp", "tests.tasks.add", 1, hook=f"{HERE}.begin")
    id = add("acme_corp", LOOK)
    worker.tick()
    assert worker.lifespan.started == 2, "in one batch"
    assert SEEN == [("called", "acme_corp")]
    assert result(id, "acme_corp") == clean("acme_corp")


def test_a_task_behind_a_flush_that_uses_no_session_costs_no_statement(tenants, worker, flushed_at_once, monkeypatch):
    scrubbed: list[Any] = []
    monkeypatch.setattr(sessions, "_scrub", lambda *args: scrubbed.append(args))
    know_as_short("tests.tasks.add", "acme_corp")
    ids = [add("acme_corp", "tests.tasks.add", n) for n in range(4)]
    worker.tick()
    assert worker.lifespan.started == 4, "in one batch"
    assert [result(id, "acme_corp") for id in ids] == [0, 1, 2, 3]
    assert scrubbed == []


def test_a_hook_that_uses_no_session_costs_no_statement(tenants, worker, monkeypatch):
    scrubbed: list[Any] = []
    monkeypatch.setattr(sessions, "_scrub", lambda *args: scrubbed.append(args))
    add("acme_corp", "tests.tasks.add", 1, hook=f"{HERE}.note_its_name")
    work(worker)
    assert SEEN == ["tests.tasks.add"]
    assert scrubbed == []


def note_its_name(task: Task) -> None:
    SEEN.append(task.func)


def test_a_task_behind_a_flush_keeps_the_projects_wrappers(tenants, worker, flushed_at_once):
    connection.execute_wrappers.append(permanent)
    try:
        know_as_short("tests.tasks.add", "acme_corp")
        know_as_short(LOOK, "acme_corp")
        add("acme_corp", "tests.tasks.add", 1, hook=f"{HERE}.begin")
        id = add("acme_corp", LOOK)
        worker.tick()
        assert result(id, "acme_corp")["wrappers"] == ["permanent"]
    finally:
        connection.execute_wrappers = []


def test_a_tenant_whose_task_table_stays_locked_is_never_buried(tenants, worker, monkeypatch):
    monkeypatch.setattr(tenancy.connection, "LOCK_MS", 10)
    id = add("acme_corp", f"{HERE}.note_in_seen")
    get_broker().fetch("gone")
    get_broker().reclaim("gone", running=None)
    with psycopg.connect(os.environ["DATABASE_URL"]) as locker:
        locker.execute("LOCK TABLE acme_corp.django_q_task")
        for n in range(MOST_PUT_OFFS + 3):
            other = add("globex_inc", "tests.tasks.add", n)
            make_due()
            work(worker)
            assert result(other, "globex_inc") == n
        assert (get_broker().counts().delayed, get_broker().counts().dead) == (1, 0)
        assert SEEN == []
        locker.rollback()
    make_due()
    work(worker)
    assert SEEN == ["acme_corp"]
    assert QUtilities.fetch_task(id, schema_name="acme_corp").success


def test_an_error_in_a_callers_transaction_costs_it_nothing(tenants):
    """A session in a failed transaction answers nothing, and is not lost for that: its owner rolls it back."""
    connection.ensure_connection()
    raw = connection.connection
    with pytest.raises(DatabaseError), transaction.atomic():
        with pytest.raises(DatabaseError):
            _execute("SELECT 1 / 0")
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
