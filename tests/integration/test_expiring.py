"""`expires` and `delay` as seconds or moments, and keywords with the names of options."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import async_task

from tenant_q.brokers import get_broker
from tenant_q.exceptions import EnqueueError, TakenBack, TenantBusy
from tenant_q.lifecycle.known_outcomes import expired_outcome
from tenant_q.package.build import build
from tenant_q.package.envelope import open_package
from tenant_q.schedules import fired_packages
from tenant_q.states import State
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks, tasks_declared
from tests.integration.conftest import make_due, work

A = "acme_corp"
PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=1)


def add(func: str = "tests.tasks.add", *args: Any, **options: Any) -> str:
    return QUtilities.add_async_task(func, *args, schema_name=A, q_options=options)


def carried(id: str) -> Any:
    live = get_broker().find(A, id)
    assert live
    return open_package(live.payload)


# expires


@pytest.mark.parametrize("expires", [60, timedelta(minutes=1), datetime.now(UTC) + timedelta(days=1)])
def test_a_package_carries_an_aware_moment(worker, expires):
    before = datetime.now(UTC)
    id = add("math.floor", 2.5, expires=expires)
    moment = carried(id).option("expires")
    assert moment.tzinfo is not None
    if not isinstance(expires, datetime):
        assert timedelta(0) <= moment - before - timedelta(minutes=1) < timedelta(seconds=30)
    work(worker)
    assert QUtilities.get_result(id, schema_name=A) == 2


def test_a_task_that_expired_is_not_started_and_has_a_failed_row(worker):
    tasks.client().delete("note:expired")
    id = add("tests.tasks.note_where", "expired", expires=PAST, hook="tests.tasks.note_hook", max_attempts=5)
    work(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert (task.success, task.attempt_count, tasks.notes("expired")) == (False, 1, [])
    assert task.result.startswith("TaskExpired: it was to start before 2001-01-01T00:00:00+00:00, ")
    assert QUtilities.get_status(id, schema_name=A) is State.FAILURE
    assert get_broker().counts().open == 0


def test_its_hook_is_called(worker, monkeypatch):
    called = []
    monkeypatch.setattr("tests.tasks.add", lambda task: called.append(task.success))
    add("math.floor", 2.5, expires=PAST, hook="tests.tasks.add")
    work(worker)
    assert called == [False]


def test_an_iter_fails_and_a_chain_ends(worker):
    id = QUtilities.add_async_tasks_from_iter("math.floor", [1.5, 2.5], schema_name=A, q_options={"expires": PAST})
    group = QUtilities.create_async_tasks_chain(
        [("math.floor", (1.5,), {"q_options": {"expires": PAST}}), "tests.tasks.add"], schema_name=A
    )
    work(worker)
    found = QUtilities.fetch_task(id, schema_name=A)
    assert not found.success and all(part.startswith("TaskExpired: ") for part in found.result)
    (link,) = QUtilities.fetch_task_group(group, schema_name=A)
    assert link.result.startswith("TaskExpired: ")


def expire(worker: Any, id: str) -> None:
    """Let the time of a package pass. Its place and its history stay."""
    live = get_broker().find(A, id)
    assert live
    from tenant_q.package.envelope import seal

    package = open_package(live.payload)
    package.task["expires"] = PAST
    client, key = tasks.client(), f"{get_broker().tag}:messages"
    head, _ = client.hget(key, id).decode().rsplit("\n", 1)
    client.hset(key, id, f"{head}\n{seal(package)}")


def test_a_retry_does_not_expire(worker):
    id = add("math.sqrt", -1, expires=FUTURE, max_attempts=2)
    work(worker)
    expire(worker, id)
    make_due()
    work(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert task.attempt_count == 2 and "TaskExpired" not in task.result


def test_what_was_started_before_its_worker_died_does_not_expire(worker):
    id = add("math.floor", 2.5, expires=FUTURE)
    get_broker().fetch("w2")
    get_broker().reclaim("w2", running=id)
    expire(worker, id)
    work(worker)
    assert QUtilities.get_result(id, schema_name=A) == 2


def test_what_was_given_back_unstarted_expires(worker):
    id = add("math.floor", 2.5, expires=FUTURE)
    get_broker().give_back("w2", get_broker().fetch("w2").leases)
    expire(worker, id)
    work(worker)
    assert QUtilities.get_result(id, schema_name=A).startswith("TaskExpired: ")


def test_a_transactional_task_that_was_taken_back_does_not_expire(worker, monkeypatch):
    id = add("math.floor", 2.5, expires=FUTURE)

    def take_back(*_: Any) -> None:
        raise TakenBack("taken back", TenantBusy("locked"))

    with monkeypatch.context() as patch:
        patch.setattr(worker.attempts, "run", take_back)
        worker.tick()
        assert QUtilities.get_status(id, schema_name=A) is State.DELAYED
    expire(worker, id)
    make_due()
    work(worker)
    assert QUtilities.get_result(id, schema_name=A) == 2


def test_a_declared_time_counts_from_the_call(worker):
    id = tasks_declared.soon.using(schema_name=A).enqueue()
    late = carried(id).option("expires") - datetime.now(UTC)
    assert timedelta(0) < late <= timedelta(seconds=30)
    forever = tasks_declared.soon.using(schema_name=A, expires=None).enqueue()
    assert carried(forever).option("expires") is None


def test_the_worker_applies_what_the_caller_did_not_know(tenants):
    from tenant_q.brokers.protocol import Lease
    from tenant_q.lifecycle.deliveries import Delivery
    from tenant_q.package import declarations

    package = build("tests.tasks_declared.soon", (), {"q_options": {"expires": None}}, schema=A)
    del package.task["expires"]
    package.task["started"] = timezone.now() - timedelta(minutes=1)
    delivery = Delivery(Lease(package.id, A, "", "1"), package)
    outcome = expired_outcome(delivery, declarations.complete(package))
    assert outcome and outcome.death == "TaskExpired"


def test_a_place_in_the_spread_is_added(settings, tenants):
    settings.TENANT_Q = {"schedule_spread": 600}
    with in_schema(A):
        row = Schedule(pk=1, func="math.floor", args="2.5", kwargs="q_options={'expires': 5}", next_run=timezone.now())
        package = fired_packages.package_of(row, A, "0" * 32)
    due = datetime.now(UTC) + timedelta(seconds=package.delay)
    assert timedelta(0) < package.option("expires") - due <= timedelta(seconds=5)


# delay


def test_a_delay_may_be_a_moment(worker):
    later = add("math.floor", 2.5, delay=datetime.now(UTC) + timedelta(minutes=1))
    assert QUtilities.get_status(later, schema_name=A) is State.DELAYED
    assert 50 < carried(later).delay <= 60
    past = add("math.floor", 2.5, delay=PAST)
    assert QUtilities.get_status(past, schema_name=A) is State.QUEUED


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"delay": datetime(2030, 1, 1)}, r"q_options\['delay'\] is .*, which has no time zone; make it aware with"),
        ({"expires": datetime(2030, 1, 1)}, r"q_options\['expires'\] is .*, which has no time zone"),
        ({"delay": datetime(9000, 1, 1, tzinfo=UTC)}, "or an aware datetime"),
        ({"delay": -1}, "0 or more"),
        ({"expires": 0}, "more than 0"),
        ({"expires": "soon"}, "an aware datetime, or None"),
        ({"expires": 5, "delay": 10}, "it would expire before its 'delay' of 10 s has passed"),
    ],
)
def test_a_wrong_time_is_refused(tenants, options, text):
    with pytest.raises(EnqueueError, match=text):
        add(**options)


# Keywords with the names of options


def test_a_keyword_that_the_function_takes_reaches_it(worker):
    id = QUtilities.add_async_task("tests.tasks_declared.takes_option_names", delay=4, unique=5, schema_name=A)
    work(worker)
    assert QUtilities.get_result(id, schema_name=A) == {"delay": 4, "unique": 5}


@pytest.mark.parametrize(
    "call",
    [
        lambda: QUtilities.add_async_task(tasks_declared.takes_one, 1, delay=4),
        lambda: QUtilities.add_async_task("tests.tasks_declared.plain", 1, delay=4),
        lambda: tasks_declared.plain.enqueue(1, delay=4),  # type: ignore[call-arg]
        lambda: QUtilities.add_async_tasks_from_iter(tasks_declared.takes_one, [1], delay=4),
        lambda: async_task(tasks_declared.plain, 1, delay=4),
        lambda: async_task("tests.tasks_declared.plain", 1, delay=4),
    ],
)
def test_a_keyword_that_it_does_not_take_names_the_option(tenants, call):
    form = r"takes no keyword 'delay'\. If it is meant .* q_options=\{\"delay\": 4\}, .* using\(delay=4\)"
    with in_schema(A), pytest.raises(EnqueueError, match=form):
        call()


def test_other_wrong_calls_fail_as_before(worker):
    id = QUtilities.add_async_task(tasks_declared.takes_one, 1, nonsense=4, schema_name=A)
    work(worker)
    assert "If it is meant" not in QUtilities.get_result(id, schema_name=A)


def test_the_failed_row_names_the_option(worker):
    id = QUtilities.add_async_task("tests.tasks_declared.takes_one", 1, delay=4, schema_name=A)
    work(worker)
    text = QUtilities.get_result(id, schema_name=A)
    assert "unexpected keyword argument 'delay'" in text and 'q_options={"delay": 4}' in text
