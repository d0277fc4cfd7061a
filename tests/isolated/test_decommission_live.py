"""A tenant is decommissioned while a real cluster works for it and for others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.exceptions import TenantBusy, TenantLeaving
from tenant_q.provisioning import decommission_tenant, provision_tenant
from tenant_q.states import State
from tenant_q.tenancy import TenantConfig, in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.conftest import wait_until
from tests.isolated.test_decommission import NAME, left, make
from tests.schemas import TENANTS

pytestmark = pytest.mark.seam
ALL_MODES = pytest.mark.parametrize("isolated_site", ["path", "role", "login"], indirect=True)
ADD = "tests.tasks.add"
OTHERS = TENANTS[:2]


def adopt(*names: str) -> None:
    for name in names:
        provision_tenant(name, adopt=True, actor="test", probe=False)


def prepare(site) -> str:
    """Three tenants that a cluster may serve. Returns the key of the one that will leave."""
    key = make(site, role=False)
    adopt(NAME, *OTHERS)
    return key


@contextmanager
def in_thread(act: Callable[[], Any]) -> Iterator[list[Any]]:
    """Call a function in a thread while a block runs. Yields what it returned or raised, which is there at the end."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(act())
        except Exception as error:
            found.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        thread.join(120)


def has_rows(count: int) -> bool:
    return Task.objects.filter(success=True).count() == count


@ALL_MODES
def test_others_lose_nothing(isolated_site):
    key = prepare(isolated_site)
    isolated_site.mscluster(workers=2)
    ended = threading.Event()

    def feed() -> dict[str, list[str]]:
        """Enqueue for the others all the time, and at least 50 tasks for each."""
        ids: dict[str, list[str]] = {name: [] for name in OTHERS}
        while not ended.wait(0.05) or len(ids[OTHERS[0]]) < 50:
            for name, own in ids.items():
                own.append(QUtilities.add_async_task(ADD, 1, schema_name=name))
        return ids

    planned = timezone.now() + timedelta(seconds=1)
    for name in (NAME, *OTHERS):
        with in_schema(name):
            Schedule.objects.create(func=ADD, args="1", schedule_type="O", next_run=planned, repeats=-1)
    for _ in range(100):
        QUtilities.add_async_task("tests.tasks.sleep", 0.05, schema_name=NAME)
    with in_thread(feed) as fed:
        done = decommission_tenant(NAME, actor="test", drain=120)
        assert left(isolated_site, key) == {}
        ended.set()
    [ids] = fed
    assert done.cancelled > 0
    for name, own in ids.items():
        for id in own:
            assert QUtilities.get_result(id, wait=60_000, schema_name=name) == 1
        with in_schema(name):
            wait_until(lambda: not Schedule.objects.exists(), seconds=120, what="the schedule's run")
            wait_until(partial(has_rows, len(own) + 1), 120, "all rows")
            assert not Task.objects.filter(success=False).exists()
    assert get_broker().counts().open == get_broker().counts().dead == 0
    assert left(isolated_site, key) == {}, "nor does what runs later leave something"


@pytest.mark.parametrize("isolated_site", ["path", "login"], indirect=True)
def test_what_runs_ends_and_new_tasks_are_refused_meanwhile(isolated_site):
    prepare(isolated_site)
    isolated_site.mscluster(workers=1)
    gate = f"gate-{isolated_site.cluster}"
    id = QUtilities.add_async_task("tests.tasks.hold", gate, schema_name=NAME)
    wait_until(lambda: tasks.notes(gate), what="the task to run")
    queued = QUtilities.add_async_task(ADD, 1, schema_name=NAME)
    with pytest.raises(TenantBusy, match=rf"1 task of {NAME} did not end within 0 s: tests.tasks.hold \({id}\)"):
        decommission_tenant(NAME, actor="test", drain=0)
    assert get_broker().place(NAME, queued) is None
    with pytest.raises(TenantLeaving):
        QUtilities.add_async_task(ADD, 1, schema_name=NAME)
    refused = isolated_site.manage("shell", "-c", ENQUEUE.format(NAME), check=False)
    assert "TenantLeaving" in refused.stderr + refused.stdout
    said: list[str] = []
    with in_thread(lambda: decommission_tenant(NAME, actor="test", keep_schema=True, progress=said.append)) as ended:
        wait_until(lambda: "waiting for 1 task" in " ".join(said), what="the wait for the task")
        tasks.let_go(gate)
    assert ended[0].kept_schema
    assert isolated_site.sql(f"SELECT success FROM {NAME}.django_q_task WHERE id = %s", id) == [(True,)]


ENQUEUE = "from tenant_q.utils import QUtilities; QUtilities.add_async_task('tests.tasks.add', 1, schema_name='{}')"


@pytest.mark.parametrize("isolated_site", ["path"], indirect=True)
def test_what_a_dead_worker_holds_is_cancelled_when_its_lease_runs_out(isolated_site):
    key = prepare(isolated_site)
    with isolated_site.here(lease=2):
        QUtilities.add_async_task(ADD, 1, schema_name=NAME)
        assert get_broker().fetch("dead").leases
        assert decommission_tenant(NAME, actor="test", drain=60).cancelled == 1
    assert left(isolated_site, key) == {}


@pytest.mark.parametrize("isolated_site", ["path", "login"], indirect=True)
def test_the_next_tenant_of_the_name_gets_nothing_of_the_former_one(isolated_site):
    prepare(isolated_site)
    with in_schema(NAME):
        cached = QUtilities.add_async_task(ADD, 1, cached=600, group="June")
        row = QUtilities.add_async_task(ADD, 2)
        Schedule.objects.create(id=1, func=ADD, args="1", schedule_type="H")
    policies.change(NAME, actor="test", act="pause", paused=True)
    policies.configure(NAME, actor="test", settings={"colour": "red"})
    former = provision_tenant(NAME, adopt=True, actor="test", probe=False)
    decommission_tenant(NAME, actor="test")
    fields = schemas.domain_of(tenancy.tenant_model(), NAME) | {"name": "Another"}
    anew = provision_tenant(NAME, fields=fields, actor="test", probe=False)
    with in_schema(NAME):
        assert not Schedule.objects.exists() and not Task.objects.exists()
    assert tenancy.config(NAME) == TenantConfig()
    assert not policies.is_paused(NAME) and NAME not in get_broker().policies()
    assert QUtilities.get_result(cached, cached=True, schema_name=NAME) is None
    assert QUtilities.get_result_group("June", cached=True, schema_name=NAME) in ([], None)
    assert QUtilities.get_status(row, schema_name=NAME) == State.UNKNOWN
    assert (get_broker().queue_size(NAME), NAME in get_broker().loads()) == (0, False)
    isolated_site.mscluster(workers=1)
    id = QUtilities.add_async_task(ADD, 3, schema_name=NAME)
    assert QUtilities.get_result(id, wait=60_000, schema_name=NAME) == 3
    if former.role is not None:
        assert anew.role == former.role
        assert anew.password != former.password
    connection.set_schema_to_public()
