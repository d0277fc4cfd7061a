"""The real cluster: what waits behind long tasks, paused tenants, full queues, delays."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from tenant_q import policies
from tenant_q.brokers import get_broker
from tenant_q.exceptions import QueueFull
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import wait_until
from tests.integration.conftest import know_as_short

WAIT = 30_000


@pytest.fixture
def unlimited(tenants):
    """No policy outlives a test."""
    yield
    policies.TenantPolicy.objects.all().delete()


def add(func: str, *args: Any, schema: str = "acme_corp", **keywords: Any) -> str:
    return QUtilities.add_async_task(func, *args, schema_name=schema, **keywords)


def test_what_waits_behind_a_long_task_is_given_to_another_worker(tenants, mscluster):
    key = f"recall-{get_broker().cluster}"
    know_as_short("tests.tasks.hold", "acme_corp")
    know_as_short("tests.tasks.where", "acme_corp")
    long = add("tests.tasks.hold", key)
    short = [add("tests.tasks.where") for _ in range(5)]
    mscluster("--workers", "2")
    for id in short:
        assert QUtilities.get_result(id, wait=WAIT, schema_name="acme_corp") is not None
    assert QUtilities.fetch_task(long, schema_name="acme_corp") is None, "it still runs"
    tasks.let_go(key)
    assert QUtilities.get_result(long, wait=WAIT, schema_name="acme_corp") == "run 1"
    wait_until(lambda: get_broker().counts().open == 0)
    assert get_broker().statistics()["stale_acks"] == 0


def test_what_waits_behind_a_long_task_is_given_back_while_that_runs(tenants, mscluster):
    """It was expected to be short; its worker is in it, so the sentinel sees to that."""
    know_as_short("tests.tasks.hold", "acme_corp")
    know_as_short("tests.tasks.where", "acme_corp")
    key = f"batch-{get_broker().cluster}"
    long, behind = add("tests.tasks.hold", key), [add("tests.tasks.where") for _ in range(3)]
    cluster = mscluster("--workers", "1")
    wait_until(lambda: "3 packages of a batch of worker" in cluster.log, what="the rest to be given back")
    assert get_broker().counts().queued == 3
    tasks.let_go(key)
    assert all(QUtilities.get_result(id, wait=WAIT, schema_name="acme_corp") for id in (long, *behind))
    assert cluster.stop() == 0


def test_what_waits_in_a_batch_that_takes_long_is_given_to_another_worker(tenants, mscluster):
    """No task of it is long by itself; all were expected to be short."""
    know_as_short("tests.tasks.sleep_and_tell", "acme_corp")
    slow = [add("tests.tasks.sleep_and_tell", 0.2) for _ in range(10)]
    mscluster("--workers", "2")
    assert len({QUtilities.get_result(id, wait=WAIT, schema_name="acme_corp") for id in slow}) == 2


def test_a_finished_task_does_not_wait_for_a_long_one_behind_it(tenants, mscluster):
    """With one worker: what had finished is saved and acknowledged while the next one runs."""
    key = f"flush-{get_broker().cluster}"
    know_as_short("tests.tasks.hold", "acme_corp")
    know_as_short("tests.tasks.where", "acme_corp")
    short, long = add("tests.tasks.where"), add("tests.tasks.hold", key)
    mscluster("--workers", "1")
    assert QUtilities.get_result(short, wait=WAIT, schema_name="acme_corp") is not None
    wait_until(lambda: get_broker().counts().leased == 1, what="one lease, the long task's")
    assert QUtilities.fetch_task(long, schema_name="acme_corp") is None
    tasks.let_go(key)
    assert QUtilities.get_result(long, wait=WAIT, schema_name="acme_corp") == "run 1"


def test_a_burst_ends_when_only_paused_tenants_have_work(tenants, unlimited, mscluster):
    policies.change("globex_inc", actor="test", act="pause", paused=True)
    paused, other = add("tests.tasks.where", schema="globex_inc"), add("tests.tasks.where")
    cluster = mscluster("--workers", "2", "--burst", wait=False)
    assert wait_until(lambda: cluster.process.poll() is not None or None)
    assert cluster.process.returncode == 0
    assert QUtilities.fetch_task(other, schema_name="acme_corp").success
    assert QUtilities.fetch_task(paused, schema_name="globex_inc") is None
    assert "The burst ended with 1 task of paused tenants and 0 of tenants that are not ready" in cluster.log


def test_a_paused_tenant_goes_on_when_it_is_resumed(tenants, unlimited, mscluster):
    policies.change("globex_inc", actor="test", act="pause", paused=True)
    id = add("tests.tasks.where", schema="globex_inc")
    mscluster()
    assert QUtilities.get_result(add("tests.tasks.where"), wait=WAIT, schema_name="acme_corp") is not None
    assert QUtilities.fetch_task(id, schema_name="globex_inc") is None
    policies.change("globex_inc", actor="test", act="resume", paused=False)
    assert QUtilities.get_result(id, wait=WAIT, schema_name="globex_inc")["schema"] == "globex_inc"


def test_a_full_queue_refuses_with_a_clear_error(tenants, unlimited):
    policies.change("acme_corp", actor="test", act="limit", max_queued=2)
    add("tests.tasks.where")
    add("tests.tasks.where", q_options={"delay": 60})
    with pytest.raises(QueueFull, match="1 more cannot be enqueued for acme_corp: 2 tasks wait, and its max_"):
        add("tests.tasks.where")
    with pytest.raises(QueueFull, match="3 more"), in_schema("acme_corp"):
        QUtilities.add_async_tasks_from_iter("tests.tasks.add", [1, 2, 3])
    assert get_broker().counts().open == 2
    add("tests.tasks.where", schema="globex_inc")


def test_a_full_queue_ends_no_chain(tenants, unlimited, mscluster):
    """What the cluster itself enqueues is always accepted."""
    with in_schema("acme_corp"):
        group = QUtilities.create_async_tasks_chain([("math.floor", (1.5,)), ("math.floor", (2.5,))])
        QUtilities.add_async_task("tests.tasks.where", q_options={"delay": 3600})
    policies.change("acme_corp", actor="test", act="limit", max_queued=1)
    mscluster()
    found = QUtilities.get_result_group(group, wait=WAIT, count=2, schema_name="acme_corp")
    assert found == [1, 2]


def test_a_delayed_task_starts_on_time(tenants, mscluster, capsys):
    """That it is not early is asserted; how late it is is printed."""
    mscluster("--workers", "2")
    late = []
    for _ in range(5):
        enqueued = timezone.now()
        id = add("tests.tasks.nothing", q_options={"delay": 0.5})
        task = QUtilities.fetch_task(id, wait=WAIT, schema_name="acme_corp")
        late.append((task.started - enqueued).total_seconds() - 0.5)
    assert min(late) > -0.002, "the broker's clock is in milliseconds"
    with capsys.disabled():
        print(f"\n  delayed tasks started {1000 * max(late):.0f} ms late at most")
