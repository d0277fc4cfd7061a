"""A session of PostgreSQL that is silent and stays open: each request has a limit, and nothing is lost by it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, OperationalError, connection, connections

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster import preflight, scheduler_firing
from tenant_q.cluster.role import Role
from tenant_q.exceptions import DatabaseAway, TenantQError
from tenant_q.lifecycle import prune_results
from tenant_q.schedules import due_index, index_upkeep
from tenant_q.tenancy import wait_limits
from tenant_q.utils import QUtilities
from tests import schemas
from tests.conftest import wait_until
from tests.integration.conftest import make_due, sql, work
from tests.integration.planning import PAST, elsewhere, insert
from tests.postgres_proxy import ANSWER, REQUEST, Proxy

# Seconds after which a silent session is dropped in these tests. A busy machine takes a while for an answer, too.
LIMIT = 1.0
EFFECT = f"{__name__}.take_effect"


IN_TASK = [False]


def take_effect() -> None:
    IN_TASK[0] = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO frozen_effect VALUES (1)")
    finally:
        IN_TASK[0] = False


def sleep_in_the_database(seconds: float) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])
    return "slept"


@pytest.fixture
def spares(tenants) -> Iterator[list[str]]:
    names = [f"spare_{number}" for number in range(scheduler_firing.FEW + 1)]
    schemas.clone_tenants(names)
    yield names
    for name in names:
        schemas.drop_tenant(name)
    tenancy.forget_tenants()
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())


@pytest.fixture
def proxy(tenants, monkeypatch) -> Iterator[Proxy]:
    """In front of PostgreSQL for this process, which waits for answers as a process of the cluster, and less long."""
    sql("CREATE TABLE acme_corp.frozen_effect (n int)")
    proxy = Proxy()
    connections.close_all()
    settings = connection.settings_dict
    options = {k: v for k, v in settings["OPTIONS"].items() if k not in ("host", "port")}
    options["connect_timeout"] = 2  # the driver's least
    with monkeypatch.context() as patch:
        patch.setitem(settings, "HOST", "127.0.0.1")
        patch.setitem(settings, "PORT", str(proxy.port))
        patch.setitem(settings, "OPTIONS", options)
        patch.setattr(wait_limits, "ANSWER_SECONDS", LIMIT)
        wait_limits.install()
        yield proxy
        proxy.choose = lambda _: None
        wait_limits.uninstall()
        connections.close_all()
    proxy.stop()
    sql("DROP TABLE acme_corp.frozen_effect")


def nth(number: int, what: str, *, opening: bool = False) -> Callable[[bytes], str | None]:
    """Freeze the session at a given request of the cluster, counted without the task's own.

    Parameters: `opening`, whether what opens a session is counted: the driver waits at least two seconds there.
    """
    left = [number]

    def choose(data: bytes) -> str | None:
        if IN_TASK[0] or (data[:1] == b"\0" and not opening):
            return None
        left[0] -= 1
        return what if left[0] == 0 else None

    return choose


def tick(role: Role) -> None:
    """One round as the role's own loop does it: through an outage."""
    begun = time.monotonic()
    role._tick_through_outage()
    assert time.monotonic() - begun < 10, "it may have several sessions, and wait for each"


# What is limited


def test_the_wait_for_an_answer_has_a_limit(proxy):
    connection.ensure_connection()
    proxy.choose = nth(1, REQUEST)
    with pytest.raises(DatabaseAway, match=f"the server has not answered for {LIMIT:g} s, so the session is dropped"):
        prune_results.prune("acme_corp")
    (frozen,) = proxy.frozen()
    proxy.choose = lambda _: None
    prune_results.prune("acme_corp")
    assert connection.connection is not None
    assert frozen.closed_at is not None, "the socket is closed at once"


def test_a_server_that_is_slow_and_sends_something_is_waited_for(proxy):
    with connection.cursor() as cursor:
        for _ in range(3):
            cursor.execute("SELECT pg_sleep(%s)", [LIMIT / 2])
        # Each row comes by itself, since the proxy's server flushes what is large.
        cursor.execute("SELECT repeat('x', 100000), pg_sleep(%s) FROM generate_series(1, 4)", [LIMIT / 2])
        assert len(cursor.fetchall()) == 4


def test_a_new_session_that_is_silent_has_a_limit(proxy):
    """Django speaks to the server before anybody sees the session."""
    for number in range(1, 12):
        connection.close()
        proxy.choose = nth(number, REQUEST, opening=True)
        begun = len(proxy.frozen())
        try:
            with tenancy.detect_outages(), tenancy.in_verified_schema("acme_corp"):
                pass
        except DatabaseAway:
            assert len(proxy.frozen()) == begun + 1
        else:
            break
    else:
        raise AssertionError("there was no end")
    assert number > 4


def test_a_session_that_cannot_be_opened_is_closed_at_once(proxy):
    """Not when the garbage collector comes: the driver leaves it in a cycle of the error and its frames."""
    proxy.choose = nth(1, REQUEST, opening=True)
    gc.disable()
    try:
        with pytest.raises(OperationalError):
            connection.ensure_connection()
        (frozen,) = proxy.frozen()
        wait_until(lambda: frozen.closed_at is not None, 5, "the session to be closed")
    finally:
        gc.enable()


def test_what_a_task_sends_has_no_limit_but_its_timeout(proxy, worker):
    id = QUtilities.add_async_task(f"{__name__}.sleep_in_the_database", 2 * LIMIT, schema_name="acme_corp")
    work(worker)
    assert QUtilities.get_result(id, schema_name="acme_corp") == "slept"


def test_what_a_hook_sends_has_none_either(proxy, worker):
    QUtilities.add_async_task("tests.tasks.nothing", hook=f"{__name__}.slow_hook", schema_name="acme_corp")
    work(worker)
    assert sql("SELECT * FROM acme_corp.frozen_effect") == [(1,)]


def slow_hook(task: Any) -> None:
    sleep_in_the_database(2 * LIMIT)
    take_effect()


def test_other_threads_have_no_limit(proxy):
    import threading

    found: list[float | None] = [0.0]
    thread = threading.Thread(target=lambda: found.append(wait_limits.current_limit()))
    thread.start()
    thread.join()
    assert found == [0.0, None]
    assert wait_limits.current_limit() == LIMIT


def test_a_lost_session_makes_no_outage_of_another_error(tenants):
    """A session that was closed meanwhile, for what a task did to it, has nothing to do with a defect of ours."""
    connection.ensure_connection()
    with pytest.raises(IntegrityError), tenancy.detect_outages():
        connection.close()
        connection.ensure_connection()
        raise IntegrityError("a defect")
    connection.ensure_connection()
    with pytest.raises(DatabaseAway), tenancy.detect_outages():
        connection.connection.close()
        connection.close()
        connection.ensure_connection()
        raise psycopg.OperationalError("the connection is closed")


def test_a_cluster_that_starts_waits_for_no_silent_server(proxy):
    """Its settings are looked at, and its database asked, before there is anybody to replace it."""
    wait_limits.uninstall()
    for number in range(1, 30):
        connections.close_all()
        before = len(proxy.frozen())
        proxy.choose = nth(number, REQUEST)
        try:
            with tenancy.limited_waits():
                preflight.survey()
        except TenantQError as error:  # a busy machine may take longer for another answer, too
            assert "has not answered" in str(error) or "timeout expired" in str(error)
        else:
            if len(proxy.frozen()) == before:
                break
    assert number > 5
    assert wait_limits.current_limit() is None


# What a project sets


def test_options_that_make_a_dead_path_show_are_set_where_the_project_does_not(monkeypatch):
    options: dict[str, Any] = {"keepalives_idle": 77, "connect_timeout": 3}
    wait_limits.complete_options(options)
    assert options == wait_limits.DEFAULTS | {"keepalives_idle": 77, "connect_timeout": 3}
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    options = {}
    wait_limits.complete_options(options)
    assert "connect_timeout" not in options


def test_the_driver_takes_these_options(proxy):
    connections.close_all()
    wait_limits.complete_options(connection.settings_dict["OPTIONS"])
    connection.ensure_connection()
    parameters = connection.connection.info.get_parameters()
    assert parameters["tcp_user_timeout"] == "30000"
    assert parameters["keepalives_idle"] == "10"


# Each request of a round


@pytest.mark.parametrize("what", [REQUEST, ANSWER])
@pytest.mark.parametrize("is_transactional", [False, True], ids=["plain", "transactional"])
def test_a_worker_gets_over_a_frozen_session_at_each_request(proxy, make_worker, what, is_transactional):
    number = 0
    while True:
        number += 1
        worker = make_worker(f"w{number}")
        sql("TRUNCATE acme_corp.frozen_effect, acme_corp.django_q_task")
        connections.close_all()
        QUtilities.add_async_task(EFFECT, schema_name="acme_corp", q_options={"transactional": is_transactional})
        proxy.choose = nth(number, what)
        before = len(proxy.frozen())
        tick(worker)
        proxy.choose = lambda _: None
        for _ in range(20):
            make_due()
            tick(worker)
            if get_broker().counts().open == 0 and not worker.has_unfinished():
                break
        assert get_broker().counts().open == get_broker().counts().dead == 0
        rows = sql("SELECT success FROM acme_corp.django_q_task")
        effects = sql("SELECT count(*) FROM acme_corp.frozen_effect")[0][0]
        assert rows == [(True,)], number
        assert effects == 1, number
        if len(proxy.frozen()) == before:
            break
    assert number > 3


@pytest.mark.parametrize("what", [REQUEST, ANSWER, "terminate"])
@pytest.mark.parametrize("due", [1, scheduler_firing.FEW + 1], ids=["alone", "together"])
def test_a_scheduler_gets_over_a_lost_session_at_each_request_of_a_firing(proxy, scheduler, spares, what, due):
    """Nothing is put off for it: it is an outage, and what is due fires as soon as that is over."""
    tick(scheduler)
    number, fired = 0, 0
    while True:
        number += 1
        for name in spares[:due]:
            insert(name, PAST, schedule_type="O", repeats=-1)
        has_come: list[int] = []
        proxy.choose = terminating(number, has_come) if what == "terminate" else nth(number, what)
        before = len(proxy.frozen())
        tick(scheduler)
        proxy.choose = lambda _: None
        for _ in range(20):
            tick(scheduler)
            with elsewhere() as other:  # a session without the cluster's short limits
                held = other.execute("SELECT schema_name, held FROM tenant_q_dueschedule WHERE held <> ''").fetchall()
            assert held == [], f"at request {number}"
            if not due_index.look():
                break
        fired += due
        assert sum(get_broker().queue_size(name) for name in spares) == fired, number
        if not has_come and len(proxy.frozen()) == before:
            break
    assert number > 8


def terminating(number: int, has_come: list[int]) -> Callable[[bytes], str | None]:
    """End the session on the server as a given request is sent."""
    left, ours = [number], connections["default"]  # of this thread

    def choose(data: bytes) -> str | None:
        left[0] -= data[:1] != b"\0"
        if left[0] == 0 and not has_come:
            has_come.append(number)
            schemas.terminate(ours.connection.info.backend_pid)
        return None

    return choose
