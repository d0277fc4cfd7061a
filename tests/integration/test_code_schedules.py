"""Schedules in code become rows of the chosen tenants, and follow the code."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import Schedule

from tenant_q import checks, tenancy
from tenant_q import schedule as schedule_decorator
from tenant_q.cluster.scheduler_session import SchedulerSession
from tenant_q.cluster.scheduler_upkeep import Upkeep
from tenant_q.exceptions import BadSchedule, ConfigurationError
from tenant_q.models import CodeSchedule, ScheduleRelease, SyncedTenant
from tenant_q.package import declarations
from tenant_q.schedules import by_hand, code_releases, code_sync, declared, fire, offered_schedules
from tenant_q.schedules.code_changes import SyncOptions
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks_scheduled
from tests.integration.conftest import sql
from tests.integration.planning import elsewhere, sent_to_server

A, B = "acme_corp", "globex_inc"
pytestmark = [pytest.mark.seam]
Code = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def _clean(tenants, settings) -> Iterator[None]:
    code_sync.forget_logged()
    yield
    schemas.forget_code()


@pytest.fixture
def code(settings) -> Callable[..., None]:
    """Let the settings declare these schedules, and no others."""

    def set_code(release: Any = None, **schedules: dict[str, Any]) -> None:
        given = {name: {"func": "tests.tasks_scheduled.report"} | values for name, values in schedules.items()}
        settings.TENANT_Q = settings.TENANT_Q | {"schedules": given, "release": release}

    return set_code


def sync(**options: bool) -> code_sync.Report:
    return code_sync.Sync(SyncOptions(**options)).run()


def rows(schema: str = A) -> dict[str, Schedule]:
    with in_schema(schema):
        return {row.name: row for row in Schedule.objects.all()}


def change(schema: str = A, name: str = "daily", **values: Any) -> None:
    with in_schema(schema):
        Schedule.objects.filter(name=name).update(**values)


def take_over(new: str, **values: Any) -> Schedule:
    """Let another row have the id of "daily", as after a restore."""
    with in_schema(A):
        Schedule.objects.filter(name="daily").update(name=new, **values)
    return rows()[new]


@contextmanager
def writes() -> Iterator[list[str]]:
    """What is written, besides that a release was seen."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as sent:
        yield found
    verbs = ("INSERT", "UPDATE", "DELETE")
    found += [
        one["sql"] for one in sent if one["sql"].startswith(verbs) and "tenant_q_schedulerelease" not in one["sql"]
    ]


DAILY = {"cron": "0 6 * * *"}


def test_each_tenant_gets_its_row(tenants, code):
    code(daily=DAILY | {"args": [1, "x"], "kwargs": {"a": {2}}, "q_options": {"timeout": 5}})
    report = sync()
    assert (report.done, report.tenants) == ({"added": len(tenants)}, len(tenants))
    for schema in tenants:
        row = rows(schema)["daily"]
        assert (row.func, row.cron, row.schedule_type, row.repeats) == (
            "tests.tasks_scheduled.report",
            "0 6 * * *",
            "C",
            -1,
        )
        assert row.args == "(1, 'x')" and row.kwargs == "{'a': {2}, 'q_options': {'timeout': 5}}"
        assert timezone.now() < row.next_run <= timezone.now() + timedelta(days=1)
    assert sync().done == {}


def test_an_interval_runs_first_after_it(code):
    code(often={"minutes": 20}, seldom={"schedule_type": Schedule.WEEKLY})
    sync()
    for name, length in (("often", timedelta(minutes=20)), ("seldom", timedelta(days=7))):
        assert abs(rows()[name].next_run - timezone.now() - length) < timedelta(minutes=1)


def test_it_fires(code):
    code(daily=DAILY)
    sync()
    change(next_run=timezone.now() - timedelta(minutes=1))
    assert fire.fire_due(A) == 1
    assert rows()["daily"].next_run > timezone.now()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("tests.tasks_scheduled.north", {A}),
        ("tests.tasks_scheduled.by_name", {B}),
        ([A, "gone"], {A}),
        ([], set()),
        (lambda tenants: tenants.exclude(schema_name=A), None),
    ],
)
def test_tenants_are_chosen(tenants, code, chosen, expected):
    code(daily=DAILY | {"tenants": chosen})
    sync()
    expected = set(tenants) - {A} if expected is None else expected
    assert {schema for schema in tenants if "daily" in rows(schema)} == expected
    code(daily=DAILY | {"tenants": [B]})
    sync()
    assert {schema for schema in tenants if "daily" in rows(schema) and rows(schema)["daily"].next_run} == {B}


def test_a_tenant_that_becomes_ready_gets_its_rows(code, settings):
    settings.TENANT_Q = settings.TENANT_Q | {"ready_tenants": "tests.tasks_scheduled.north"}
    code(daily=DAILY)
    sync()
    assert "daily" in rows(A) and "daily" not in rows(B)
    settings.TENANT_Q = settings.TENANT_Q | {"ready_tenants": None}
    assert sync().done["added"] >= 1 and "daily" in rows(B)


def test_a_change_in_code_changes_the_rows(code):
    code(daily=DAILY, other=DAILY)
    sync()
    before = rows()
    code(daily=DAILY | {"args": [1], "cron": "30 7 * * *"}, other=DAILY)
    report = sync()
    row = rows()["daily"]
    assert (row.pk, row.args, row.cron) == (before["daily"].pk, "(1)".replace("1", "1,"), "30 7 * * *")
    assert (row.next_run.minute, row.next_run > timezone.now()) == (30, True)
    assert set(report.done) == {"changed"} and rows()["other"].next_run == before["other"].next_run


def test_a_pause_survives(code):
    code(daily=DAILY)
    sync()
    with in_schema(A):
        by_hand.pause(rows()["daily"].pk, actor="anna")
    code(daily=DAILY | {"cron": "30 7 * * *"})
    sync()
    assert (rows()["daily"].next_run, rows()["daily"].cron) == (None, "30 7 * * *")
    with in_schema(A):
        assert by_hand.resume(rows()["daily"].pk, actor="anna")
    assert rows()["daily"].next_run.minute == 30


@pytest.mark.parametrize("paused", [True, False])
def test_what_leaves_the_code_is_paused_and_may_come_back(code, paused):
    code(1, daily=DAILY)
    sync()
    change(task="f" * 32, **({"next_run": None} if paused else {}))
    code(2)
    assert sync().done["withdrawn"]
    row = rows()["daily"]
    assert (row.next_run, row.task) == (None, "f" * 32)
    assert sync().done == {}
    code(3, daily=DAILY)
    assert sync().done["changed"]
    assert (rows()["daily"].next_run is None) == paused and rows()["daily"].pk == row.pk


@pytest.mark.parametrize("at_once", [True, False])
def test_delete_removes_what_was_withdrawn(code, at_once):
    code(daily=DAILY, other=DAILY)
    sync()
    code(other=DAILY)
    if not at_once:
        sync()
    assert sync(delete=True).done["deleted"]
    assert set(rows()) == {"other"}
    assert not CodeSchedule.objects.filter(name="daily").exists()


def test_a_row_made_by_hand_is_reported_and_left_alone(code, caplog):
    made = QUtilities.create_schedule("tests.tasks.add", 1, 2, name="daily", schedule_type="H", schema_name=A)
    code(daily=DAILY)
    with caplog.at_level(logging.WARNING, "tenant_q.schedules"):
        assert sync().conflicts == [(A, "daily")]
        assert sync().conflicts == [(A, "daily")]
    assert [record.getMessage() for record in caplog.records].count(
        f"Left the schedule 'daily' of {A} alone, which was not made from code: rename one of them, or take it over "
        "with `msschedules --sync --adopt`"
    ) == 1
    assert rows()["daily"].func == "tests.tasks.add"
    assert sync(adopt=True).done == {"adopted": 1}
    assert (rows()["daily"].pk, rows()["daily"].func) == (made.pk, "tests.tasks_scheduled.report")
    assert sync().conflicts == []


def test_a_conflict_ends_with_the_row(code):
    made = QUtilities.create_schedule("tests.tasks.add", 1, 2, name="daily", schema_name=A)
    code(daily=DAILY)
    sync()
    with in_schema(A):
        Schedule.objects.filter(pk=made.pk).delete()
    assert sync().done == {"added": 1}


def test_a_dry_run_writes_nothing(code):
    code(daily=DAILY)
    with writes() as written:
        report = sync(dry_run=True)
    assert report.done["added"] and written == [] and rows() == {}
    assert not ScheduleRelease.objects.exists()


@pytest.mark.parametrize("releases", [(None, None), ("2026.11.3", "2026.11.4")], ids=["hash", "named"])
def test_an_unchanged_deploy_costs_five_statements(code, releases):
    schedules = {"daily": DAILY | {"tenants": "tests.tasks_scheduled.north"}, "other": DAILY}
    for number in range(code_releases.KEPT):
        code(f"2026.10.{number}", **schedules)
        sync()
    code(releases[0], **schedules)
    sync()
    code(releases[1], **schedules)
    with sent_to_server() as sent:
        assert not sync().newer
    assert len(sent) <= 5, "\n".join(one[28:150] for one in sent)
    assert ScheduleRelease.objects.count() <= code_releases.KEPT + 1


def test_a_project_without_schedules_in_code_pays_one_statement(code):
    code()
    with sent_to_server() as sent:
        sync()
    assert len(sent) == 1 and not ScheduleRelease.objects.exists()


def test_the_statements_of_a_change_do_not_grow_with_the_tenants(tenants, code):
    code(**{f"s{number}": DAILY for number in range(5)})
    with sent_to_server() as sent:
        sync()
    assert len(sent) < 25, sent


def test_a_broken_tenant_stops_no_other(tenants, code, caplog):
    code(daily=DAILY)
    sql(f'ALTER TABLE "{A}".django_q_schedule RENAME COLUMN func TO gone')
    try:
        report = sync()
        assert set(report.put_off) == {A} and "daily" in rows(B)
    finally:
        sql(f'ALTER TABLE "{A}".django_q_schedule RENAME COLUMN gone TO func')
    assert sync().done == {"added": 1} and "daily" in rows(A)


def test_a_locked_tenant_is_changed_later(code):
    code(daily=DAILY)
    sync()
    code(daily=DAILY | {"args": [1]})
    with elsewhere() as other:
        other.execute(f'SELECT 1 FROM "{A}".django_q_schedule FOR UPDATE')
        assert set(sync().put_off) == {A}
    assert rows(B)["daily"].args and not rows(A)["daily"].args
    sync()
    assert rows(A)["daily"].args


def test_a_tenant_of_the_same_name_gets_its_own(code):
    code(daily=DAILY)
    sync()
    with in_schema(A):
        Schedule.objects.all().delete()
    key = tenancy.keys_now([A])[A]
    for model in (CodeSchedule, SyncedTenant):
        model.objects.filter(tenant=key).update(tenant="an earlier tenant")
    assert sync().done == {"added": 1}


@pytest.mark.parametrize("options", [{}, {"delete": True}])
def test_a_row_that_got_the_id_of_an_earlier_one_is_left_alone(code, options):
    """A schema that is dropped and made anew, or restored, gives ids again."""
    code(daily=DAILY)
    sync()
    take_over("by hand", func="tests.tasks.add")
    code(daily=DAILY | {"args": [1]})
    assert sync().done["added"] == 1
    assert (rows()["by hand"].func, rows()["by hand"].args, rows()["daily"].args) == ("tests.tasks.add", "", "(1,)")
    before = take_over("by hand too").next_run
    code()
    sync(**options)
    assert rows()["by hand too"].next_run == before and "daily" not in rows()
    assert not CodeSchedule.objects.filter(tenant=tenancy.keys_now([A])[A]).exists()


def test_a_row_made_by_hand_is_no_other_schedules(code):
    code(daily=DAILY)
    sync()
    take_over("more")
    code(daily=DAILY, more=DAILY)
    assert sync().conflicts == [(A, "more")]


# Errors


def test_a_module_that_is_corrected_is_imported_again(code, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(declarations, "_registry", declarations._Registry())
    monkeypatch.setattr(declarations, "_task_modules", lambda: ["some_tasks_of_a_shop"])
    code(daily=DAILY)
    module = tmp_path / "some_tasks_of_a_shop.py"
    module.write_text("raise LookupError('no rates yet')")
    scheduler = Upkeep(SchedulerSession())
    upkeep(scheduler)
    assert rows() == {}
    module.write_text("RATES = 'there they are, in another number of bytes'")
    upkeep(scheduler)
    assert "daily" in rows() and declarations.discover() == {}


def test_a_module_that_cannot_be_imported_stops_it(code, monkeypatch):
    code(daily=DAILY)
    sync()
    code()
    monkeypatch.setattr(declarations, "discover", lambda **_: {"shop.tasks": ImportError("no such thing")})
    with pytest.raises(ConfigurationError, match=r"shop.tasks cannot be imported: ImportError: no such thing"):
        sync()
    assert rows()["daily"].next_run is not None


def test_a_function_that_chooses_no_tenants_stops_it(code):
    code(daily=DAILY)
    sync()
    code(daily=DAILY | {"tenants": "tests.tasks_scheduled.fails"})
    with pytest.raises(ConfigurationError, match="LookupError: no list"):
        sync()
    assert rows()["daily"].next_run is not None


# Releases


def test_two_releases_side_by_side_do_not_flap(code):
    """Two schedulers of different code take turns, as in a rolling deploy."""
    old, new = Upkeep(SchedulerSession()), Upkeep(SchedulerSession())
    code(daily=DAILY)
    upkeep(old)
    code(daily=DAILY | {"cron": "30 7 * * *"}, more=DAILY)
    upkeep(new)
    assert rows()["daily"].cron == "30 7 * * *"
    versions = f'SELECT id, xmin::text FROM "{A}".django_q_schedule ORDER BY id'
    before = sql(versions)
    with writes() as written:
        for _round in range(5):
            code(daily=DAILY)
            upkeep(old)
            code(daily=DAILY | {"cron": "30 7 * * *"}, more=DAILY)
            upkeep(new)
    assert written == [] and sql(versions) == before
    assert rows()["daily"].cron == "30 7 * * *" and rows()["more"].next_run


def upkeep(one: Upkeep) -> None:
    one._due.pop("code", None)
    one._when_due("code", one._compare_code)
    while one._sync is not None:
        one._sync_some()


def test_a_release_that_comes_back_takes_over_from_a_silent_one(code):
    code(daily=DAILY)
    sync()
    code(daily=DAILY | {"args": [2]})
    sync()
    code(daily=DAILY)
    assert sync().newer
    ScheduleRelease.objects.exclude(first_seen=None).update(
        last_seen=timezone.now() - timedelta(seconds=code_releases.GONE_AFTER_SECONDS)
    )
    assert not sync().newer and rows()["daily"].args == ""
    code(daily=DAILY | {"args": [2]})
    assert sync().newer, "what ran meanwhile is the older one"


def test_releases_with_names_are_ordered_by_them(code):
    code("2026.9.1", daily=DAILY)
    sync()
    code("2026.11.3", daily=DAILY | {"args": [2]})
    sync()
    ScheduleRelease.objects.update(last_seen=timezone.now() - timedelta(seconds=2 * code_releases.GONE_AFTER_SECONDS))
    code("2026.9.1", daily=DAILY)
    assert sync().newer == "2026.11.3"
    assert rows()["daily"].args == "(2,)"
    code(20261104, daily=DAILY)
    assert not sync().newer


def test_a_scheduler_warns_once_that_its_release_is_older(code, caplog):
    code(2, daily=DAILY)
    sync()
    code(1, daily=DAILY)
    scheduler = Upkeep(SchedulerSession())
    with caplog.at_level(logging.INFO, "tenant_q.scheduler"):
        for _round in range(2):
            upkeep(scheduler)
    assert [(one.levelname, one.getMessage()) for one in caplog.records if one.name == "tenant_q.scheduler"] == [
        ("WARNING", "Left the schedules to release 2, which is newer than this one, 1")
    ]


@pytest.mark.parametrize(
    ("release", "is_hash"),
    [("3f9c2ab", True), ("3F9C2AB" + "0" * 33, True), ("20261104", False), ("2026.11.3-3f9c2ab", False), (None, False)],
)
def test_a_hash_as_the_name_of_a_release_is_warned_of(code, release, is_hash):
    code(release, daily=DAILY)
    assert ("tenant_q.W010" in [message.id for message in checks.check_all()]) == is_hash


def test_a_newer_release_stops_a_synchronization_that_goes_on(code):
    code("1", daily=DAILY)
    going_on = code_sync.Sync()
    going_on.plan()
    code("2")
    sync()
    going_on.step()
    assert going_on.is_done and going_on.report.newer == "2" and rows() == {}


# The decorator


@pytest.fixture
def declare(monkeypatch, code) -> Callable[..., Any]:
    """The decorator; what it declares is found as if it were in a module of tasks."""
    code()
    monkeypatch.setattr(declared, "_registry", declared._Registry())
    monkeypatch.setattr(declared, "_is_in_tasks", lambda module: module == "tests.tasks_scheduled")
    return schedule_decorator


def test_the_decorator_declares_several(declare):
    stacked = declare(cron="0 6 * * *", args=[1])(declare(name="hourly", schedule_type="H")(tasks_scheduled.report))
    assert stacked is tasks_scheduled.report
    sync()
    assert set(rows()) == {"tests.tasks_scheduled.report", "hourly"}
    assert rows()["hourly"].func == "tests.tasks_scheduled.report"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "does not say when"),
    ({"cron": "0 6 * * *", "minutes": 5}, "in more than one way"),
    ({"cron": "61 * * * *"}, "does not parse"),
    ({"minutes": 0}, "a whole number from 1"),
    ({"schedule_type": "O"}, "other than ONCE"),
    ({"minutes": 1, "args": [object()]}, "Python literals"),
    ({"minutes": 1, "kwargs": {"q_options": {}}}, "a dict of literals"),
    ({"minutes": 1, "q_options": {"retries": 1}}, "unknown option 'retries'"),
    ({"minutes": 1, "q_options": {"catch_up": 1}}, "catch_up"),
    ({"minutes": 1, "spread": -1}, "seconds, 0 or more"),
    ({"minutes": 1, "tenants": 5}, "a function that chooses tenants"),
    ({"minutes": 1, "name": "x" * 101}, "at most 100"),
]


@pytest.mark.parametrize(("values", "words"), WRONG)
def test_what_could_only_fail_is_refused_at_the_declaration(declare, values, words):
    with pytest.raises(ConfigurationError, match=words):
        declare(**values)(tasks_scheduled.report)


def test_a_name_is_declared_once(declare):
    declare(minutes=1)(tasks_scheduled.report)
    with pytest.raises(ConfigurationError, match="declared twice"):
        declare(minutes=2)(tasks_scheduled.report)
    with pytest.raises(ConfigurationError, match="declared twice"):
        declare(minutes=2, name="tests.tasks_scheduled.report")(tasks_scheduled.other)
    with pytest.raises(ConfigurationError, match="top level"):
        declare(minutes=2)(lambda: None)


def test_the_release_does_not_depend_on_the_process(declare):
    declare(minutes=1, args=[{"a", "b", "c", "d"}])(tasks_scheduled.report)
    (one,) = declared.all_declared()
    assert one.row_values("")["args"] == "({'a', 'b', 'c', 'd'},)"


def test_each_tenant_has_its_place_in_the_spread(tenants, code):
    code(daily=DAILY | {"spread": 600, "q_options": {"delay": 5}})
    sync()
    delays = {ast.literal_eval(rows(schema)["daily"].kwargs)["q_options"]["delay"] for schema in tenants}
    assert len(delays) == len(tenants) and all(5 <= delay <= 605 for delay in delays)
    assert sync().done == {}


def test_a_row_as_the_code_declares_it_is_not_reported(tenants, code):
    code(daily=DAILY | {"func": "tests.tasks.add", "args": [1, 2], "spread": 600}, hidden=DAILY)
    sync()

    def reported() -> list[tuple[str, str]]:
        out = StringIO()
        call_command("msschedules", "--check", "--json", stdout=out)
        return [(one["schema"], one["name"]) for one in json.loads(out.getvalue())["unlisted"]]

    def is_listed(name: str) -> bool:
        with in_schema(A):
            return offered_schedules.is_listed(rows()[name])

    assert reported() == [] and is_listed("daily")
    assert not is_listed("hidden"), "staff do not run what only the code may name"
    change(args="(3, 4)")
    change(B, name="hidden", hook="tests.tasks.add")
    assert reported() == [(A, "daily"), (B, "hidden")] and not is_listed("daily")
    with in_schema(A):
        own = Schedule.objects.get(name="daily")
        own.pk, own.args = None, "(1, 2)"
        own.save()
        assert not offered_schedules.is_listed(own), "it has no entry"


def test_the_checks_statements_do_not_grow_with_the_tenants(tenants, code):
    code(daily=DAILY | {"spread": 600})
    sync()
    physical = [tenancy.physical_schema(schema) for schema in tenants]
    assert offered_schedules.unlisted(physical) == []
    with CaptureQueriesContext(connection) as one:
        offered_schedules.unlisted(physical[:1])
    with CaptureQueriesContext(connection) as all_of_them:
        offered_schedules.unlisted(physical)
    assert len(all_of_them) == len(one)


# The command


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("msschedules", "--sync", *arguments, stdout=out)
    return out.getvalue()


def test_the_command(tenants, code):
    code(daily=DAILY)
    assert f"{A}: daily would be added" in run("--dry-run") and rows() == {}
    assert f"{A}: daily was added" in run()
    assert f"The schedules of {len(tenants)} tenants are those of the code." in run()
    code("2", daily=DAILY)
    assert json.loads(run("--json"))["done"] == {}
    code("1")
    with pytest.raises(CommandError, match="release 2 is newer"):
        run()


def test_the_command_looks_at_the_rows(tenants, code):
    code(daily=DAILY)
    run()
    with in_schema(A):
        Schedule.objects.all().delete()
    assert f"{A}: daily would be added" in run("--dry-run")
    assert f"{A}: daily was added" in run() and "daily" in rows()


def test_the_command_names_the_conflict(code):
    QUtilities.create_schedule("tests.tasks.add", 1, 2, name="daily", schema_name=A)
    code(daily=DAILY)
    with pytest.raises(CommandError, match="--adopt"):
        run()
    assert f"{A}: daily was adopted" in run("--adopt")


def test_the_decorator_needs_no_apps():
    script = (
        "import sys; from tenant_q import schedule; from tests import tasks_scheduled; "
        "schedule(minutes=5)(tasks_scheduled.report); assert 'django_q.models' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_decorator_works_under_a_tracer(declare):
    def trace(frame: Any, _event: str, _argument: Any) -> Any:
        assert frame.f_locals is not None
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        decorate = declare(minutes=5)
    finally:
        sys.settrace(before)
    decorate(tasks_scheduled.report)
    assert [one.columns["minutes"] for one in declared.all_declared()] == [5]


def test_the_settings_are_checked(code):
    code(daily={"cron": "61 * * * *"})
    assert "tenant_q.E014" in [message.id for message in checks.check_all()]
    code(daily=DAILY)
    assert "tenant_q.E014" not in [message.id for message in checks.check_all()]


def test_a_schedule_out_of_reach_is_warned_of(declare, monkeypatch):
    declare(minutes=5)(tasks_scheduled.report)
    monkeypatch.setattr(declared, "_is_in_tasks", lambda module: False)
    assert declared.all_declared() == []
    assert "tenant_q.W009" in [message.id for message in checks.check_all()]


# ensure_schedule


def ensure(*args: Any, **kwargs: Any) -> Schedule:
    return QUtilities.ensure_schedule("mine", "tests.tasks.add", *args, schema_name=A, **kwargs)


def test_ensure_creates_then_changes():
    made = ensure(1, 2, schedule_type="D", repeats=7)
    change(name="mine", repeats=5)
    with writes() as written:
        same = ensure(1, 2, schedule_type="D")
    assert (same.pk, same.repeats, same.next_run, written) == (made.pk, 5, made.next_run, [])
    changed = ensure(1, y=3, schedule_type="C", cron="30 7 * * *")
    assert (changed.pk, changed.args, changed.kwargs) == (made.pk, "(1,)", "{'y': 3}")
    assert changed.next_run.minute == 30
    change(name="mine", next_run=None)
    assert ensure(1, schedule_type="H").next_run is None
    with pytest.raises(ValidationError):
        ensure(1, schedule_type="C", cron="61 * * * *")


def test_ensure_leaves_schedules_from_code_to_the_code(code):
    code(mine=DAILY)
    sync()
    with pytest.raises(BadSchedule, match="comes from code"):
        ensure(1, 2)
