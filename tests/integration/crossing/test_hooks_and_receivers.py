"""Hooks and receivers leave nothing to other tenants' tasks, also within a batch, and the log names the task."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from django.db import connection
from django.db.models.signals import post_save
from django_q.models import Task
from django_q.signals import post_execute, pre_enqueue

from tenant_q.brokers import get_broker
from tenant_q.cluster import completer as completer_module
from tenant_q.lifecycle.retries import MOST_PUT_OFFS
from tenant_q.logging import TenantFilter
from tenant_q.scrubbing import sessions
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import know_as_short, make_due, sql, work
from tests.integration.crossing.conftest import (
    LOOK,
    SEEN,
    add,
    begin,
    clean,
    elsewhere,
    execute,
    labels_of,
    listening,
    look_now,
    note_in_seen,
    path_of,
    permanent,
    result,
    set_role_and_limit,
    smuggle,
    write,
)

pytestmark = pytest.mark.seam
HERE = __name__


# Hooks


def endless(task: Any = None) -> None:
    SEEN.append("begun")
    threading.Event().wait()


@pytest.mark.parametrize("hook", [set_role_and_limit, begin], ids=lambda hook: hook.__name__)
@pytest.mark.parametrize("of", ["task", "iter"])
def test_nothing_of_a_hook_reaches_the_next_task(tenants, worker, of, hook):
    path = path_of(hook)
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
    add("acme_corp", "tests.tasks.add", 1, hook=path_of(hook))
    add("globex_inc", "tests.tasks.add", 2, hook=path_of(write))
    worker.tick()
    assert worker.lifespan.started == 2, "in one batch"
    called, seen = SEEN
    assert called == ("called", "acme_corp")
    assert seen == clean("globex_inc")
    assert elsewhere("SELECT name FROM globex_inc.django_q_schedule") == [("made by a hook",)]
    assert elsewhere("SELECT count(*) FROM initech_llc.django_q_schedule") == [(0,)]


def test_a_hook_is_not_called_in_public(newcomer, worker, records):
    """The tenant's schema was dropped when its task had run, and nothing of it is saved."""
    id = add(newcomer, "tests.tasks.add", 1, hook=path_of(write), save=False)
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
    id = add("acme_corp", "tests.tasks.add", 1, timeout=1, hook=path_of(endless))
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
        execute("SET statement_timeout = 54321")
        execute("SET lock_timeout = 54321")
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


# Guards inside a batch


@pytest.fixture
def flushed_at_once(monkeypatch) -> None:
    """Each outcome is settled before the batch's next task."""
    monkeypatch.setattr(completer_module, "FLUSH_SECONDS", -1)


def test_a_task_behind_a_flush_is_in_its_schema(tenants, worker, flushed_at_once):
    """What was settled before it left no tenant current, and may have called hooks."""
    know_as_short("tests.tasks.add", "acme_corp")
    know_as_short(LOOK, "acme_corp")
    add("acme_corp", "tests.tasks.add", 1, hook=path_of(begin))
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
    add("acme_corp", "tests.tasks.add", 1, hook=path_of(note_its_name))
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
        add("acme_corp", "tests.tasks.add", 1, hook=path_of(begin))
        id = add("acme_corp", LOOK)
        worker.tick()
        assert result(id, "acme_corp")["wrappers"] == ["permanent"]
    finally:
        connection.execute_wrappers = []


# What the log says


def test_a_connection_that_is_closed_names_the_task_that_left_it_so(tenants, worker, records):
    know_as_short(path_of(begin), "acme_corp")
    know_as_short("tests.tasks.add", "acme_corp")
    id = add("acme_corp", path_of(begin))
    add("acme_corp", "tests.tasks.add", 1)
    worker.tick()
    (record,) = [record for record in records if "is closed" in record.getMessage()]
    assert record.name == "tenant_q.session"
    assert labels_of(record) == ("acme_corp", id, path_of(begin))


def test_a_connection_that_a_hook_left_so_names_its_task(tenants, worker, records):
    id = add("acme_corp", "tests.tasks.add", 1, hook=path_of(begin))
    work(worker)
    (record,) = [record for record in records if "is closed" in record.getMessage()]
    assert labels_of(record) == ("acme_corp", id, "tests.tasks.add")


def test_a_dead_letter_is_named_in_the_log(tenants, worker, records):
    id = smuggle("nobody", path_of(note_in_seen))
    for _ in range(MOST_PUT_OFFS + 1):
        make_due()
        work(worker)
    (dead,) = get_broker().dead()
    assert dead.id == id
    (record,) = [record for record in records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith(f"Dead-lettered package {id}: UnknownTenant")
    assert labels_of(record) == ("nobody", id, path_of(note_in_seen))


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
        ids = {name: add(name, "tests.tasks.add", 1, hook=path_of(log_a_line)) for name in tenants[:2]}
        worker.tick()
        logging.getLogger(HERE).warning("outside")
    finally:
        logging.getLogger(HERE).removeHandler(handler)
    assert [labels_of(record) for record in found] == [
        *((name, id, "tests.tasks.add") for name, id in ids.items()),
        ("public", "-", "-"),
    ]
