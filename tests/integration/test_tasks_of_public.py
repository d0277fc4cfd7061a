"""Tasks of the public schema: they run where `django_q` is a shared app, and follow their tables into a tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from tenant_q import checks, tenancy
from tenant_q.brokers import get_broker
from tenant_q.lifecycle.retries import MOST_PUT_OFFS
from tenant_q.models import TenantRecord
from tenant_q.operations.metrics import _tenant_count
from tenant_q.operations.site import read_site
from tenant_q.schedules import code_sync
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import make_due, sql, work

pytestmark = pytest.mark.seam
TABLES = ("django_q_schedule", "django_q_task")


@pytest.fixture
def shared(tenants, settings) -> Iterator[None]:
    """`django_q` is a shared app, and its tables are in `public`."""
    settings.SHARED_APPS = [*settings.SHARED_APPS, "django_q"]
    settings.SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER = []
    for table in TABLES:
        sql(f"CREATE TABLE public.{table} (LIKE acme_corp.{table} INCLUDING ALL)")
    tenancy.forget_tenants()
    yield
    connection.set_schema_to_public()
    for table in TABLES:
        sql(f"DROP TABLE IF EXISTS public.{table}")
    tenancy.forget_tenants()


@pytest.fixture
def moved(shared, settings) -> Iterator[Callable[[], str]]:
    """What a site is after the move: the tables are a tenant's, which has the public schema as a former name."""

    def move() -> str:
        settings.SHARED_APPS = [app for app in settings.SHARED_APPS if app != "django_q"]
        for table in TABLES:
            sql(f"DROP TABLE public.{table}")
        tenancy.note_existing(TenantRecord)
        TenantRecord.objects.filter(schema_name="acme_corp").update(former_names=["public"])
        tenancy.forget_tenants()
        return "acme_corp"

    yield move
    TenantRecord.objects.filter(schema_name="acme_corp").update(former_names=[])


def key() -> str:
    return f"public-{get_broker().cluster}"


def places() -> list[str]:
    return [note["schema"] for note in tasks.notes(key())]


def test_nothing_of_public_runs_where_it_has_no_tasks(shared, worker, settings):
    QUtilities.add_async_task("tests.tasks.note_where", key(), schema_name="public")
    settings.SHARED_APPS = [app for app in settings.SHARED_APPS if app != "django_q"]
    for _ in range(MOST_PUT_OFFS + 1):
        make_due()
        work(worker)
    assert places() == []
    (dead,) = get_broker().dead("public")
    assert "The schema 'public' has no tasks, because django_q is not in SHARED_APPS" in dead.cause


def test_they_wait_until_public_has_its_tables(shared, worker):
    """As where the app became a shared one, and `migrate_schemas --shared` found its migrations applied already."""
    for table in TABLES:
        sql(f"ALTER TABLE public.{table} RENAME TO {table}_later")
    QUtilities.add_async_task("tests.tasks.note_where", key(), schema_name="public")
    for _ in range(MOST_PUT_OFFS + 1):
        make_due()
        work(worker)
    assert (places(), get_broker().counts().delayed) == ([], 1)
    for table in TABLES:
        sql(f"ALTER TABLE public.{table}_later RENAME TO {table}")
    make_due()
    work(worker)
    assert places() == ["public"]


def test_what_was_queued_for_public_runs_in_the_tenant_that_has_its_tables(shared, moved, worker):
    with in_schema("public"):
        queued = QUtilities.add_async_task("tests.tasks.note_where", key(), hook="tests.tasks.nothing")
        delayed = QUtilities.add_async_task("tests.tasks.note_where", key(), q_options={"delay": 600})
        fails = QUtilities.add_async_task("tests.tasks.fail", q_options={"max_attempts": 3})
        chain = QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), ("tests.tasks.note_where", (key(),))])
    other = QUtilities.add_async_task("tests.tasks.add", 7, schema_name="globex_inc")
    tenant = moved()
    for _ in range(4):
        work(worker)
        make_due()
    assert places() == [tenant] * 3
    for id in (queued, delayed):
        assert QUtilities.fetch_task(id, schema_name=tenant).success
    failed = QUtilities.fetch_task(fails, schema_name=tenant)
    assert (failed.success, failed.attempt_count) == (False, 3)
    assert len(QUtilities.fetch_task_group(chain, schema_name=tenant)) == 2
    assert QUtilities.get_result(other, schema_name="globex_inc") == 7
    assert (get_broker().counts().queued, get_broker().counts().delayed, get_broker().counts().dead) == (0, 0, 0)


def test_dead_tasks_of_public_run_in_the_tenant_when_they_are_queued_again(shared, moved, worker):
    QUtilities.add_async_task("tests.tasks.note_where", key(), schema_name="public")
    (lease,) = get_broker().fetch("w").leases
    get_broker().dead_letter("w", lease, "for the test")
    tenant = moved()
    call_command("msdead", "retry", "--schema", "public", stdout=StringIO())
    work(worker)
    assert places() == [tenant]


def test_a_task_whose_row_was_saved_before_the_move_does_not_run_again(shared, moved, worker):
    """Its worker died between the row and the acknowledgement."""
    id = QUtilities.add_async_task("tests.tasks.note_where", key(), schema_name="public")
    get_broker().fetch("dead")
    get_broker().reclaim("dead", running=id)
    sql(
        f"INSERT INTO {moved()}.django_q_task (id, name, func, started, stopped, success, attempt_count) "
        "VALUES (%s, 'n', 'tests.tasks.note_where', now(), now(), true, 1)",
        id,
    )
    work(worker)
    assert places() == []
    assert get_broker().counts().queued == 0


def test_public_has_its_own_tasks_although_a_tenant_was_called_so(shared, worker):
    tenancy.note_existing(TenantRecord)
    TenantRecord.objects.filter(schema_name="acme_corp").update(former_names=["public"])
    QUtilities.add_async_task("tests.tasks.note_where", key(), schema_name="public")
    work(worker)
    TenantRecord.objects.filter(schema_name="acme_corp").update(former_names=[])
    assert places() == ["public"]


def test_operators_see_public_among_the_tenants_and_it_counts_as_none(shared, settings):
    (public,) = [one for one in read_site().tenants if one.schema == "public"]
    assert public.is_known
    out = StringIO()
    call_command("msinfo", stdout=out)
    assert "no tenant" not in out.getvalue()
    assert _tenant_count(read_site()) == 3
    settings.SHARED_APPS = [app for app in settings.SHARED_APPS if app != "django_q"]
    assert "public" not in {one.schema for one in read_site().tenants}


def test_public_gets_no_schedules_from_code(shared, settings):
    settings.TENANT_Q = settings.TENANT_Q | {
        "schedules": {"daily": {"func": "tests.tasks.nothing", "cron": "0 6 * * *"}}
    }
    assert code_sync.Sync().run().tenants == 3
    assert sql("SELECT count(*) FROM public.django_q_schedule") == [(0,)]
    for _ in range(2):
        sync = code_sync.Sync()
        sync.plan()
        assert sync.is_done, "nothing is left to be done in each round"


def test_the_check_names_schedules_of_public_that_never_fire(shared, settings):
    def found() -> list[str]:
        return [message.id for message in checks.check_all() if message.id == "tenant_q.W014"]

    assert found() == []
    del settings.SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER
    assert found() == ["tenant_q.W014"]
    settings.SHARED_APPS = [app for app in settings.SHARED_APPS if app != "django_q"]
    assert found() == []


def test_the_queue_of_public_is_that_of_a_tenant(shared, settings):
    for schema in ("public", "acme_corp", "globex_inc"):
        QUtilities.add_async_task("tests.tasks.nothing", schema_name=schema)
    assert QUtilities.get_queue_size() == QUtilities.get_queue_size(schema_name="public") == 1
    settings.SHARED_APPS = [app for app in settings.SHARED_APPS if app != "django_q"]
    assert QUtilities.get_queue_size() == 3, "of all, where it has no tasks of its own"
