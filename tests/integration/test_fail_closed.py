"""A task runs in its tenant's schema or not at all: nothing is read or written in public instead."""

from __future__ import annotations

import json
import logging
from io import StringIO

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django_q.models import Schedule, Task
from django_q.signals import pre_enqueue

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.worker import Worker
from tenant_q.exceptions import UnknownTenant
from tenant_q.lifecycle.retries import MOST_PUT_OFFS
from tenant_q.logging import TenantFilter
from tenant_q.tenancy import in_schema, validate_schema_name
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.conftest import wait_until
from tests.integration.conftest import know_as_short
from tests.integration.planning import on_the_wire


@pytest.fixture
def worker(tenants):
    worker = Worker("closed", get_broker(), Slot())
    yield worker
    worker.stopping.restore()
    connection.set_schema_to_public()
    connections.close_all()


@pytest.fixture
def newcomer(tenants):
    """A tenant that is the test's own, to be broken."""
    schemas.clone_tenants(["newcomer"])
    tenancy.forget_tenants()
    yield "newcomer"
    schemas.drop_tenant("newcomer")
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS elsewhere CASCADE")
    tenancy.forget_tenants()


def sql(statement: str) -> None:
    connection.set_schema_to_public()
    with connection.cursor() as cursor:
        cursor.execute(statement)


def make_due() -> None:
    """What was put off is due now."""
    client = tasks.client()
    for id in client.zrange(f"{{tq:{get_broker().cluster}}}:delayed", 0, -1):
        client.zadd(f"{{tq:{get_broker().cluster}}}:delayed", {id: 0})


def work(worker: Worker) -> None:
    """Until nothing is queued."""
    while get_broker().counts().queued:
        worker.tick()


def dead(*arguments: str) -> str:
    out = StringIO()
    call_command("msdead", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.seam
@pytest.mark.parametrize("how", ["dropped", "renamed"])
def test_a_task_of_a_tenant_whose_schema_is_gone_ends_among_the_dead(newcomer, worker, how):
    key = f"{get_broker().cluster}-{how}"
    with in_schema(newcomer):
        id = QUtilities.add_async_task("tests.tasks.note_where", key)
    sql("DROP SCHEMA newcomer CASCADE" if how == "dropped" else "ALTER SCHEMA newcomer RENAME TO elsewhere")
    for _ in range(MOST_PUT_OFFS + 1):
        work(worker)
        make_due()
        wait_until(lambda: worker.tick() is not None)
    assert get_broker().counts().dead == 1
    assert not tasks.notes(key), "it did not run"
    (listed,) = json.loads(dead("--json"))
    assert (listed["id"], listed["schema"]) == (id, newcomer)
    assert "SchemaMissing" in listed["cause"]
    assert "SchemaMissing" in dead("--schema", newcomer)

    sql("CREATE SCHEMA newcomer" if how == "dropped" else "ALTER SCHEMA elsewhere RENAME TO newcomer")
    if how == "dropped":
        sql("CREATE TABLE newcomer.django_q_task (LIKE acme_corp.django_q_task INCLUDING ALL)")
    assert "1 queued again" in dead("retry", id)
    work(worker)
    assert tasks.notes(key)[0]["schema"] == newcomer
    assert "No dead packages" in dead()


def test_dead_packages_are_purged(newcomer, worker):
    with in_schema(newcomer):
        ids = [QUtilities.add_async_task("tests.tasks.add", n) for n in range(3)]
    for lease in [lease for _ in ids for lease in get_broker().fetch("w", limit=1).leases]:
        get_broker().dead_letter("w", lease, "Because: it is a test")
    while get_broker().counts().dead < 3:
        for lease in get_broker().fetch("w", limit=1).leases:
            get_broker().dead_letter("w", lease, "Because: it is a test")
    with pytest.raises(CommandError, match="Name the packages to purge"):
        dead("purge")
    with pytest.raises(CommandError, match="No dead package has the id nothing"):
        dead("purge", "nothing")
    assert "1 purged" in dead("purge", ids[0])
    assert "2 purged" in dead("purge", "--schema", newcomer)
    assert get_broker().counts().open == get_broker().counts().dead == 0


def test_tasks_of_a_tenant_not_migrated_wait_until_it_is(newcomer, worker):
    with in_schema(newcomer):
        id = QUtilities.add_async_task("tests.tasks.where")
    sql("ALTER TABLE newcomer.django_q_task RENAME TO django_q_task_later")
    for _ in range(MOST_PUT_OFFS + 3):
        work(worker)
        make_due()
        worker.tick()
    assert get_broker().counts().dead == 0, "it is waited for, however long it takes"
    sql("ALTER TABLE newcomer.django_q_task_later RENAME TO django_q_task")
    make_due()
    worker.tick()
    assert QUtilities.get_result(id, schema_name=newcomer)["schema"] == newcomer


@pytest.mark.seam
@pytest.mark.parametrize("how", ["table gone", "schema gone", "schema swapped"])
def test_what_is_seen_together_is_verified_for_each(newcomer, worker, how, monkeypatch):
    """A tenant that is broken just after the tables of a batch's tenants were seen runs nothing."""
    ids, key = {}, f"{get_broker().cluster}-{how}"
    for name in ("acme_corp", newcomer, "globex_inc"):
        with in_schema(name):
            ids[name] = QUtilities.add_async_task("tests.tasks.note_where", key)
    know_as_short("tests.tasks.note_where", *ids)
    tenancy.forget_tenants()
    breaks = {
        "table gone": "ALTER TABLE newcomer.django_q_task RENAME TO django_q_task_later",
        "schema gone": "ALTER SCHEMA newcomer RENAME TO elsewhere",
        "schema swapped": "ALTER SCHEMA newcomer RENAME TO elsewhere; CREATE SCHEMA newcomer",
    }
    see = tenancy.see_tables_together
    monkeypatch.setattr(tenancy, "see_tables_together", lambda schemas: (see(schemas), sql(breaks[how])))
    worker.tick()
    assert sorted(note["schema"] for note in tasks.notes(key)) == ["acme_corp", "globex_inc"]
    counts = get_broker().counts()
    assert (counts.queued, counts.delayed, counts.dead) == (0, 1, 0), "the newcomer's waits"


def test_a_fresh_worker_sees_the_tables_of_its_batch_together(newcomer, worker):
    names = ("acme_corp", newcomer, "globex_inc")
    sql("ALTER TABLE newcomer.django_q_task RENAME TO django_q_task_later")
    for name in names:
        with in_schema(name):
            QUtilities.add_async_task("tests.tasks.nothing")
    know_as_short("tests.tasks.nothing", *names)
    tenancy.forget_tenants()
    with on_the_wire() as sent:
        worker.tick()
    assert sum("pg_attribute" in one for one in sent) == 2, "one for all, one for the newcomer"
    assert get_broker().counts().delayed == 1


def only_acme(tenants):
    return tenants.filter(schema_name="acme_corp")


def test_a_project_says_which_tenants_are_ready(tenants, worker, settings):
    for name in tenants[:2]:
        with in_schema(name):
            QUtilities.add_async_task("tests.tasks.where")
            QUtilities.create_schedule("tests.tasks.add", 1)
    tenancy.forget_tenants()
    settings.TENANT_Q = {"ready_tenants": f"{__name__}.only_acme"}
    assert tenancy.tenants_to_schedule() == ["acme_corp"]
    work(worker)
    assert get_broker().counts().delayed == 1
    assert schemas.count_tasks("acme_corp") == 1
    assert schemas.count_tasks("globex_inc") == 0
    settings.TENANT_Q = {}
    make_due()
    worker.tick()
    assert schemas.count_tasks("globex_inc") == 1


def fires_and_works(scheduler: Scheduler, worker: Worker) -> bool:
    scheduler.tick()
    work(worker)
    return [schemas.count_tasks(name) for name in ("acme_corp", "initech_llc")] == [2, 2]


def test_a_locked_tenant_holds_up_nobody(tenants, worker):
    locker = connections.create_connection("default")
    for name in tenants:
        with in_schema(name):
            QUtilities.add_async_task("tests.tasks.where")
            QUtilities.create_schedule("tests.tasks.where", name="now")
    scheduler = Scheduler(Slot())
    try:
        with locker.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE globex_inc.django_q_task, globex_inc.django_q_schedule")
        # On a busy machine a round ends before it has come to the last tenant.
        wait_until(lambda: fires_and_works(scheduler, worker), 60, "the others' tasks to be done")
        assert get_broker().counts().delayed == 1, "globex's result is put off"
    finally:
        scheduler.stopping.restore()
        locker.close()
    make_due()
    worker.tick()
    assert schemas.count_tasks("globex_inc") == 1


def test_a_bad_schedule_stops_nobody(tenants, worker):
    for name in tenants:
        with in_schema(name):
            for schedule in ("first", "bad args", "bad cron", "gone", "last"):
                QUtilities.create_schedule("tests.tasks.where", name=schedule, schedule_type="D")
    with in_schema("globex_inc"):
        Schedule.objects.filter(name="bad args").update(args="(((")
        Schedule.objects.filter(name="bad cron").update(schedule_type="C", cron="99 * * * *")
        Schedule.objects.filter(name="gone").update(func="tests.tasks.no_longer_there")
    scheduler = Scheduler(Slot())
    try:
        for _ in range(3):
            scheduler.tick()
        work(worker)
    finally:
        scheduler.stopping.restore()
    for name in tenants:
        with in_schema(name):
            results = {task.group: task.success for task in Task.objects.all()}
            assert len(results) == Task.objects.count() == 5, "each fired once"
            bad = {"bad args", "bad cron", "gone"} if name == "globex_inc" else set()
            assert {group for group, success in results.items() if not success} == bad


@pytest.mark.seam
def test_every_named_database_is_in_the_tasks_schema(tenants, worker):
    with in_schema("acme_corp"):
        both = QUtilities.add_async_task(
            "tests.tasks.where_everywhere", q_options={"databases": ["default", "replica"]}
        )
        one = QUtilities.add_async_task("tests.tasks.where_everywhere")
    work(worker)
    assert QUtilities.get_result(both, schema_name="acme_corp") == {"default": "acme_corp", "replica": "acme_corp"}
    assert QUtilities.get_result(one, schema_name="acme_corp") == {"default": "acme_corp", "replica": "public"}


def test_every_database_of_the_settings_is_in_the_tasks_schema(tenants, worker, settings):
    settings.TENANT_Q = {"databases": ["default", "replica"]}
    with in_schema("globex_inc"):
        id = QUtilities.add_async_task("tests.tasks.where_everywhere")
    work(worker)
    assert QUtilities.get_result(id, schema_name="globex_inc") == {"default": "globex_inc", "replica": "globex_inc"}


def test_a_tenants_row_is_looked_up_once_for_many_tasks(tenants, worker, monkeypatch):
    looked_up = []
    real = tenancy.tenants._look_up
    monkeypatch.setattr(tenancy.tenants, "_look_up", lambda schema: looked_up.append(schema) or real(schema))
    with in_schema("acme_corp"):
        for n in range(100):
            QUtilities.add_async_task("tests.tasks.add", n)
    work(worker)
    assert looked_up == ["acme_corp"]
    QUtilities.add_async_task("tests.tasks.add", 1, schema_name="acme_corp", q_options={"tenant_cache_seconds": 0})
    work(worker)
    assert looked_up == ["acme_corp"] * 2


@pytest.mark.seam
def test_a_tenant_with_capitals(tenants, worker):
    """`django-tenant-schemas` writes schema names unquoted, so PostgreSQL folds them; `django-tenants` quotes."""
    schemas.clone_tenants(["CamelCase"])
    try:
        with in_schema("CamelCase"):
            id = QUtilities.add_async_task("tests.tasks.where")
            QUtilities.create_schedule("tests.tasks.add", 1, name="now")
        scheduler = Scheduler(Slot())
        scheduler.tick()
        scheduler.stopping.restore()
        work(worker)
        assert QUtilities.get_result(id, schema_name="CamelCase")["schema"] == tenancy.physical_schema("CamelCase")
        assert QUtilities.get_result_group("now", schema_name="CamelCase") == [1]
    finally:
        schemas.drop_tenant("CamelCase")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        ("1st", "must start with a letter"),
        ("_x", "must start with a letter"),
        ("acme-corp", "contains '-'"),
        ('x"; DROP', "contains '\"'"),
        ("größe", "contains 'ö'"),
        ("x" * 64, "64 bytes"),
        ("public", "PostgreSQL reserves"),
        ("Information_Schema", "PostgreSQL reserves"),
        ("pg_temp", "start with 'pg_'"),
    ],
)
def test_why_a_name_is_refused(tenants, name, reason):
    with pytest.raises(ValidationError, match=reason.replace("'", "['\"]?").replace('"', ".")):
        validate_schema_name(name)
    if name and name != "public":
        with pytest.raises(UnknownTenant, match="No tenant"):
            QUtilities.add_async_task("tests.tasks.add", schema_name=name)


@pytest.mark.parametrize("name", ["a", "Acme_2", "x" * 63, "publicity", "pgx"])
def test_names_that_are_allowed(name):
    validate_schema_name(name)


def test_log_records_carry_schema_and_task(tenants, worker):
    seen = []

    class Handler(logging.Handler):
        def emit(self, record):
            seen.append((record.schema, record.task_id, record.func, record.getMessage()))

    handler = Handler()
    handler.addFilter(TenantFilter())
    logging.getLogger("tests.tasks").addHandler(handler)
    try:
        with in_schema("acme_corp"):
            id = QUtilities.add_async_task("tests.tasks.log_a_line")
            work(worker)
        with in_schema("acme_corp"):
            logging.getLogger("tests.tasks").warning("outside")
    finally:
        logging.getLogger("tests.tasks").removeHandler(handler)
    assert seen == [
        ("acme_corp", id, "tests.tasks.log_a_line", "from the task"),
        ("acme_corp", "-", "-", "outside"),
    ]


def test_a_moment_that_python_cannot_hold_stops_nobody(tenants, worker):
    for name in tenants:
        with in_schema(name):
            QUtilities.create_schedule("tests.tasks.add", 1, name="good")
            QUtilities.create_schedule("tests.tasks.add", 2, name="odd")
    sql("UPDATE globex_inc.django_q_schedule SET next_run = '-infinity' WHERE name = 'odd'")
    sql("UPDATE initech_llc.django_q_schedule SET next_run = 'infinity' WHERE name = 'odd'")
    scheduler = Scheduler(Slot())
    try:
        scheduler.tick()
    finally:
        scheduler.stopping.restore()
    work(worker)
    assert [schemas.count_tasks(name) for name in tenants] == [2, 1, 1]


def test_a_receiver_that_raises_stops_no_other_tenants_schedules(tenants, worker):
    for name in tenants:
        with in_schema(name):
            QUtilities.create_schedule("tests.tasks.add", 1)

    def receiver(task, **_):
        if task["schema_name"] == "globex_inc":
            raise ValueError("the receiver is broken")

    pre_enqueue.connect(receiver)
    scheduler = Scheduler(Slot())
    try:
        scheduler.tick()
    finally:
        scheduler.stopping.restore()
        pre_enqueue.disconnect(receiver)
    work(worker)
    assert [schemas.count_tasks(name) for name in tenants] == [1, 0, 1]


def test_schedules_of_a_tenant_not_migrated_are_skipped_with_one_warning(newcomer, worker, caplog):
    for name in (newcomer, "acme_corp"):
        QUtilities.create_schedule("tests.tasks.add", 1, schema_name=name)
    sql("ALTER TABLE newcomer.django_q_task RENAME TO django_q_task_later")
    logging.getLogger("tenant_q").propagate = True
    scheduler = Scheduler(Slot())
    try:
        for _ in range(3):
            scheduler.tick()
            sql("UPDATE tenant_q_dueschedule SET due = next_run WHERE held <> ''")
        sql("ALTER TABLE newcomer.django_q_task_later RENAME TO django_q_task")
        scheduler.tick()
    finally:
        scheduler.stopping.restore()
    work(worker)
    warnings = [record for record in caplog.records if "are put off" in record.message]
    assert [record.schema for record in warnings] == [newcomer]
    assert [schemas.count_tasks(name) for name in ("acme_corp", newcomer)] == [1, 1]
