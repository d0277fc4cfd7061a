"""The scheduler: what it holds back, what it costs, and that each fire is one task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster import scheduler as scheduler_module
from tenant_q.cluster import scheduler_firing
from tenant_q.exceptions import DatabaseAway
from tenant_q.package.package import Package
from tenant_q.schedules import claims, due_index, fire, index_upkeep, recurrence
from tenant_q.schedules.fire import push_fires
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.integration.conftest import sql, work
from tests.integration.planning import (
    LATER,
    PAST,
    due_schemas,
    elsewhere,
    entries,
    fire_due,
    insert,
    is_right,
    on_the_wire,
)

# Held


@pytest.mark.seam
def test_a_paused_tenant_is_held_and_resumed_at_once(tenants, unlimited, scheduler, told):
    policies.change("acme_corp", actor="test", act="pause", paused=True)
    id = insert(next_run=PAST)
    scheduler.tick()
    assert entries()[id][2] == due_index.PAUSED
    assert due_schemas() == []
    while (seconds := scheduler.tick()) == scheduler_module.VERIFY_PAUSE:  # a slow machine verifies in several ticks
        pass
    assert seconds == scheduler_module.POLL_SECONDS
    told()
    policies.change("acme_corp", actor="test", act="resume", paused=False)
    assert told() == [""], "a scheduler that sleeps is woken"
    assert due_schemas() == ["acme_corp"]
    scheduler.tick()
    assert get_broker().queue_size("acme_corp") == 1
    assert entries()[id][2] == ""


def test_what_a_held_tenant_changes_is_looked_at_again(tenants, unlimited, scheduler):
    policies.change("acme_corp", actor="test", act="pause", paused=True)
    id = insert(next_run=PAST)
    scheduler.tick()
    sql("UPDATE acme_corp.django_q_schedule SET next_run = %s", PAST + timedelta(days=1))
    assert entries()[id] == ("", PAST + timedelta(days=1), "")
    scheduler.tick()
    assert entries()[id][2] == due_index.PAUSED
    assert get_broker().counts().queued == 0


def test_a_tenant_that_is_not_ready(tenants, scheduler, settings, caplog):
    settings.TENANT_Q = {"ready_tenants": f"{__name__}.only_globex"}
    insert("acme_corp", PAST)
    insert("globex_inc", PAST)
    scheduler.tick()
    assert [held for _, _, held in entries().values()] == [due_index.UNREADY]
    assert [get_broker().queue_size(name) for name in ("acme_corp", "globex_inc")] == [0, 1]
    assert 0 < next(one.seconds for one in due_index.look() if one.schema == "acme_corp") <= 30
    settings.TENANT_Q = {}
    tenancy.forget_tenants()
    due_index.release(due_index.UNREADY)
    scheduler.tick()
    assert get_broker().queue_size("acme_corp") == 1


def only_globex(tenants: Any) -> Any:
    return tenants.filter(schema_name="globex_inc")


def test_a_schema_of_no_tenant(spare, scheduler, caplog):
    insert(spare, timezone.now(), id=1)
    insert("acme_corp", timezone.now())
    tenancy.tenant_model().objects.filter(schema_name=spare).delete()
    for _ in range(3):
        scheduler.tick()
    assert entries(spare) == {}
    assert get_broker().queue_size("acme_corp") == 1


def test_a_hold_waits_for_nobody(tenants):
    """Who writes a schedule may wait for another of them; to wait for him could be to wait in a circle."""
    id = insert(next_run=PAST)
    with elsewhere() as other, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '1s'")
        other.execute("UPDATE acme_corp.django_q_schedule SET next_run = next_run + interval '1 second'")
        due_index.hold("acme_corp", due_index.FAILED, 30)
        due_index.release(due_index.FAILED)
    assert entries()[id][2] == ""


# What it costs


def settle(scheduler: Any) -> None:
    """All that a scheduler does when it starts is done."""
    while scheduler.tick() < 1:
        pass


@pytest.mark.seam
@pytest.mark.parametrize("tenants_more", [0, 50])
def test_an_idle_tick_is_one_statement_and_one_for_workflows(tenants, scheduler, tenants_more):
    names = [f"idle_{n:02}" for n in range(tenants_more)]
    schemas.clone_tenants(names)
    try:
        for name in (*tenants, *names):
            insert(name, LATER, id=1)
        settle(scheduler)
        with on_the_wire() as asked:
            assert scheduler.tick() == scheduler_module.POLL_SECONDS
        assert len(asked) == 2, asked
        assert "tenant_q_dueschedule" in asked[0]
        assert "tenant_q_dueworkflow" in asked[1]
    finally:
        for name in names:
            schemas.drop_tenant(name)
        index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())
        tenancy.forget_tenants()


def fill(count: int, *, due: int = 0) -> None:
    """An index of `count` tenants that are planned, `due` of them now."""
    sql("DELETE FROM tenant_q_dueschedule WHERE schema_name LIKE 'filled_%%'")
    sql(
        "INSERT INTO tenant_q_dueschedule (schema_name, schedule_id, cluster, next_run, due, held) "
        "SELECT 'filled_' || n, n, '', moment, moment, '' "
        "FROM generate_series(1, %s) AS n, LATERAL (SELECT now() + (CASE WHEN n <= %s THEN -n ELSE 3600 + n END) "
        "* interval '1 second' AS moment) AS planned",
        count,
        due,
    )
    sql("VACUUM ANALYZE tenant_q_dueschedule")


@pytest.fixture
def filled(tenants) -> Iterator[None]:
    yield
    fill(0)


def buffers() -> tuple[int, str]:
    """How many pages a look reads, and how."""
    with tenancy.raw_cursor() as cursor:
        text = due_index.look_query().as_string(connection.connection)
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}")
        ((plan,),) = cursor.fetchall()
    root = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return root["Shared Hit Blocks"] + root["Shared Read Blocks"], json.dumps(root)


def test_a_look_reads_as_many_pages_whatever_the_number_of_tenants(filled):
    read = {}
    for count in (1_000, 10_000):
        fill(count)
        buffers()
        read[count], plan = buffers()
        assert "Seq Scan" not in plan
    assert read[1_000] == read[10_000] <= 20, read


def test_what_is_due_costs_what_is_due(filled):
    fill(10_000, due=3)
    assert len([one for one in due_index.look() if one.seconds <= 0]) == 3
    few, _ = buffers()
    assert few <= 30


@pytest.mark.seam
def test_a_pass_asks_as_often_for_one_as_for_fifty(tenants):
    def count_pass() -> int:
        with on_the_wire() as asked:
            assert fire.fire_due("acme_corp") > 0
        return len(asked)

    insert(next_run=PAST)
    count_pass()  # what is cached is
    sql("TRUNCATE acme_corp.django_q_schedule")
    counts = []
    for number in (1, 50):
        for _ in range(number):
            insert(next_run=timezone.now() - timedelta(seconds=1))
        counts.append(count_pass())
        assert due_schemas() == []
    assert counts[0] == counts[1]


def test_a_busy_tick_ends(tenants, scheduler, monkeypatch):
    """After `BUSY_SECONDS`; the next one goes on with those that were not served."""
    settle(scheduler)
    monkeypatch.setattr(scheduler_firing, "BUSY_SECONDS", 0.0)
    for name in tenants:
        insert(name, PAST, schedule_type="H")
    fired = []
    for _ in range(6):
        assert scheduler.tick() == 0
        fired.append([get_broker().queue_size(name) for name in tenants])
    assert [sum(one) for one in fired] == [1, 2, 3, 4, 5, 6], "one pass a tick"
    assert fired[2] == [1, 1, 1], "and each tenant once before one is served again"
    assert scheduler.slot.done == 1, "a round that goes on is no tick that looked at everything"


def test_a_busy_tick_ends_at_a_stop(tenants, scheduler, monkeypatch):
    settle(scheduler)
    for name in tenants:
        insert(name, PAST)
    real = fire.fire_due

    def fire_and_note(schema: str) -> int:
        scheduler.stopping.set()
        return real(schema)

    monkeypatch.setattr(fire, "fire_due", fire_and_note)
    scheduler.tick()
    assert sum(get_broker().queue_size(name) for name in tenants) == 1


def test_a_backlog_does_not_hide_the_others(tenants, scheduler, monkeypatch):
    """More is due of one tenant than a look sees."""
    settle(scheduler)
    monkeypatch.setattr(due_index, "LOOK", 5)
    monkeypatch.setattr(claims, "FIRES_A_PASS", 2)
    for n in range(12):
        insert("acme_corp", PAST + timedelta(seconds=n))
    insert("globex_inc", PAST + timedelta(days=1))
    scheduler.tick()
    assert get_broker().queue_size("globex_inc") == 0
    scheduler.tick()
    assert [get_broker().queue_size(name) for name in ("acme_corp", "globex_inc")] == [2, 1]


def test_what_is_left_of_a_pass_is_fired_at_once(tenants, scheduler, monkeypatch):
    """A pass takes a part only, and a schedule that catches up is due again: neither waits for the poll."""
    settle(scheduler)
    monkeypatch.setattr(claims, "FIRES_A_PASS", 2)
    for _ in range(5):
        insert(next_run=timezone.now() - timedelta(minutes=90), schedule_type="H")
    pauses: list[float] = []
    while not pauses or pauses[-1] == 0:
        pauses.append(scheduler.tick())
    assert get_broker().counts().queued == 10


def test_looked_once_is_looked_at_everything(tenants, make_scheduler, monkeypatch):
    """`--run-once` ends when nothing is due, however many ticks that takes."""
    monkeypatch.setattr(scheduler_firing, "BUSY_SECONDS", 0.0)
    for name in tenants:
        insert(name, PAST, schedule_type="O")
    scheduler = make_scheduler()
    scheduler.once = True
    scheduler.run()
    assert [get_broker().queue_size(name) for name in tenants] == [1, 1, 1]


# Exactly once


class Crash(BaseException):
    """Stands for `kill -9`."""


class Killer:
    """Ends the session at the `at`th step: before or after an exchange with the server, or around the push.

    Nothing that Python does afterwards reaches the server, as nothing does after `kill -9`.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps: list[str] = []
        connection.ensure_connection()
        self.session = connection.connection
        self._wait = self.session.wait

    @property
    def has_struck(self) -> bool:
        return len(self.steps) >= self.at

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Its block ends without an error, whatever the kill leads to."""
        self.session.wait = self.wait
        try:
            yield
        except (Crash, DatabaseAway, *tenancy.DATABASE_ERRORS):
            assert self.has_struck
        finally:
            del self.session.wait
            connections.close_all()

    def step(self, what: str) -> None:
        if self.has_struck:
            return
        self.steps.append(what)
        if self.has_struck:
            pid = self.session.info.backend_pid
            self.session.close()
            schemas.terminate(pid)  # returns when it is gone, and its locks with it
            raise Crash(what)

    def wait(self, exchange: Any, *args: Any, **kwargs: Any) -> Any:
        """Each exchange of the driver's with the server comes past here, also COMMIT."""
        text = exchange.gi_frame.f_locals.get("query", exchange.__name__.strip("_"))
        text = text.as_string() if isinstance(text, psycopg.sql.Composable) else text
        text = " ".join((text.decode() if isinstance(text, bytes) else text).split())
        self.step(f"before {text}")
        result = self._wait(exchange, *args, **kwargs)
        self.step(f"after {text}")
        return result

    def push_fires(self, packages: Any) -> None:
        self.step("before the push")
        push_fires(packages)
        self.step("after the push")


@pytest.mark.seam
@pytest.mark.parametrize("is_worker_fast", [False, True])
def test_killed_between_every_two_statements(tenants, worker, is_worker_fast):
    """A good row, one that ends with this fire and one that fails: each occurrence takes effect once.

    Whether a worker does what was pushed before or after the next scheduler fires again.
    """
    kills: list[str] = []
    while True:
        at = len(kills) + 1
        sql("TRUNCATE acme_corp.django_q_schedule, acme_corp.django_q_task")
        keys = [f"{get_broker().cluster}-{at}-{name}" for name in ("again", "once")]
        for key, kind in zip(keys, "DO", strict=True):
            insert(next_run=timezone.now(), func="tests.tasks.note", args=f"('{key}',)", schedule_type=kind)
        insert(next_run=timezone.now(), name="bad", args="(((")
        killer = Killer(at)
        with killer.at_work():
            assert fire_due("acme_corp", killer.push_fires) == 3
        if killer.has_struck:
            kills.append(killer.steps[-1])
            is_committed = "after commit_gen" in killer.steps
            if is_worker_fast:
                work(worker)
            assert due_schemas() == ([] if is_committed else ["acme_corp"]), kills[-1]
            assert fire.fire_due("acme_corp") == (0 if is_committed else 3), kills[-1]
        assert fire.fire_due("acme_corp") == 0
        work(worker)
        assert [len(tasks.notes(key)) for key in keys] == [1, 1], kills[-1:]
        assert [task.success for task in QUtilities.fetch_task_group("bad", schema_name="acme_corp")] == [False]
        assert is_right()
        if not killer.has_struck:
            break
    for kind in ("lock_timeout", "FOR UPDATE SKIP LOCKED", "UPDATE ", "DELETE", "INSERT", "the push", "commit_gen"):
        assert {kill.split()[0] for kill in kills if kind in kill} == {"before", "after"}, (kind, kills)


# A cluster's clock is so far ahead of the database's. Minutes, so that no slow machine makes up for it.
CLOCKS = [timedelta(minutes=2), timedelta(minutes=-2)]


@pytest.mark.parametrize("ahead", CLOCKS)
def test_the_databases_clock_decides(tenants, monkeypatch, ahead):
    """Two clusters whose clocks are apart fire the same, at the same moments."""
    real = timezone.now
    insert(next_run=real() + timedelta(minutes=1), name="soon")
    insert(next_run=real() - timedelta(minutes=1), name="due")
    monkeypatch.setattr(timezone, "now", lambda: real() + ahead)
    pushed: list[Package] = []
    assert fire_due("acme_corp", pushed.extend) == 1
    assert [package.group for package in pushed] == ["due"]
    assert due_schemas() == []


@pytest.mark.parametrize("ahead", CLOCKS)
def test_the_databases_clock_says_what_was_missed(tenants, monkeypatch, settings, ahead):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": False}
    real = timezone.now
    planned = real() - timedelta(hours=1) + ahead / 2  # one clock says that the next was missed, too
    id = insert(next_run=planned, schedule_type="H")
    monkeypatch.setattr(timezone, "now", lambda: real() + ahead)
    fire_due("acme_corp", lambda _: None)
    assert entries()[id][1] == planned + timedelta(hours=1 if ahead > timedelta(0) else 2)


def test_the_schedulers_sleep_is_by_the_databases_clock(tenants, monkeypatch, scheduler):
    settle(scheduler)
    real = timezone.now
    insert(next_run=real() + timedelta(seconds=20))
    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(seconds=25))
    assert 10 < scheduler.tick() <= 20


# Types and time


@pytest.mark.parametrize("catch_up", [True, False])
@pytest.mark.parametrize("kind", [*recurrence.Kind])
def test_catching_up(tenants, settings, catch_up, kind):
    """With it each missed run is one fire, without it only one is, and the next is the first that is not missed."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": catch_up}
    days = {"I": 1, "H": 1, "D": 5, "C": 5, "W": 30, "BW": 60, "M": 100, "BM": 200, "Q": 300, "Y": 1100, "O": 1}[kind]
    fields = {"minutes": 300} if kind == "I" else {"cron": "15 4 * * *"} if kind == "C" else {}
    planned = timezone.now().replace(second=0, microsecond=0) - timedelta(days=days)
    if kind == "C":
        planned = planned.replace(hour=4, minute=15)
    id = insert(next_run=planned, schedule_type=kind, **fields)
    expected = [planned]
    while kind != "O" and expected[-1] <= timezone.now():
        expected.append(recurrence.next_run(kind, expected[-1], zone=ZoneInfo("UTC"), **fields))
    pushed: list[Package] = []
    fires = 0
    while fire_due("acme_corp", pushed.extend):
        fires += 1
    assert (
        fires == len({package.id for package in pushed}) == (len(expected) - 1 if catch_up else 1) if kind != "O" else 1
    )
    if kind == "O":
        assert entries() == {}
    else:
        assert fires > 2 or not catch_up
        assert entries()[id][1] == expected[-1]


@pytest.mark.parametrize(
    ("zone", "begin"),
    [
        ("Europe/Berlin", datetime(2025, 3, 28, 6)),
        ("Europe/Berlin", datetime(2025, 10, 24, 6)),
        ("America/New_York", datetime(2025, 3, 7, 6)),
        ("America/New_York", datetime(2025, 10, 31, 6)),
    ],
)
@pytest.mark.parametrize("fields", [{"schedule_type": "D"}, {"schedule_type": "C", "cron": "0 6 * * *"}])
def test_six_in_the_morning_stays_six_in_the_morning(tenants, settings, zone, begin, fields):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"time_zone": zone}
    local = ZoneInfo(zone)
    id = insert(next_run=begin.replace(tzinfo=local), **fields)
    seen = []
    for _ in range(4):
        seen.append(entries()[id][1].astimezone(local).replace(tzinfo=None))
        assert fire_due("acme_corp", lambda _: None) == 1
    assert seen == [begin + timedelta(days=n) for n in range(4)]


@pytest.mark.parametrize(
    ("kind", "begin", "following"),
    [
        ("M", "2024-01-31", ["2024-02-29", "2024-03-29", "2024-04-29"]),
        ("M", "2025-01-31", ["2025-02-28", "2025-03-28"]),
        ("BM", "2025-12-31", ["2026-02-28", "2026-04-28"]),
        ("Q", "2024-11-30", ["2025-02-28", "2025-05-28"]),
        ("Y", "2020-02-29", ["2021-02-28", "2022-02-28"]),
        ("D", "2024-02-28", ["2024-02-29", "2024-03-01"]),
        ("C", "2020-02-29", ["2024-02-29"]),
    ],
)
def test_month_ends_and_leap_days(tenants, kind, begin, following):
    id = insert(next_run=f"{begin} 06:00+00", schedule_type=kind, cron="0 6 29 2 *" if kind == "C" else None)
    seen = []
    for _ in following:
        assert fire_due("acme_corp", lambda _: None) == 1
        seen.append(f"{entries()[id][1]:%Y-%m-%d}")
    assert seen == following


@pytest.mark.parametrize("kind", ["D", "M", "H"])
def test_the_first_days_of_the_calendar(tenants, settings, kind):
    """Nobody means such a row, and it is no error of any other's."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": False, "time_zone": "America/New_York"}
    id = insert(next_run="0001-01-02 00:00+00", schedule_type=kind)
    insert(next_run=timezone.now(), name="good")
    pushed: list[Package] = []
    assert fire_due("acme_corp", pushed.extend) == 2
    assert [package.group for package in pushed] == [str(id), "good"]
    assert entries()[id][1] > timezone.now()


# Spread


def offsets(**settings_of_it: Any) -> dict[tuple[str, int], float]:
    pushed: list[Package] = []
    for name in schemas.TENANTS:
        sql(f"UPDATE {name}.django_q_schedule SET next_run = %s", PAST)
        fire_due(name, pushed.extend)
    return {(package.schema, int(package.group)): package.delay for package in pushed}


def test_spread(tenants, settings):
    """A stable place in the span for each tenant's schedule, which differs between tenants with equal ids."""
    for name in tenants:
        for id in range(1, 31):
            insert(name, PAST, id=id)
    assert set(offsets().values()) == {0}
    settings.TENANT_Q = {"schedule_spread": 600}
    found = offsets()
    assert found == offsets(), "always the same"
    assert len(set(found.values())) == 90
    assert all(0 <= delay < 600 for delay in found.values())
    assert sum(delay < 300 for delay in found.values()) in range(25, 66), "over all of the span"
    settings.TENANT_Q = {"schedule_spread": 60}
    assert offsets() == {key: pytest.approx(delay / 10) for key, delay in found.items()}


def test_spread_comes_on_top_of_a_delay_and_waits_in_the_broker(tenants, settings, scheduler):
    settings.TENANT_Q = {"schedule_spread": 600}
    id = insert(next_run=PAST, kwargs="{'q_options': {'delay': 1000}}")
    pushed: list[Package] = []
    fire_due("acme_corp", pushed.extend)
    assert 1000 <= pushed[0].delay < 1600
    sql("UPDATE acme_corp.django_q_schedule SET next_run = %s, kwargs = NULL WHERE id = %s", PAST, id)
    scheduler.tick()
    assert (get_broker().counts().queued, get_broker().counts().delayed) == (0, 1)
