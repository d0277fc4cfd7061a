"""Outcomes to rows: many tenants at once, the first success stays, one broken tenant costs no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection, connections
from django.db.models.signals import post_save
from django.utils import timezone
from django_q.models import Task

from tenant_q.exceptions import CancelException, DatabaseAway, TaskCancelled
from tenant_q.lifecycle import outcome_rows, prune_results, results, save_results, task_statements
from tenant_q.lifecycle.execute import execute
from tenant_q.package.build import build, deterministic_id
from tenant_q.package.outcome import Outcome, give_up
from tenant_q.tenancy import current_key, in_schema
from tests import schemas, tasks
from tests.integration.conftest import sql

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clean(tenants) -> Iterator[None]:
    yield
    connection.set_schema_to_public()


def outcome(
    schema: str = "acme_corp",
    *args: Any,
    id: str | None = None,
    success: bool = True,
    result: Any = "done",
    after: float = 0.0,
    attempt: int = 1,
    **keywords: Any,
) -> Outcome:
    """An outcome that came `after` seconds; `keywords` as for a task."""
    package = build(keywords.pop("func", "tests.tasks.add"), args, keywords, schema=schema, id=id)
    start = BEGIN + timedelta(seconds=after)
    return Outcome(package, success, result, start, start + timedelta(seconds=1), 1.0, attempt=attempt)


def rows(schema: str = "acme_corp", **where: Any) -> list[Task]:
    with in_schema(schema):
        return list(Task.objects.filter(**where).order_by("started"))


@contextmanager
def table_gone(schema: str, table: str = "django_q_task") -> Iterator[None]:
    sql(f"ALTER TABLE {schema}.{table} RENAME TO {table}_away")
    try:
        yield
    finally:
        sql(f"ALTER TABLE {schema}.{table}_away RENAME TO {table}")


@pytest.fixture
def round_trips(monkeypatch) -> list[Any]:
    """What is sent to PostgreSQL past Django."""
    sent: list[Any] = []
    real = psycopg.ClientCursor.execute

    def execute(self: Any, query: Any, *arguments: Any, **keywords: Any) -> Any:
        if type(self) is psycopg.ClientCursor:
            sent.append(query)
        return real(self, query, *arguments, **keywords)

    monkeypatch.setattr(psycopg.ClientCursor, "execute", execute)
    return sent


# Rows


def test_a_row_is_as_django_q2_writes_it():
    done = outcome(
        "acme_corp", 1, [2], b={"c": None}, id="a" * 32, task_name="n", group="g", hook="tests.tasks.hook",
        result={"r": (1, 2)}, attempt=3, cluster="long",
    )  # fmt: skip
    assert save_results.save([done]) == {}
    (row,) = rows()
    assert (row.id, row.name, row.func, row.group, row.hook) == (
        "a" * 32,
        "n",
        "tests.tasks.add",
        "g",
        "tests.tasks.hook",
    )
    assert (row.args, row.kwargs, row.result) == ((1, [2]), {"b": {"c": None}}, {"r": (1, 2)})
    assert (row.started, row.stopped, row.success) == (done.started, done.stopped, True)
    assert (row.attempt_count, row.cluster) == (3, "long")
    assert str(row) == "n"
    own = outcome_rows.as_task(done)
    for field in Task._meta.fields:
        assert getattr(own, field.name) == getattr(row, field.name), field.name


@pytest.mark.parametrize("result", [None, "", 0, False, [], "ä'\"%s {} ; DROP", b"\x00", "\x00\ud800", {1: object}])
def test_any_result_is_read_as_it_was_saved(result):
    save_results.save([outcome(result=result)])
    assert rows()[0].result == result


@pytest.mark.parametrize("text", ["'; DROP TABLE x; --", "%s %(a)s {} {a}", 'ä"\\', pytest.param("\n")])
def test_any_name_and_group(text):
    assert save_results.save([outcome(task_name=text, group=text)]) == {}
    assert (rows()[0].name, rows()[0].group) == (text, text)


@pytest.mark.parametrize("field", ["task_name", "group", "func", "hook", "cluster"])
def test_a_text_is_never_a_statement(field):
    text = "\n; CREATE TABLE public.injected (); --"
    keywords: dict[str, Any] = {field: text}
    try:
        save_results.save([outcome(**keywords)])
        assert sql("SELECT to_regclass('public.injected')") == [(None,)]
    finally:
        sql("DROP TABLE IF EXISTS public.injected")
    assert len(rows()) == 1


def test_a_functions_and_a_hooks_name(settings):
    save_results.save([outcome(func=tasks.add, hook=tasks.hook)])
    assert (rows()[0].func, rows()[0].hook) == ("tests.tasks.add", "tests.tasks.hook")
    assert rows()[0].cluster == settings.Q_CLUSTER["name"]


def test_nothing_is_saved(round_trips):
    assert save_results.save([]) == {}
    assert round_trips == []


# Many tenants


@pytest.mark.seam
def test_many_tenants_in_one_round_trip_and_one_commit(tenants, round_trips):
    several = [outcome(name, n, id=deterministic_id(name, n)) for n in range(20) for name in tenants]
    assert save_results.save(several) == {}
    assert len(round_trips) == 1
    transactions = {row[0] for name in tenants for row in sql(f"SELECT xmin::text FROM {name}.django_q_task")}
    assert len(transactions) == 1
    for name in tenants:
        assert [row.args for row in rows(name)] == [(n,) for n in range(20)]


def test_saving_does_not_depend_on_the_current_schema(tenants):
    with in_schema("globex_inc"):
        save_results.save([outcome("acme_corp")])
        assert connection.schema_name == "globex_inc"
    assert (len(rows("acme_corp")), len(rows("globex_inc"))) == (1, 0)


def test_equal_ids_of_two_tenants(tenants):
    save_results.save([outcome(name, id="a" * 32, result=name) for name in tenants])
    for name in tenants:
        assert [row.result for row in rows(name)] == [name]


# Twice


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        ((True, "first"), (True, "second"), (True, "first")),
        ((True, "first"), (False, "second"), (True, "first")),
        ((False, "first"), (True, "second"), (True, "second")),
        ((False, "first"), (False, "second"), (False, "second")),
    ],
)
@pytest.mark.parametrize("receivers", [False, True])
def test_the_first_success_stays(receive, receivers, first, second, stays):
    if receivers:
        receive(lambda **_: None)
    for attempt, (success, result) in enumerate((first, second), start=1):
        one = outcome(id="a" * 32, success=success, result=result, attempt=attempt, after=attempt)
        assert save_results.save([one]) == {}
    (row,) = rows()
    assert (row.success, row.result) == stays
    assert row.attempt_count == (1 if stays[1] == "first" else 2)
    assert row.started == BEGIN + timedelta(seconds=row.attempt_count)


CANCELS = {
    "before it ran": lambda package: give_up(package, TaskCancelled("cancelled by Ada")),
    "while it ran": lambda package: execute(package),
    "with a long text": lambda package: give_up(package, TaskCancelled("cancelled by " + 400 * "x")),
    "with a very long text": lambda package: give_up(package, TaskCancelled("cancelled by " + 100_000 * "x")),
}


@pytest.mark.parametrize("how", CANCELS)
@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("receivers", [False, True])
def test_a_cancelled_task_stays_so(receive, receivers, how, second):
    """A stale worker's success is late, and so is its failure."""
    if receivers:
        receive(lambda **_: None)
    late = outcome(func=f"{__name__}.be_cancelled", id="a" * 32, success=second, result="late", after=9)
    assert save_results.save([CANCELS[how](late.package)]) == {}
    assert save_results.write([late, outcome(id="b" * 32)]) == save_results.Saved(
        {}, frozenset({("acme_corp", "a" * 32)})
    )
    (row,) = rows(id="a" * 32)
    assert not row.success
    assert row.result.startswith("TaskCancelled: ")
    assert len(rows(success=True)) == 1


@pytest.mark.parametrize("receivers", [False, True])
def test_cancelled_tasks_stay_so_of_a_schema_whose_packages_name_its_tenant_or_none(receive, receivers):
    if receivers:
        receive(lambda **_: None)
    keyed, keyless = (outcome(id=letter * 32, result="late", after=9) for letter in "ab")
    keyed.package.task["tenant"], keyless.package.task["tenant"] = current_key("acme_corp"), None
    save_results.save([give_up(one.package, TaskCancelled("cancelled by Ada")) for one in (keyed, keyless)])
    cancelled = save_results.write([keyed, keyless]).cancelled
    assert cancelled == {("acme_corp", "a" * 32), ("acme_corp", "b" * 32)}


def be_cancelled() -> None:
    raise CancelException("cancelled by Ada")


@pytest.mark.parametrize("receivers", [False, True])
def test_a_failure_that_tells_of_a_cancel_is_an_ordinary_one(receive, receivers):
    if receivers:
        receive(lambda **_: None)
    save_results.save([outcome(id="a" * 32, success=False, result="ValueError: TaskCancelled: no")])
    assert save_results.write([outcome(id="a" * 32)]) == save_results.Saved({})
    assert [row.result for row in rows()] == ["done"]


def test_a_cancel_and_a_success_of_one_id_in_a_batch():
    late = outcome(id="a" * 32)
    save_results.save([give_up(late.package, TaskCancelled("cancelled")), late])
    assert [row.result for row in rows()] == ["TaskCancelled: cancelled"]


def test_the_same_id_twice_in_a_batch():
    assert save_results.save([outcome(id="a" * 32, result=n) for n in (1, 2)]) == {}
    assert [row.result for row in rows()] == [1], "the first success stays"


def test_a_success_and_a_failure_of_one_id_in_a_batch():
    save_results.save([outcome(id="a" * 32, result="good"), outcome(id="a" * 32, result="bad", success=False)])
    assert [row.result for row in rows()] == ["good"]


# Which are saved


@pytest.mark.parametrize(
    ("success", "keywords", "limit", "saved"),
    [
        (True, {}, 250, True),
        (True, {"save": False}, 250, False),
        (False, {"save": False}, 250, True),
        (True, {}, 0, True),
        (True, {}, -1, False),
        (False, {}, -1, True),
        (True, {"save": True}, -1, True),
        (True, {"cached": 60}, 250, False),
        (True, {"cached": True, "save": True}, 250, False),
        (False, {"cached": 60}, 250, True),
        (True, {"iter_count": 3, "group": "g"}, 250, False),
        (False, {"iter_count": 3, "group": "g"}, 250, True),
    ],
)
def test_which_outcomes_leave_a_row(settings, success, keywords, limit, saved):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": limit}
    save_results.save([outcome(success=success, **keywords)])
    assert len(rows()) == saved


# Broken tenants


def test_a_broken_tenant_costs_no_other(tenants):
    with table_gone("globex_inc"):
        failed = save_results.save([outcome(name) for name in tenants])
    assert {schema for schema, _ in failed} == {"globex_inc"}
    assert "does not exist" in str(*failed.values())
    assert [len(rows(name)) for name in tenants] == [1, 0, 1]


def test_a_tenant_alone_that_is_broken():
    with table_gone("acme_corp"):
        several = [outcome(), outcome()]
        assert set(save_results.save(several)) == {one.package.key for one in several}


def test_a_tenant_whose_schema_is_gone_gets_no_row_in_public(tenants):
    failed = save_results.save([outcome("nobody"), outcome("acme_corp")])
    assert {schema for schema, _ in failed} == {"nobody"}
    assert len(rows()) == 1
    assert sql("SELECT to_regclass('public.django_q_task')") == [(None,)]


@pytest.mark.parametrize("text", ["nul\0", "half a pair \ud800"])
@pytest.mark.parametrize("field", ["name", "group", "cluster"])
def test_text_that_postgresql_cannot_hold_is_saved_as_far_as_it_can(field, text):
    """Plain `async_task` checks nothing."""
    one = outcome()
    one.package.task[field] = text
    assert save_results.save([one]) == {}
    assert getattr(rows()[0], field) == f"{text[:-1]}?"


def test_a_row_that_cannot_be_saved_costs_no_other_tenant(tenants):
    failed = save_results.save([outcome("globex_inc", attempt=2**40), outcome("acme_corp")])
    assert {schema for schema, _ in failed} == {"globex_inc"}
    assert len(rows()) == 1


def test_arguments_that_no_longer_pickle_after_the_task_cost_no_other_tenant(tenants):
    spoilt: list[Any] = []
    broken = outcome("globex_inc", spoilt)
    spoilt.append(lambda: None)
    save_results.save([broken, outcome("acme_corp")])
    assert len(rows()) == 1


def test_save_or_raise():
    save_results.save_or_raise([outcome()])
    with table_gone("acme_corp"), pytest.raises(Exception, match="does not exist"):
        save_results.save_or_raise([outcome()])
    assert len(rows()) == 1


def test_a_locked_tenant_is_not_waited_for(tenants, monkeypatch):
    monkeypatch.setattr(task_statements, "LOCK_MS", 20)
    locker = connections.create_connection("default")
    try:
        with locker.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE globex_inc.django_q_task")
        failed = save_results.save([outcome(name) for name in tenants])
    finally:
        locker.close()
    assert {schema for schema, _ in failed} == {"globex_inc"}
    assert sql("SHOW lock_timeout") == [("0",)], "the limit is for saving only"


def test_a_database_that_is_away_is_told(monkeypatch):
    """All is kept by the caller then, and no tenant is blamed."""
    connection.ensure_connection()
    schemas.terminate(connection.connection.info.backend_pid)
    with pytest.raises(DatabaseAway, match="Database 'default' cannot be reached"):
        save_results.save([outcome(), outcome("globex_inc")])
    assert save_results.save([outcome()]) == {}, "the next use opens a new connection"


# Receivers of post_save


@pytest.fixture
def receive() -> Iterator[Any]:
    connected: list[Any] = []

    def connect(receiver: Any) -> None:
        post_save.connect(receiver, sender=Task, weak=False)
        connected.append(receiver)

    yield connect
    for receiver in connected:
        post_save.disconnect(receiver, sender=Task)


@pytest.mark.seam
def test_a_projects_receivers_run_in_the_tenants_schema(tenants, receive):
    seen: list[Any] = []

    def receiver(instance: Task, created: bool, **_: Any) -> None:
        seen.append((instance.id, created, tasks.where()["schema"], instance.result))

    receive(receiver)
    several = [outcome(name, result=name) for name in tenants]
    assert save_results.save(several) == {}
    assert seen == [(one.package.id, True, one.package.schema, one.package.schema) for one in several]
    for name in tenants:
        assert [row.result for row in rows(name)] == [name]


def test_the_hook_is_left_to_be_called_once(tenants, receive):
    """Django-Q2's own receiver would call it while saving; ours is called when all is saved."""
    receive(lambda **_: None)
    one = outcome(hook="tests.tasks.hook")
    save_results.save([one])
    assert rows()[0].hook == "tests.tasks.hook"
    assert tasks.notes(f"hook:{one.package.id}") == []


def test_receivers_of_other_models_do_not_slow_down_saving(round_trips):
    from django_q.models import Schedule

    def receiver(**_: Any) -> None:
        raise AssertionError

    post_save.connect(receiver, sender=Schedule, weak=False)
    try:
        save_results.save([outcome()])
    finally:
        post_save.disconnect(receiver, sender=Schedule)
    assert len(round_trips) == 1


def test_a_receiver_that_raises_costs_no_other_tenant(tenants, receive):
    def receiver(instance: Task, **_: Any) -> None:
        if connection.schema_name == "globex_inc":
            raise ValueError("the receiver is broken")

    receive(receiver)
    save_results.save([outcome(name) for name in ("globex_inc", "acme_corp")])
    assert len(rows()) == 1


# Pruning


def old(count: int, schema: str = "acme_corp", **keywords: Any) -> list[Outcome]:
    return [outcome(schema, n, after=n, result=n, **keywords) for n in range(count)]


def kept(**where: Any) -> list[int]:
    return [row.result for row in rows(**where)]


def test_the_oldest_successes_are_pruned(tenants, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 3}
    save_results.save(old(6) + old(6, "globex_inc"))
    prune_results.prune("acme_corp")
    assert kept() == [3, 4, 5]
    assert len(rows("globex_inc")) == 6, "each tenant by itself"
    prune_results.prune("acme_corp")
    assert kept() == [3, 4, 5]


def test_many_are_pruned_in_portions(tenants, settings, monkeypatch):
    """No statement of ours may take as long as an answer is waited for."""
    monkeypatch.setattr(prune_results, "PRUNED_AT_ONCE", 4)
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 1}
    save_results.save(old(10))
    assert [prune_results.prune("acme_corp") for _ in range(3)] == [True, True, False]
    assert kept() == [9]


def test_failures_are_kept(settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 1}
    save_results.save(old(4, success=False) + old(4))
    prune_results.prune("acme_corp")
    assert (len(rows(success=False)), kept(success=True)) == (4, [3])


@pytest.mark.parametrize("per", ["group", "name", "func"])
def test_the_limit_counts_for_each(settings, per):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 2, "save_limit_per": per}
    option = {"group": "group", "name": "task_name", "func": "func"}[per]
    several = [one for value in ("a.b", "c.d") for one in old(4, **{option: value})]
    save_results.save(several)
    prune_results.prune("acme_corp")
    for value in ("a.b", "c.d"):
        assert kept(**{per: value}) == [2, 3]


def test_tasks_without_a_group_are_one_group(settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 2, "save_limit_per": "group"}
    save_results.save(old(4) + old(1, group="g"))
    prune_results.prune("acme_corp")
    assert (kept(group=None), kept(group="g")) == ([2, 3], [0])


def test_recent_rows_are_spared(settings):
    """A package that is delivered again is looked up among them before it runs."""
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 1}
    settings.TENANT_Q = {"lease": 10}
    assert prune_results.spared() == timedelta(seconds=40)
    now = (timezone.now() - BEGIN).total_seconds()
    save_results.save([outcome(result=n, after=now - seconds) for n, seconds in enumerate((100, 60, 30, 20, 10))])
    prune_results.prune("acme_corp")
    assert kept() == [2, 3, 4]


@pytest.mark.parametrize("limit", [0, -1])
def test_no_limit(settings, limit):
    save_results.save(old(4))
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": limit}
    prune_results.prune("acme_corp")
    assert len(rows()) == 4


# Reading


def test_find_by_id_and_name(tenants):
    several = [outcome(task_name="n", result=n, after=n) for n in range(3)]
    save_results.save([*several, outcome(task_name="a" * 32, result="named as an id")])
    with in_schema("acme_corp"):
        for one in several:
            found = results.find(one.package.id)
            assert found is not None
            assert found.result == one.result
        assert results.find("n").result == 2, "the latest of that name"
        assert results.find("a" * 32).result == "named as an id"
        assert results.find("") is results.find("unknown") is results.find("b" * 32) is None
    with in_schema("globex_inc"):
        assert results.find(several[0].package.id) is results.find("n") is None


def test_the_latest_of_a_name_is_the_one_that_stopped_last(tenants):
    save_results.save([outcome(task_name="n", result="late", after=5), outcome(task_name="n", result="early")])
    with in_schema("acme_corp"):
        assert results.find("n").result == "late"


def test_a_group_in_its_order(tenants):
    several = [outcome(group="g", result=n, after=-n, success=n != 1) for n in range(3)]
    save_results.save([*several, outcome(group="other"), outcome("globex_inc", group="g")])
    with in_schema("acme_corp"):
        assert [task.result for task in results.group("g", failures=True)] == [2, 1, 0]
        assert [task.result for task in results.group("g", failures=False)] == [2, 0]
        assert results.count("g", failures=False) == 3
        assert results.count("g", failures=True) == 1
        assert (results.group("unknown", failures=True), results.count("unknown", failures=False)) == ([], 0)


def test_a_groups_label_is_taken_off(tenants):
    save_results.save([outcome(group="g"), outcome("globex_inc", group="g")])
    with in_schema("acme_corp"):
        assert results.delete("g", tasks=False) == 1
        assert results.count("g", failures=False) == 0
    assert len(rows()) == 1
    assert rows("globex_inc")[0].group == "g"


def test_a_groups_rows_are_deleted(tenants):
    save_results.save([outcome(group="g"), outcome(), outcome("globex_inc", group="g")])
    with in_schema("acme_corp"):
        assert results.delete("g", tasks=True) == (1, {"django_q.Task": 1})
    assert (len(rows()), len(rows("globex_inc"))) == (1, 1)


def test_those_that_succeeded_before(tenants):
    several = [outcome(result=n, success=n != 1) for n in range(3)]
    save_results.save(several)
    with in_schema("acme_corp"):
        found = results.successes(one.package.id for one in several)
    assert {id: task.result for id, task in found.items()} == {several[0].package.id: 0, several[2].package.id: 2}
    with in_schema("globex_inc"):
        assert results.successes([several[0].package.id]) == {}


def test_polling():
    answers = iter([None, None, "found", "never asked"])
    assert results.poll(lambda: next(answers), wait=5000) == "found"
    assert results.poll(lambda: None, wait=0) is None
    looks: list[int] = []
    assert results.poll(lambda: looks.append(1), wait=20) is None
    assert len(looks) > 1
    last = iter([None, None, None, False])
    assert results.poll(lambda: next(last), wait=-1) is False, "for ever, until there is an answer"
