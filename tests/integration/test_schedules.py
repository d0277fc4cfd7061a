"""Schedules of every tenant: each occurrence becomes one task, in its tenant, whatever another's rows look like."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, connection
from django.utils import timezone
from django_q import tasks as django_q_tasks
from django_q.models import Schedule, Task
from django_q.signals import pre_enqueue

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster import scheduler as scheduler_module
from tenant_q.exceptions import BrokerError, DatabaseAway
from tenant_q.package.build import deterministic_id
from tenant_q.package.envelope import open_package
from tenant_q.package.package import Package
from tenant_q.schedules import claims, due_index, index_upkeep, recurrence
from tenant_q.schedules import fire as firing
from tenant_q.schedules.fire import push_fires
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.integration.conftest import sql, work
from tests.integration.planning import fire_due

HERE = __name__
PAST = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)


@pytest.fixture
def make(tenants) -> Callable[..., Schedule]:
    """A schedule of a tenant that is due since a while, or at `next_run`."""

    def make_it(schema: str = "acme_corp", func: str = "tests.tasks.add", *args: Any, **fields: Any) -> Schedule:
        values = {"schedule_type": "D", "next_run": timezone.now() - timedelta(seconds=1)} | fields
        args = args or ((1,) if func == "tests.tasks.add" else ())
        return QUtilities.create_schedule(func, *args, schema_name=schema, **values)

    return make_it


@pytest.fixture
def pushed(tenants) -> list[Package]:
    return []


@pytest.fixture
def fire(pushed) -> Callable[..., int]:
    """One tenant's pass; what it pushes is only noted."""

    def fire_it(schema: str = "acme_corp", push: Any = pushed.extend) -> int:
        return fire_due(schema, push)

    return fire_it


def again(schedule: Schedule, schema: str = "acme_corp") -> Schedule:
    """The row as it is now."""
    with in_schema(schema):
        return Schedule.objects.get(pk=schedule.pk)


def change(schedule: Schedule, schema: str = "acme_corp", **values: Any) -> None:
    """Past all that checks it, as a restored dump or raw SQL."""
    with in_schema(schema):
        Schedule.objects.filter(pk=schedule.pk).update(**values)


def failures(schema: str = "acme_corp") -> list[Task]:
    with in_schema(schema):
        return list(Task.objects.filter(success=False))


# Types


@pytest.mark.parametrize(
    ("kind", "fields", "following"),
    [
        ("I", {"minutes": 7}, datetime(2026, 1, 31, 12, 37)),
        ("H", {}, datetime(2026, 1, 31, 13, 30)),
        ("D", {}, datetime(2026, 2, 1, 12, 30)),
        ("W", {}, datetime(2026, 2, 7, 12, 30)),
        ("BW", {}, datetime(2026, 2, 14, 12, 30)),
        ("M", {}, datetime(2026, 2, 28, 12, 30)),
        ("BM", {}, datetime(2026, 3, 31, 12, 30)),
        ("Q", {}, datetime(2026, 4, 30, 12, 30)),
        ("Y", {}, datetime(2027, 1, 31, 12, 30)),
        ("C", {"cron": "15 4 * * *"}, datetime(2026, 2, 1, 4, 15)),
    ],
)
def test_every_type_has_its_next_run(make, fire, pushed, kind, fields, following):
    schedule = make(schedule_type=kind, **fields)
    change(schedule, next_run=PAST)  # Django-Q2 itself plans the first run of a cron schedule
    assert fire() == 1
    (package,) = pushed
    assert (package.func, package.args, package.schema) == ("tests.tasks.add", (1,), "acme_corp")
    now = again(schedule)
    assert now.next_run == following.replace(tzinfo=UTC)
    assert now.repeats == -1
    assert now.task == package.id == deterministic_id("fire", scope(), schedule.pk, PAST.isoformat(), None)


def scope() -> str:
    """What stands for the tenant in the ids of its fires."""
    key = tenancy.keys_now(["acme_corp"])["acme_corp"]
    return tenancy.scope("acme_corp", key, tenancy.created_at("acme_corp", key))


def test_a_schedule_of_another_cluster_goes_to_its_queue(make, fire, pushed):
    make(cluster=get_broker().cluster)
    assert fire() == 1
    assert pushed[0].option("cluster") == get_broker().cluster


def test_a_failed_fire_that_cannot_be_saved_stays_due(make, fire, pushed, monkeypatch):
    """Its row is in the transaction that moves the schedule on: both or neither."""
    schedule = make(schedule_type="H")
    change(schedule, args="(((")
    monkeypatch.setattr(firing.save_results, "save", lambda outcomes: {"acme_corp": OSError("disk full")})
    with pytest.raises(OSError, match="disk full"):
        fire()
    assert again(schedule).next_run == schedule.next_run


def test_a_pass_does_not_begin_where_the_schema_is_gone(fire, pushed, tenants, monkeypatch):
    asked = []
    monkeypatch.setattr(tenancy.switching, "verify", lambda schema, *_, **__: asked.append(schema))
    fire()
    assert asked == ["acme_corp"]


def test_every_type_is_tried_here():
    assert {code for code, _ in Schedule.TYPE} == {"O", "I", "H", "D", "W", "BW", "M", "BM", "Q", "Y", "C"}


def test_once_is_deleted(make, fire, pushed):
    schedule = make(schedule_type="O", repeats=-1)
    assert fire() == 1
    assert len(pushed) == 1
    with pytest.raises(Schedule.DoesNotExist):
        again(schedule)


@pytest.mark.parametrize("repeats", [1, 5])
def test_once_with_repeats_stays_and_is_done(make, fire, pushed, repeats):
    schedule = make(schedule_type="O", repeats=repeats)
    assert (fire(), fire()) == (1, 0)
    assert again(schedule).repeats == 0
    assert again(schedule).task == pushed[0].id


def test_repeats_count_down(make, fire, pushed):
    schedule = make(schedule_type="H", next_run=PAST, repeats=2)
    left = []
    for _ in range(3):
        fire()
        left.append(again(schedule).repeats)
    assert left == [1, 0, 0]
    assert len(pushed) == 2


@pytest.mark.parametrize("fields", [{"repeats": 0}, {"next_run": timezone.now() + timedelta(days=1)}])
def test_what_is_not_due_does_not_fire(make, fire, pushed, fields):
    schedule = make(**fields)
    before = again(schedule).next_run
    assert fire() == 0
    assert pushed == []
    assert again(schedule).next_run == before


def test_without_a_next_run_nothing_is_due(make, fire, scheduler):
    schedule = make()
    change(schedule, next_run=None)
    assert fire() == 0
    assert due_index.look() == []
    scheduler.tick()


# Catching up


def test_each_missed_run_is_made_up_for(make, fire, pushed):
    schedule = make(schedule_type="H", next_run=timezone.now() - timedelta(hours=3, minutes=1))
    fired = [fire() for _ in range(5)]
    assert fired == [1, 1, 1, 1, 0]
    assert len({package.id for package in pushed}) == 4
    assert again(schedule).next_run > timezone.now()


def test_missed_runs_are_left_out(make, fire, pushed, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": False}
    planned = timezone.now() - timedelta(hours=3, minutes=1)
    schedule = make(schedule_type="H", next_run=planned)
    assert [fire() for _ in range(3)] == [1, 0, 0]
    assert again(schedule).next_run == planned + timedelta(hours=4), "in its phase"


# What the task is


def test_arguments_and_options(make, fire, pushed):
    make("acme_corp", "tests.tasks.add", 1, b=[2, "x"], name="n", hook="tests.tasks.hook", q_options={"timeout": 5})
    fire()
    (package,) = pushed
    assert (package.args, package.kwargs) == ((1,), {"b": [2, "x"]})
    assert (package.group, package.option("hook"), package.option("timeout")) == ("n", "tests.tasks.hook", 5)
    open_package(get_sealed(package))


def get_sealed(package: Package) -> str:
    from tenant_q.lifecycle.push import sealed

    return sealed(package)


def test_the_group_of_a_schedule_without_a_name(make, fire, pushed):
    schedule = make()
    fire()
    assert pushed[0].group == str(schedule.pk)


def test_options_may_set_the_group(make, fire, pushed):
    make(name="n", q_options={"group": "own", "task_name": "t"})
    fire()
    assert (pushed[0].group, pushed[0].name) == ("own", "t")


@pytest.mark.parametrize("catch_up", [True, False])
def test_the_intended_date(make, fire, pushed, settings, catch_up):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": catch_up}
    make("acme_corp", "tests.tasks.intended", next_run=PAST, intended_date_kwarg="date")
    fire()
    assert pushed[0].kwargs == {"date": PAST.isoformat()}


def test_the_schema_that_the_2020_package_left_in_the_row(make, fire, pushed):
    schedule = make()
    change(schedule, kwargs="{'schema_name': 'globex_inc', 'b': 2}")
    fire()
    assert (pushed[0].schema, pushed[0].kwargs) == ("acme_corp", {"b": 2})


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ("1, 'x'", "a=1, b='x'", ((1, "x"), {"a": 1, "b": "x"})),
        ("5", "{'a': None}", ((5,), {"a": None})),
        (None, None, ((), {})),
        ("", "", ((), {})),
    ],
)
def test_arguments_as_the_admin_writes_them(make, fire, pushed, args, kwargs, expected):
    change(make(), args=args, kwargs=kwargs)
    fire()
    assert (pushed[0].args, pushed[0].kwargs) == expected


@pytest.mark.seam
def test_it_runs_in_its_tenant(tenants, make, scheduler, worker):
    for name in tenants:
        make(name, "tests.tasks.note_where", f"{get_broker().cluster}-{name}", name="n", hook="tests.tasks.hook")
    scheduler.tick()
    work(worker)
    for name in tenants:
        (note,) = tasks.notes(f"{get_broker().cluster}-{name}")
        assert (note["schema"], note["tenant"]) == (name, name)
        (task,) = QUtilities.fetch_task_group("n", schema_name=name)
        assert tasks.notes(f"hook:{task.id}")[0]["schema"] == name


def test_receivers_of_pre_enqueue_are_told(make, scheduler):
    seen: list[Any] = []

    def receiver(task: dict[str, Any], **_: Any) -> None:
        seen.append((connection.schema_name, task["func"]))

    pre_enqueue.connect(receiver)
    try:
        make("globex_inc")
        scheduler.tick()
    finally:
        pre_enqueue.disconnect(receiver)
    assert seen == [("globex_inc", "tests.tasks.add")]


# Creating


def test_creating_a_schedule(tenants):
    with in_schema("acme_corp"):
        schedule = QUtilities.create_schedule(
            "tests.tasks.add", 1, 2, b=3, name="n", schedule_type="D", cron="0 6 * * *", repeats=4, cluster="long",
            hook="tests.tasks.hook", next_run=PAST, intended_date_kwarg="date",
        )  # fmt: skip
        plain = django_q_tasks.schedule("tests.tasks.add", 1)
        assert list(Schedule.objects.order_by("pk")) == [schedule, plain]
    schedule = again(schedule)
    assert (schedule.args, schedule.kwargs, schedule.name, schedule.cron) == ("(1, 2)", "{'b': 3}", "n", "0 6 * * *")
    assert (schedule.repeats, schedule.cluster, schedule.hook) == (4, "long", "tests.tasks.hook")
    assert (schedule.next_run, schedule.intended_date_kwarg) == (PAST, "date")
    assert (plain.schedule_type, plain.repeats) == ("O", -1)
    with in_schema("globex_inc"):
        assert not Schedule.objects.exists()


def test_equal_names(tenants, make):
    make("acme_corp", name="n")
    make("globex_inc", name="n")
    with pytest.raises(IntegrityError, match="same name"):
        make("acme_corp", name="n")


@pytest.mark.parametrize("fields", [{"schedule_type": "X"}, {"cron": "99 * * * *"}, {"minutes": -1}])
def test_a_wrong_field_is_refused(make, fields):
    with pytest.raises(ValidationError):
        make(**fields)


# Clusters


@pytest.mark.parametrize(
    ("site", "cluster", "fires"),
    [
        (None, None, {"unnamed", "own"}),
        ("site", "own", {"own"}),
        ("site", "long", {"long"}),
    ],
)
def test_a_cluster_serves_its_own_schedules(make, fire, pushed, settings, site, cluster, fires):
    own = settings.Q_CLUSTER["name"]
    for name, value in (("unnamed", None), ("own", own), ("long", "long")):
        make(name=name, cluster=value)
    settings.Q_CLUSTER = settings.Q_CLUSTER | {
        "name": site or own,
        "cluster_name": {"own": own}.get(cluster, cluster) or own,
    }
    assert [due.schema for due in due_index.look() if due.seconds <= 0] == ["acme_corp"]
    fire()
    assert {package.group for package in pushed} == fires
    assert [due.seconds > 0 for due in due_index.look()] == [True], "only its own are looked at"


def test_a_task_goes_to_its_schedules_cluster(make, settings, other_cluster):
    make(name="long", cluster=other_cluster("long"))
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"cluster_name": "long"}
    firing.fire_due("acme_corp")
    assert get_broker("long").counts().queued == 1
    assert get_broker(settings.Q_CLUSTER["name"]).counts().queued == 0


# Which tenants


def test_excluded_schemas_are_not_served(tenants, make, scheduler, make_scheduler, settings):
    for name in tenants:
        make(name)
    settings.SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER = ["public", "globex_inc"]
    scheduler.tick()
    assert [get_broker().queue_size(name) for name in tenants] == [1, 0, 1]
    assert [due.schema for due in due_index.look() if due.seconds <= 0] == [], "it is not looked at again and again"
    settings.SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER = ["public"]
    scheduler.tick()
    assert get_broker().queue_size("globex_inc") == 0
    make_scheduler().tick()
    assert get_broker().queue_size("globex_inc") == 1, "the next scheduler to start looks again"


@pytest.mark.seam
def test_a_new_tenant_is_served_without_a_restart(tenants, make, scheduler, worker):
    scheduler.tick()
    schemas.clone_tenants(["newcomer"])
    try:
        # Cloned tables share the template's sequence of ids.
        make("newcomer", "tests.tasks.where", name="n")
        scheduler.tick()
        work(worker)
        assert QUtilities.get_result_group("n", schema_name="newcomer")[0]["schema"] == "newcomer"
    finally:
        schemas.drop_tenant("newcomer")
        tenancy.forget_tenants()
    scheduler.tick()


def test_the_scheduler_sleeps_until_the_next_run(tenants, make, scheduler):
    while (seconds := scheduler.tick()) == scheduler_module.VERIFY_PAUSE:  # a slow machine verifies in several ticks
        pass
    assert seconds == scheduler_module.POLL_SECONDS
    make(next_run=timezone.now() + timedelta(days=1))
    assert scheduler.tick() == scheduler_module.POLL_SECONDS
    make(next_run=timezone.now() + timedelta(seconds=0.3))
    assert 0 <= scheduler.tick() <= 0.3
    assert scheduler.slot.done == 3


def test_many_due_schedules_of_a_tenant_fire_in_several_passes(tenants, make, fire, pushed, monkeypatch):
    monkeypatch.setattr(claims, "FIRES_A_PASS", 3)
    for n in range(7):
        make(name=f"{n}", next_run=PAST + timedelta(minutes=n))
    assert [fire() for _ in range(3)] == [3, 3, 3]
    assert [package.group for package in pushed][:7] == [f"{n}" for n in range(7)], "the earliest first"


# Bad rows


BAD_ARGS = [
    ({"args": "1, os.system('x')"}, "arguments do not parse as Python literals at column 4: this is not a literal"),
    ({"args": "(1,\n  name)"}, "arguments do not parse as Python literals at line 2, column 3"),
    ({"kwargs": "a=1, b=now()"}, "keyword arguments do not parse as Python literals at column 8"),
    ({"kwargs": "{'a': 1"}, "keyword arguments do not parse"),
    ({"kwargs": "q_options={'no_such': 1}"}, "q_options has an unknown option 'no_such'"),
    ({"kwargs": "q_options={'max_deliveries': 0}"}, "it must be a whole number of at least 1"),
]
NOT_A_DICT = [
    ({"kwargs": "q_options=5"}, "q_options"),
    ({"kwargs": "q_options='text'"}, "q_options"),
    ({"kwargs": "q_options=[1, 2]"}, "q_options"),
]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        *BAD_ARGS,
        *(pytest.param(*case) for case in NOT_A_DICT),
    ],
)
def test_a_row_that_cannot_be_understood(make, scheduler, worker, bad, words):
    """It leaves a failed row that names it and the place, its next run moves on, and the others fire."""
    planned = timezone.now() - timedelta(seconds=1)
    broken = make(name="broken", next_run=planned)
    nameless = make(next_run=planned)
    for schedule in (broken, nameless):
        change(schedule, **bad)
    good = [make(name="good"), make("globex_inc", name="good")]
    scheduler.tick()
    told = {task.group: task for task in failures()}
    assert set(told) == {"broken", str(nameless.pk)}
    task = told["broken"]
    assert task.result.startswith(
        f"ScheduleFailed: schedule 'broken' (id {broken.pk}), planned for {planned.isoformat()}: "
    )
    assert words in task.result
    assert f"schedule id {nameless.pk}, planned for" in told[str(nameless.pk)].result
    assert (task.func, task.name, task.id) == ("tests.tasks.add", "broken", again(broken).task)
    assert again(broken).next_run == planned + timedelta(days=1)
    work(worker)
    for schema, schedule in zip(("acme_corp", "globex_inc"), good, strict=True):
        assert QUtilities.get_result_group("good", schema_name=schema) == [1]
        assert again(schedule, schema).next_run > timezone.now()


def test_a_bad_row_fails_each_time_it_is_due(make, fire, pushed):
    schedule = make(name="broken", schedule_type="H", next_run=PAST)
    change(schedule, args="(((")
    assert [fire(), fire()] == [1, 1]
    assert pushed == []
    assert len(failures()) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule_type": "C", "cron": "99 * * * *"}, "cron text '99 * * * *' does not parse"),
        ({"schedule_type": "C", "cron": None}, "cron text '' does not parse"),
        ({"schedule_type": "C", "cron": "0 0 31 2 *"}, "has no moment after"),
        ({"schedule_type": "X"}, "schedule type 'X' is not one of"),
    ],
)
def test_a_row_without_a_next_run_stops(make, fire, pushed, fields, words):
    broken = make(name="broken")
    change(broken, **fields)
    make(name="good")
    assert fire() == 2
    assert [package.group for package in pushed] == ["good"]
    (task,) = failures()
    assert words in task.result
    assert again(broken).repeats == 0
    assert fire() == 0


def test_a_next_run_that_no_date_can_hold_stops_the_row(make, fire, pushed, monkeypatch):
    broken = make(name="broken", schedule_type="Y")
    make(name="good")
    monkeypatch.setitem(recurrence._MONTHS, recurrence.Kind.YEARLY, 12 * 9000)
    assert fire() == 2
    assert [package.group for package in pushed] == ["good"]
    (task,) = failures()
    assert "a schedule of type Y has no next run that a date can hold" in task.result
    assert again(broken).repeats == 0


def test_a_function_that_is_not_there_fails_as_any_task(make, scheduler, worker):
    make("acme_corp", "tests.tasks.no_such", name="n")
    scheduler.tick()
    work(worker)
    (task,) = failures()
    assert task.result.startswith("Function tests.tasks.no_such is not defined")


# Once, whatever happens


class Crash(BaseException):
    """Stands for `kill -9` between two statements."""


@pytest.mark.seam
def test_a_fire_that_was_pushed_and_rolled_back_is_one_task(make, fire, worker):
    """The scheduler died after the push and before the commit; the next one fires the same occurrence."""
    schedule = make("acme_corp", "tests.tasks.add", 1, name="n")

    def push_and_die(packages: Any) -> None:
        push_fires(packages)
        raise Crash

    with pytest.raises(Crash):
        fire(push=push_and_die)
    assert again(schedule).next_run < timezone.now(), "it is still due"
    assert get_broker().counts().queued == 1
    assert fire(push=push_fires) == 1
    assert get_broker().counts().queued == 1
    work(worker)
    assert len(QUtilities.fetch_task_group("n", schema_name="acme_corp")) == 1


def test_also_when_its_worker_was_faster(make, fire, worker):
    """The worker has finished and acknowledged it before the rollback."""
    make("acme_corp", "tests.tasks.add", 1, name="n")

    def push_and_die(packages: Any) -> None:
        push_fires(packages)
        raise Crash

    with pytest.raises(Crash):
        fire(push=push_and_die)
    work(worker)
    assert fire(push=push_fires) == 1
    assert get_broker().counts().open == 0
    assert len(QUtilities.fetch_task_group("n", schema_name="acme_corp")) == 1


def test_a_row_that_is_set_back_by_hand_runs_again(make, fire, worker):
    """Somebody repeats this morning's report: the same planned time, and yet another occurrence."""
    schedule = make("acme_corp", "tests.tasks.add", 1, name="n", next_run=PAST)
    fire(push=push_fires)
    work(worker)
    change(schedule, next_run=PAST)
    assert fire(push=push_fires) == 1
    work(worker)
    assert len(QUtilities.fetch_task_group("n", schema_name="acme_corp")) == 2


def test_two_clusters_do_not_fire_the_same_row(make, pushed):
    """While one works on a row, the other skips it."""
    make("acme_corp", name="n")

    def meanwhile(packages: Any) -> None:
        from threading import Thread

        from django.db import connections

        def other() -> None:
            fired.append(fire_due("acme_corp", pushed.extend))
            connections.close_all()

        fired: list[int] = []
        thread = Thread(target=other)
        thread.start()
        thread.join()
        assert fired == [0]
        pushed.extend(packages)

    assert fire_due("acme_corp", meanwhile) == 1
    assert len(pushed) == 1


def test_equal_schedules_of_two_tenants_are_two_tasks(tenants, make, scheduler):
    for name in tenants[:2]:
        schedule = make(name, next_run=PAST)
        sql(f"UPDATE {name}.django_q_schedule SET id = 1 WHERE id = %s", schedule.pk)
    scheduler.tick()
    assert get_broker().counts().queued == 2


def test_a_push_that_fails_leaves_all_due(make, fire):
    schedules_made = [make(), make(schedule_type="O")]

    def away(packages: Any) -> None:
        raise BrokerError("away")

    with pytest.raises(BrokerError):
        fire(push=away)
    for schedule in schedules_made:
        assert again(schedule).next_run < timezone.now()


# Broken tenants


@pytest.mark.seam
@pytest.mark.parametrize("how", ["no table", "another table", "no schema"])
def test_a_broken_tenant_stops_nobody(tenants, make, scheduler, how):
    for name in tenants:
        make(name)
    if how == "no schema":
        sql("ALTER SCHEMA globex_inc RENAME TO away")
    else:
        sql("ALTER TABLE globex_inc.django_q_schedule RENAME TO away")
    if how == "another table":
        sql("CREATE TABLE globex_inc.django_q_schedule (id int, next_run timestamptz, repeats int, cluster text)")
        sql("INSERT INTO globex_inc.django_q_schedule VALUES (1, now() - interval '1 day', -1, NULL)")
    try:
        scheduler.tick()
        assert [get_broker().queue_size(name) for name in tenants] == [1, 0, 1]
        assert sql("SELECT to_regclass('public.django_q_schedule')") == [(None,)]
    finally:
        if how == "no schema":
            sql("ALTER SCHEMA away RENAME TO globex_inc")
        else:
            sql("DROP TABLE IF EXISTS globex_inc.django_q_schedule")
            sql("ALTER TABLE globex_inc.away RENAME TO django_q_schedule")
    tenancy.forget_tenants()
    due_index.release(due_index.UNREADY)
    due_index.release(due_index.FAILED)
    index_upkeep.install("globex_inc")
    scheduler.tick()
    assert get_broker().queue_size("globex_inc") == 1


def test_a_tenant_whose_pass_failed_is_left_alone_for_a_while(tenants, make, scheduler, monkeypatch, caplog):
    make("acme_corp")
    make("globex_inc")
    real, passes = firing.fire_due, []

    def fire_and_note(schema: str) -> int:
        passes.append(schema)
        if schema == "acme_corp":
            raise DatabaseError("this table is broken")
        return real(schema)

    monkeypatch.setattr(firing, "fire_due", fire_and_note)
    with caplog.at_level(logging.ERROR, "tenant_q"):
        for _ in range(3):
            scheduler.tick()
    assert sorted(passes) == ["acme_corp", "globex_inc"]
    (record,) = caplog.records
    assert (record.schema, record.getMessage()) == (
        "acme_corp",
        "Schedules of acme_corp are put off, for 30 s each time: this table is broken",
    )
    due_index.release(due_index.FAILED)
    scheduler.tick()
    assert passes.count("acme_corp") == 2, "then it is tried again"


def test_a_database_that_is_away_blames_no_tenant(tenants, make, scheduler, monkeypatch):
    make()

    def away(*_: Any) -> int:
        raise DatabaseAway("away")

    monkeypatch.setattr(firing, "fire_due", away)
    with pytest.raises(DatabaseAway):
        scheduler.tick()
    assert [due.schema for due in due_index.look()] == ["acme_corp"], "it is still due"


def test_arguments_that_do_not_pickle_stop_only_their_tenant(tenants, make, scheduler, monkeypatch):
    """A receiver of `pre_enqueue` put them there."""
    make("acme_corp")
    make("globex_inc")

    def receiver(task: dict[str, Any], **_: Any) -> None:
        if task["schema_name"] == "acme_corp":
            task["args"] = (lambda: 1,)

    pre_enqueue.connect(receiver)
    try:
        scheduler.tick()
    finally:
        pre_enqueue.disconnect(receiver)
    assert [get_broker().queue_size(name) for name in ("acme_corp", "globex_inc")] == [0, 1]
