"""A tenant's admin: schedules are checked, run, paused and resumed; finished tasks are shown and run again."""

from __future__ import annotations

import pprint
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.utils import timezone
from django_q import admin as django_q_admin
from django_q.models import Failure, OrmQ, Schedule, Success, Task

from tenant_q.admin import FailureAdmin, ScheduleAdmin, SuccessAdmin, register
from tenant_q.admin.values import LONGEST, as_text, in_short
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.exceptions import BrokerError
from tenant_q.lifecycle.row_signing import RowSigner
from tenant_q.lifecycle.run_again import RUN_AGAIN
from tenant_q.models import AuditRecord, LiveTask
from tenant_q.package.package import CODE
from tenant_q.schedules import by_hand, index_upkeep
from tenant_q.states import State
from tenant_q.tenancy import current_key, in_public, in_schema
from tenant_q.utils import QUtilities
from tests.documents import ROOT
from tests.rows import sign
from tests.schemas import served_at

A, B = "acme_corp", "globex_inc"
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def clean(tenants) -> Iterator[None]:
    AuditRecord.objects.all().delete()  # also those of another file's tests
    yield
    connection.set_schema_to_public()
    AuditRecord.objects.all().delete()
    for schema in (A, B):
        with in_schema(schema):
            get_user_model().objects.all().delete()


@pytest.fixture
def site(tenants) -> Iterator[Callable[..., Client]]:
    """`site(schema)` is a browser at a tenant's admin, of a superuser or of a user with these permissions."""
    from contextlib import ExitStack

    with ExitStack() as hosts:
        served = set()

        def visit(schema: str, *permissions: str) -> Client:
            host = f"{schema.replace('_', '-')}.localhost"
            if schema not in served:
                hosts.enter_context(served_at(schema, host))
                served.add(schema)
            client = Client(HTTP_HOST=host)
            with in_schema(schema):
                users = get_user_model().objects
                if permissions:
                    user = users.create_user("clerk", is_staff=True)
                    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
                else:
                    user = users.filter(username="boss").first() or users.create_superuser("boss")
                client.force_login(user)
            return client

        yield visit


def make_schedule(schema: str = A, **fields: Any) -> Schedule:
    values = {"func": "tests.tasks.add", "args": "1, 2", "name": "sum", "schedule_type": Schedule.DAILY}
    with in_schema(schema):
        return Schedule.objects.create(**{**values, "next_run": timezone.now() + HOUR, **fields})


def make_task(schema: str = A, id: str = "a" * 32, *, origin: str = CODE, **fields: Any) -> Task:
    now = timezone.now()
    values = {"name": "job", "func": "tests.tasks.add", "args": (1, 2), "kwargs": {}, "result": 3, "success": True}
    with in_schema(schema):
        task = Task.objects.create(
            **{**values, "id": id, "started": now - timedelta(seconds=2), "stopped": now, "attempt_count": 1, **fields}
        )
        sign(task, origin=origin)
        return task


def filled_in(client: Client, url: str) -> dict[str, str]:
    """What a browser sends of the form of a page, as it stands there."""
    page = client.get(url)
    form = page.context["adminform"].form
    data: dict[str, str] = {}
    for bound in form:
        value = bound.value()
        if bound.name == "next_run":
            moment = timezone.localtime(value) if isinstance(value, datetime) else None
            for part, pattern in (("0", "%Y-%m-%d"), ("1", "%H:%M:%S")):
                data[f"next_run_{part}"] = data[f"initial-next_run_{part}"] = f"{moment:{pattern}}" if moment else ""
        else:
            data[bound.name] = "" if value is None else str(value)
            if bound.field.show_hidden_initial:
                data[bound.html_initial_name] = data[bound.name]
    return data


def posted(client: Client, url: str, **changes: str) -> Any:
    """Fill in the form of a page and send it."""
    return client.post(url, filled_in(client, url) | changes)


def change_url(model: str, pk: Any) -> str:
    return f"/admin/django_q/{model}/{pk}/change/"


def run(make_worker: Callable[..., Any]) -> None:
    make_worker().tick()


# Registration


def test_the_pages_take_the_place_of_django_q2s():
    assert type(admin.site._registry[Schedule]) is ScheduleAdmin
    assert type(admin.site._registry[Success]) is SuccessAdmin
    assert type(admin.site._registry[Failure]) is FailureAdmin
    assert OrmQ not in admin.site._registry


def test_a_projects_own_page_stays():
    class Own(django_q_admin.ScheduleAdmin):
        pass

    site = admin.AdminSite("other")
    site.register(Schedule, Own)
    site.register(Failure, django_q_admin.FailAdmin)
    register(site)
    assert type(site._registry[Schedule]) is Own
    assert type(site._registry[Failure]) is FailureAdmin


# Schedules


@pytest.mark.seam
def test_a_schedule_is_added(site):
    client = site(A)
    answer = posted(client, "/admin/django_q/schedule/add/", name="new", func="tests.tasks.add", args="1, 2")
    assert answer.status_code == 302, answer.context["errors"]
    with in_schema(A):
        assert Schedule.objects.get().name == "new"
    with in_schema(B):
        assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    ("field", "changes", "words"),
    [
        ("args", {"args": "1, date.today()"}, "at column 4: this is not a literal"),
        ("kwargs", {"kwargs": "b, a=1"}, "at column 1: a value has no name"),
        ("cron", {"schedule_type": "C", "cron": "61 * * * *"}, "at '61', the minute"),
        ("cron", {"schedule_type": "C", "cron": "0 0 30 2 *"}, "has no moment after"),
        ("func", {"func": "tests.gone.job"}, "is not defined"),
        ("func", {"func": "tests.tasks.gone"}, "is not offered here"),
        ("hook", {"hook": "tests.gone.job"}, "Function tests.gone.job is not defined"),
        ("hook", {"hook": "tests.tasks.gone"}, "is not offered here"),
        ("intended_date_kwarg", {"intended_date_kwarg": "not a name"}, "cannot be the name"),
        ("next_run", {"next_run_0": "", "next_run_1": ""}, "Enter when the schedule runs next"),
        ("kwargs", {"kwargs": "q_options={'timeot': 3}"}, "cannot be set here: timeot"),
        (None, {"kwargs": f"q_options={{'group': '{'x' * 101}'}}"}, "use at most 100"),
    ],
)
def test_what_would_not_run_is_not_saved(site, settings, field, changes, words):
    settings.TENANT_Q = settings.TENANT_Q | {"admin_functions": ["tests.tasks.*", "tests.gone.job"]}
    values = {"func": "tests.tasks.add", **changes}
    answer = posted(site(A), "/admin/django_q/schedule/add/", **values)
    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors.as_data()
    found = " ".join(str(message) for error in errors[field or "__all__"] for message in error.messages)
    assert words in found
    with in_schema(A):
        assert not Schedule.objects.exists()


def test_another_clusters_function_need_not_be_here(site, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"ALT_CLUSTERS": {"other": {}}}
    settings.TENANT_Q = settings.TENANT_Q | {"admin_functions": ["elsewhere.job"]}
    answer = posted(site(A), "/admin/django_q/schedule/add/", func="elsewhere.job", cluster="other")
    assert answer.status_code == 302


def test_a_cron_schedule_finds_its_first_run(site):
    values = {"func": "tests.tasks.add", "schedule_type": "C", "cron": "30 6 * * *"}
    assert posted(site(A), "/admin/django_q/schedule/add/", **values).status_code == 302
    with in_schema(A):
        row = Schedule.objects.get()
    assert (row.next_run.hour, row.next_run.minute) == (6, 30)
    assert posted(site(A), change_url("schedule", row.pk), cron="45 7 * * *").status_code == 302
    with in_schema(A):
        row.refresh_from_db()
    assert (row.next_run.hour, row.next_run.minute) == (7, 45)


def test_a_next_run_long_past_has_to_be_confirmed(site):
    client, past = site(A), timezone.now() - 30 * 24 * HOUR
    data = {"func": "tests.tasks.add", "schedule_type": "D", "repeats": "-1"}
    data |= {"next_run_0": f"{past:%Y-%m-%d}", "next_run_1": "06:00:00"}
    words = "missed runs start at once, one after another"
    assert words in client.post("/admin/django_q/schedule/preview/", data).content.decode()
    asked = client.post("/admin/django_q/schedule/add/", data).content.decode()
    assert "missed runs would start at once. Confirm it" in asked and 'name="tenant_q_confirm_runs"' in asked
    data["tenant_q_confirm_runs"] = "on"
    page = client.post("/admin/django_q/schedule/add/", data, follow=True).content.decode()
    assert "runs, and makes up for each, one after another" in page
    with in_schema(A):
        row = Schedule.objects.get()
    assert posted(client, change_url("schedule", row.pk), name="renamed").status_code == 302
    assert "makes up for" not in client.get("/admin/django_q/schedule/").content.decode(), "its time was not changed"
    soon = f"{timezone.localtime(timezone.now() + HOUR):%H:%M:%S}"
    data |= {"next_run_0": f"{timezone.localtime(timezone.now() + HOUR):%Y-%m-%d}", "next_run_1": soon}
    assert words not in client.post("/admin/django_q/schedule/preview/", data).content.decode()


def test_one_run_starts_at_once_without_a_question(site, settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"catch_up": False}
    client, past = site(A), timezone.now() - 30 * 24 * HOUR
    data = {"func": "tests.tasks.add", "schedule_type": "D", "repeats": "-1"}
    data |= {"next_run_0": f"{past:%Y-%m-%d}", "next_run_1": "06:00:00"}
    assert "1 run starts at once" in client.post("/admin/django_q/schedule/preview/", data).content.decode()
    assert client.post("/admin/django_q/schedule/add/", data).status_code == 302


def test_a_schedule_that_gets_another_type_is_planned_anew(site):
    planned = (timezone.now() + 6 * 24 * HOUR).replace(microsecond=0)
    row = make_schedule(schedule_type="W", next_run=planned)
    assert posted(site(A), change_url("schedule", row.pk), schedule_type="H").status_code == 302
    with in_schema(A):
        row.refresh_from_db()
    assert row.next_run <= timezone.now() + HOUR
    assert (planned - row.next_run) % HOUR == timedelta(0), "it keeps its phase"


def test_an_edit_does_not_take_back_what_the_scheduler_moved(site):
    """The page was opened before the fire and is sent after it: neither the fire nor the repeat comes back."""
    row = make_schedule(repeats=3)
    client, url = site(A), change_url("schedule", row.pk)
    page = client.get(url)
    moved = timezone.now() + 24 * HOUR
    shown = timezone.localtime(row.next_run)
    with in_schema(A):
        Schedule.objects.filter(pk=row.pk).update(next_run=moved, repeats=2)
    data = {field: page.context["adminform"].form[field].value() or "" for field in ("func", "args", "schedule_type")}
    for part, pattern in (("0", "%Y-%m-%d"), ("1", "%H:%M:%S")):
        data[f"next_run_{part}"] = data[f"initial-next_run_{part}"] = f"{shown:{pattern}}"
    assert 'name="initial-repeats" value="3"' in page.content.decode()
    stale = {"repeats": "3", "initial-repeats": "3"}
    assert client.post(url, data | stale | {"name": "other"}).status_code == 302
    with in_schema(A):
        row.refresh_from_db()
    assert (row.name, row.next_run, row.repeats) == ("other", moved, 2)
    assert client.post(url, data | stale | {"repeats": "9"}).status_code == 302
    with in_schema(A):
        row.refresh_from_db()
    assert (row.next_run, row.repeats) == (moved, 9), "what was changed on the page is meant"


def test_an_edit_does_not_let_a_schedule_that_ended_run_again(site):
    row = make_schedule(repeats=1)
    client, url = site(A), change_url("schedule", row.pk)
    data = filled_in(client, url)
    with in_schema(A):
        Schedule.objects.filter(pk=row.pk).update(repeats=0)
    assert client.post(url, data | {"name": "other"}).status_code == 302
    with in_schema(A):
        row.refresh_from_db()
    assert (row.name, row.repeats) == ("other", 0)


def test_the_page_shows_the_next_five_fires(site, settings):
    planned = timezone.now().replace(microsecond=0, second=0) + 48 * HOUR
    row = make_schedule(next_run=planned, repeats=7)
    page = site(A).get(change_url("schedule", row.pk)).content.decode()
    assert page.count("<time ") == 5
    for day in range(5):
        assert (planned + day * 24 * HOUR).isoformat() in page


def test_the_next_fires_are_told_in_the_tenants_time_zone(site):
    """Which one that is a middleware of the project's says, for each request."""
    planned = datetime(2090, 1, 1, 20, 30, tzinfo=UTC)
    row = make_schedule(next_run=planned)
    client = site(A)
    with timezone.override("Asia/Tokyo"):
        page = client.get(change_url("schedule", row.pk)).content.decode()
    assert "Asia/Tokyo" in page
    assert "2090-01-02T05:30:00+09:00" in page, "20:30 in UTC is the next morning there"


def test_the_preview_follows_the_form(site):
    client = site(A)
    data = {"func": "tests.tasks.add", "schedule_type": "C", "cron": "0 6 * * 1", "repeats": "-1"}
    answer = client.post("/admin/django_q/schedule/preview/", data)
    assert answer.content.decode().count("Mon ") == 5
    answer = client.post("/admin/django_q/schedule/preview/", data | {"cron": "nonsense"})
    assert "does not parse" in answer.content.decode()
    with in_schema(A):
        assert not Schedule.objects.exists()


@pytest.mark.seam
def test_run_now_runs_once_and_leaves_the_next_run(site, make_worker):
    row = make_schedule()
    answer = site(A).post(f"/admin/django_q/schedule/{row.pk}/act/run_now/", follow=True)
    assert "1 task was queued." in answer.content.decode()
    run(make_worker)
    with in_schema(A):
        task = Task.objects.get()
        assert (task.success, task.result, task.group) == (True, 3, "sum")
        assert Schedule.objects.get() == row and Schedule.objects.get().next_run == row.next_run
    with in_schema(B):
        assert not Task.objects.exists()
    (told,) = audited(by_hand.RUN_NOW)
    assert (told.actor, told.schema_name, told.target) == ("boss", A, str(row.pk))
    assert told.after == {"name": "sum", "func": "tests.tasks.add", "task_id": task.pk}


def test_what_is_done_to_a_schedule_is_recorded_without_its_arguments(site):
    client = site(A)
    filled = {"name": "books", "func": "tests.tasks.add", "args": "1, 2", "schedule_type": "D"}
    assert posted(client, "/admin/django_q/schedule/add/", **filled).status_code == 302
    with in_schema(A):
        pk = Schedule.objects.get().pk
    assert posted(client, change_url("schedule", pk), args="20, 22", name="ledger").status_code == 302
    assert client.post(f"/admin/django_q/schedule/{pk}/delete/", {"post": "yes"}).status_code == 302
    other = make_schedule()
    chosen = {"action": "delete_selected", "_selected_action": [other.pk], "post": "yes"}
    client.post("/admin/django_q/schedule/", chosen)
    with in_schema(A):
        assert not Schedule.objects.exists()
    (added,), (edited,), deleted = audited(by_hand.ADD), audited(by_hand.EDIT), audited(by_hand.DELETE)
    assert [one.target for one in (added, edited, *deleted)] == [*[str(pk)] * 3, str(other.pk)]
    assert added.after == {"name": "books", "func": "tests.tasks.add"}
    assert edited.after == {"name": "ledger", "func": "tests.tasks.add", "changed": ["args", "name"]}
    assert {one.actor for one in (added, edited, *deleted)} == {"boss"}


def audited(act: str) -> list[AuditRecord]:
    with in_public():
        return list(AuditRecord.objects.filter(act=act).order_by("id"))


@pytest.mark.seam
def test_a_paused_schedule_does_not_fire_whatever_happens_to_the_index(site, scheduler, make_worker):
    due = timezone.now() - HOUR
    row, other = make_schedule(next_run=due), make_schedule(B, next_run=due)
    still = make_schedule(name="still", next_run=due)
    site(A).post("/admin/django_q/schedule/", {"action": "pause", "_selected_action": [row.pk]})
    for schema in (A, B):
        index_upkeep.install(schema)  # a repair of the index
    scheduler.tick()
    broker = get_broker()
    assert (broker.queue_size(A), broker.queue_size(B)) == (1, 1), "its neighbours fire"
    with in_schema(A):
        assert Schedule.objects.get(pk=row.pk).next_run is None
        assert Schedule.objects.get(pk=still.pk).next_run > timezone.now()
    with in_schema(B):
        assert Schedule.objects.get(pk=other.pk).next_run > timezone.now()


def test_a_resumed_schedule_keeps_its_time_of_day(site):
    planned = timezone.now().replace(microsecond=0) - 3 * 24 * HOUR + HOUR
    row = make_schedule(next_run=planned)
    client = site(A)
    client.post(f"/admin/django_q/schedule/{row.pk}/act/pause/")
    page = client.get(change_url("schedule", row.pk)).content.decode()
    assert "None, because the schedule is paused." in page and "Resume" in page
    client.post(f"/admin/django_q/schedule/{row.pk}/act/resume/")
    with in_schema(A):
        row.refresh_from_db()
    assert row.next_run == planned + 3 * 24 * HOUR, "what was missed is not made up for"
    connection.set_schema_to_public()
    records = list(AuditRecord.objects.order_by("id").values_list("actor", "act", "schema_name", "target"))
    assert records == [("boss", act, A, str(row.pk)) for act in ("pause schedule", "resume schedule")]


def test_a_paused_schedule_can_be_edited_and_stays_paused(site):
    row = make_schedule()
    with in_schema(A):
        by_hand.pause(row.pk, actor="x")
    assert posted(site(A), change_url("schedule", row.pk), args="5, 6").status_code == 302
    with in_schema(A):
        row.refresh_from_db()
    assert (row.args, row.next_run) == ("5, 6", None)


def test_a_cron_text_that_changed_while_paused_is_the_one_that_counts(site):
    tomorrow = timezone.now().replace(hour=6, minute=30, second=0, microsecond=0) + 24 * HOUR
    rows = {
        name: make_schedule(name=name, schedule_type=Schedule.CRON, cron="30 6 * * *")
        for name in ("changed", "as it was")
    }
    rows["was daily"] = make_schedule(name="was daily")
    client = site(A)
    with in_schema(A):
        Schedule.objects.update(next_run=tomorrow + 72 * HOUR)  # past Django-Q2, which plans a new cron schedule
        for row in rows.values():
            by_hand.pause(row.pk, actor="x")
    assert posted(client, change_url("schedule", rows["changed"].pk), cron="45 7 * * *").status_code == 302
    values = {"schedule_type": "C", "cron": "45 7 * * *"}
    assert posted(client, change_url("schedule", rows["was daily"].pk), **values).status_code == 302
    for row in rows.values():
        client.post(f"/admin/django_q/schedule/{row.pk}/act/resume/")
        with in_schema(A):
            row.refresh_from_db()
    for row in (rows["changed"], rows["was daily"]):
        assert (row.next_run.hour, row.next_run.minute) == (7, 45)
        assert row.next_run <= timezone.now() + 24 * HOUR
    assert rows["as it was"].next_run == tomorrow + 72 * HOUR, "planned by hand to begin later"


def test_a_schedule_that_ran_out_is_not_paused(tenants):
    row = make_schedule(repeats=0)
    with in_schema(A):
        assert not by_hand.pause(row.pk, actor="x")
        assert not by_hand.resume(row.pk, actor="x")


# Finished tasks


@pytest.mark.seam
def test_a_failed_task_tells_why_and_runs_again(site, make_worker):
    text = 'broken : Traceback (most recent call last):\n  File "x.py", line 1, in f\nValueError: broken\n'
    task = make_task(success=False, result=text, args=(4, 5), group="g", attempt_count=3)
    client = site(A)
    listed = client.get("/admin/django_q/failure/").content.decode()
    assert "ValueError" in listed and "broken" in listed
    page = client.get(change_url("failure", task.pk)).content.decode()
    assert "File &quot;x.py&quot;, line 1, in f" in page and "(4, 5)" in page and "2.0 s" in page
    assert 'name="_save"' not in page
    answer = client.post(f"/admin/django_q/failure/{task.pk}/act/run_again/", follow=True)
    assert "1 task was queued again." in answer.content.decode()
    run(make_worker)
    with in_schema(A):
        again = Task.objects.exclude(pk=task.pk).get()
        assert (again.name, again.group, again.result, again.success) == ("job", "g", 9, True)
    (told,) = audited(RUN_AGAIN)
    assert (told.actor, told.schema_name, told.target, told.after["task_id"]) == ("boss", A, task.pk, again.pk)


@pytest.mark.seam
def test_a_failed_iter_runs_again_with_all_its_parts(site, make_worker):
    with in_schema(A):
        words: dict[str, Any] = {"hook": "tests.tasks.nothing", "q_options": {"task_name": "sums"}}
        id = QUtilities.add_async_tasks_from_iter("tests.tasks.add", [(1, 2), (3, "x"), (5,)], **words)
    while get_broker().counts().open:
        run(make_worker)
    with in_schema(A):
        assert not Task.objects.get(pk=id).success
    answer = site(A).post(f"/admin/django_q/failure/{id}/act/run_again/", follow=True)
    assert "1 task was queued again." in answer.content.decode()
    assert get_broker().queue_size(A) == 3
    while get_broker().counts().open:
        run(make_worker)
    with in_schema(A):
        again = Task.objects.filter(group=None).exclude(pk=id).get()  # the parts that failed have rows too
        assert (again.name, again.hook, again.success) == ("sums", "tests.tasks.nothing", False)
        assert again.args == ((1, 2), (3, "x"), (5,))
        assert again.result[0] == 3 and "TypeError" in again.result[1] and again.result[2] == 5


def test_what_may_be_an_iter_or_one_call_does_not_run_again(site):
    make_task(id="1" * 32, args=((1, 2), (3, 4)), result=[3, 7])
    single = make_task(id="2" * 32, args=((1, 2), (3, 4)), result=(1, 2, 3, 4))
    failed = make_task(id="3" * 32, args=((1, 2), (3, 4)), result="broken", success=False)
    client = site(A)
    answer = client.post(f"/admin/django_q/success/{'1' * 32}/act/run_again/", follow=True)
    assert "its row may belong to an iter of 2 parts or to one call" in answer.content.decode()
    assert get_broker().queue_size(A) == 0
    client.post(f"/admin/django_q/success/{single.pk}/act/run_again/")
    client.post(f"/admin/django_q/failure/{failed.pk}/act/run_again/")
    assert get_broker().queue_size(A) == 2, "one package for each"


def test_a_bad_pickle_breaks_no_page(site):
    bad = "gASVHgAAAAAAAACMBGdvbmWUjAVUaGluZ5STlCmBlC4="  # a class that is gone
    task = make_task(success=False)
    with in_schema(A), connection.cursor() as cursor:
        signer = RowSigner(current_key(A), task.id, task.func, task.hook, task.cluster, CODE)
        texts = [signer.sign(name, b64decode(bad)) for name in ("args", "result")]
        cursor.execute("UPDATE django_q_task SET args = %s, result = %s", texts)
    client = site(A)
    assert client.get("/admin/django_q/failure/").status_code == 200
    page = client.get(change_url("failure", task.pk))
    assert page.status_code == 200 and "The stored value cannot be read." in page.content.decode()
    answer = client.post(f"/admin/django_q/failure/{task.pk}/act/run_again/", follow=True)
    assert "its arguments cannot be read" in answer.content.decode()
    answer = client.post(f"/admin/django_q/failure/{task.pk}/delete/", {"post": "yes"})
    assert answer.status_code == 302


def test_tasks_are_found_and_filtered(site):
    make_task(id="1" * 32, name="first", group="one")
    make_task(id="2" * 32, name="second", group="two", func="tests.tasks.nothing")
    client = site(A)

    def names(query: str) -> list[str]:
        page = client.get(f"/admin/django_q/success/?{query}")
        assert page.status_code == 200
        return sorted(task.name for task in page.context["cl"].result_list)

    assert names("q=first") == ["first"]
    assert names(f"q={'2' * 32}") == ["second"]
    assert names("q=nothing") == ["second"]
    assert names("group=two") == ["second"]
    assert names("func=tests.tasks.add") == ["first"]
    assert names("func=tests.tasks.add&group=two") == []
    assert names("stopped__gte=2001-01-01 00:00Z") == ["first", "second"]


class Counted:
    """Counts how many of it were formatted."""

    formatted = 0

    def __repr__(self) -> str:
        type(self).formatted += 1
        return "<counted>"


@pytest.mark.parametrize("make", [list, tuple, set, frozenset, lambda many: dict(enumerate(many))])
def test_of_a_huge_value_only_what_is_shown_is_formatted(make):
    many = 150_000
    objects = [Counted() for _ in range(many)]
    for show, longest in ((as_text, LONGEST + 100), (in_short, 310)):
        for value in (make(objects), [[make(objects)]]):
            Counted.formatted = 0
            text = show(value)
            # pprint formats a value once for each container that it is in, to see whether it fits in a line.
            assert 0 < Counted.formatted < many
            assert "<counted>" in text and len(text) <= longest


def test_a_value_that_fits_is_shown_whole():
    value = {"a": [1, (2, {3}), frozenset(), b"x"], (1, 2): {"": None}, "text": "ä" * 500}
    assert as_text(value) == pprint.pformat(value, width=100, compact=True, sort_dicts=False)
    assert in_short("it's") == '"it\'s"'
    inner: list[Any] = []
    inner.append(inner)
    assert "…" in as_text(inner) and as_text(inner).startswith("[[")
    assert len(as_text(["x" * 10**6] * 1000)) < LONGEST + 100
    assert as_text("x" * 10**6).startswith("xxx") and as_text("x" * 10**6).endswith("… and more")


def test_arguments_that_cannot_be_shown_break_no_list():
    class Bad:
        def __repr__(self) -> str:
            raise ValueError("no")

    assert "Bad" in in_short(Bad()) and "Bad" in as_text(Bad())


def test_a_value_is_shown_and_never_run_as_markup(site):
    task = make_task(result="<script>alert(1)</script>", args=("<b>",), name="<i>n</i>")
    page = site(A).get(change_url("success", task.pk)).content.decode()
    assert "<script>alert" not in page and "<b>" not in page and "<i>n" not in page


# Running and queued tasks

LIVE = "/admin/tenant_q/livetask/"
AWAY = "The task queue does not answer at the moment. Try again in a few minutes."


@pytest.mark.seam
def test_what_waits_is_listed_and_can_be_cancelled(site, make_worker):
    with in_schema(A):
        id = QUtilities.add_async_task("tests.tasks.add", 40, 2, task_name="sum", group="sums")
        QUtilities.add_async_task("tests.tasks.add", 1, q_options={"delay": 600, "task_name": "later"})
    client = site(A)
    page = client.get(LIVE).content.decode()
    for words in ("Queued", "Delayed", "sum", "sums", "tests.tasks.add", "40, 2", "later"):
        assert words in page
    part = client.get(LIVE + "?part=table").content.decode()
    assert "<html" not in part and "40, 2" in part
    question = client.get(f"{LIVE}{id}/cancel/").content.decode()
    assert "Cancel the task “sum”" in question
    answer = client.post(f"{LIVE}{id}/cancel/", follow=True)
    assert [str(m) for m in answer.context["messages"]] == ["sum was cancelled."]
    make_worker().tick()
    with in_schema(A):
        task = Task.objects.get()
        assert (task.id, task.success) == (id, False)
    page = client.get("/admin/django_q/failure/").content.decode()
    assert "TaskCancelled" in page and "cancelled by boss" in page
    connection.set_schema_to_public()
    assert AuditRecord.objects.values_list("actor", "act", "schema_name", "target").get() == ("boss", "cancel", A, id)


def test_a_task_far_back_in_a_long_queue_can_be_cancelled(site):
    broker = get_broker()
    broker.enqueue([Message(id=f"{n}", schema=A, func="f", payload="nonsense") for n in range(10_001)])
    with in_schema(A):
        id = QUtilities.add_async_task("tests.tasks.add", 40, 2, task_name="sum")
    client = site(A)
    assert "Cancel the task “sum”" in client.get(f"{LIVE}{id}/cancel/").content.decode()
    answer = client.post(f"{LIVE}{id}/cancel/", follow=True)
    assert [str(m) for m in answer.context["messages"]] == ["sum was cancelled."]
    assert broker.state(A, id) is State.CANCELLED


@pytest.mark.seam
def test_selected_tasks_are_cancelled_after_a_confirmation(site):
    with in_schema(A):
        ids = [QUtilities.add_async_task("tests.tasks.add", n, 2, task_name=f"sum {n}") for n in range(3)]
    with in_schema(B):
        theirs = QUtilities.add_async_task("tests.tasks.add", 40, 2, task_name="theirs")
    client, chosen = site(A), {"id": [*ids[:2], theirs, "unknown"]}
    assert client.get(LIVE).content.decode().count('name="id"') == 3
    question = client.post(f"{LIVE}cancel/", chosen).content.decode()
    assert "Cancel these 2 tasks?" in question and "sum 1" in question
    assert "sum 2" not in question and "theirs" not in question
    answer = client.post(f"{LIVE}cancel/", chosen | {"confirmed": "yes"}, follow=True)
    assert [str(m) for m in answer.context["messages"]] == ["2 tasks were cancelled."]
    assert answer.content.decode().count('name="id"') == 1
    states = [get_broker().state(A, id) for id in ids]
    assert states == [State.CANCELLED, State.CANCELLED, State.QUEUED]
    assert get_broker().state(B, theirs) is State.QUEUED
    connection.set_schema_to_public()
    record = AuditRecord.objects.get()
    assert (record.actor, record.act, record.target, record.after) == (
        "boss",
        "cancel",
        " ".join(ids[:2]),
        {"count": 2},
    )
    answer = client.post(f"{LIVE}cancel/", {}, follow=True)
    assert [str(m) for m in answer.context["messages"]] == ["No task was selected that has not ended."]


def test_without_the_broker_a_tenants_page_names_no_server(site, monkeypatch, caplog):
    with in_schema(A):
        id = QUtilities.add_async_task("tests.tasks.add", 40, 2)
    client = site(A)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise BrokerError("Redis at queue.internal:6379 does not serve cluster 'shop'.")

    monkeypatch.setattr(get_broker(), "_run", fail)
    for send in (client.get, client.post):
        answer = send(f"{LIVE}{id}/cancel/", follow=True)
        assert answer.status_code == 200
        assert [str(m) for m in answer.context["messages"]] == [f"{id}: {AWAY}"]
    assert f"A page of {A} could not be served: Redis at queue.internal:6379" in caplog.text
    assert client.get(LIVE).context["error"] == AWAY
    answer = client.post(f"{LIVE}cancel/", {"id": id, "confirmed": "1"}, follow=True)
    assert [str(m) for m in answer.context["messages"]] == [AWAY]


@pytest.mark.seam
def test_another_tenants_queue_is_behind_no_door(site):
    with in_schema(A):
        id = QUtilities.add_async_task("tests.tasks.add", 40, 2, task_name="theirs")
    client = site(B)
    for query in ("", "?part=table", "?q=theirs", f"?id={id}", "?schema=acme_corp"):
        assert "theirs" not in client.get(LIVE + query).content.decode()
    assert client.get(f"{LIVE}{id}/cancel/").status_code == 404
    answer = client.post(f"{LIVE}{id}/cancel/", follow=True).content.decode()
    assert "theirs" not in answer and "has already ended" in answer
    assert get_broker().place(A, id) == "queued" and get_broker().state(A, id) is State.QUEUED


def test_who_may_only_look_at_the_queue_cannot_cancel(site):
    with in_schema(A):
        id = QUtilities.add_async_task("tests.tasks.add", 40, 2)
    client = site(A, "view_livetask")
    assert "/cancel/" not in client.get(LIVE).content.decode()
    assert client.get(f"{LIVE}{id}/cancel/").status_code == client.post(f"{LIVE}{id}/cancel/").status_code == 403
    assert client.post(f"{LIVE}cancel/", {"id": id, "confirmed": "yes"}).status_code == 403
    assert "checkbox" not in client.get(LIVE).content.decode()
    assert get_broker().state(A, id) is State.QUEUED
    assert client.get("/admin/django_q/schedule/").status_code == 403


def test_a_package_that_cannot_be_read_is_listed(site):
    get_broker().enqueue([Message(id="x" * 32, schema=A, func="some.func", payload="nonsense")])
    page = site(A).get(LIVE)
    assert page.status_code == 200 and "some.func" in page.content.decode()
    assert "the signature does not fit" in page.content.decode()


# Permissions


def test_who_may_only_look_can_do_nothing_else(site):
    row, task = make_schedule(), make_task(success=False, result="x")
    client = site(A, "view_schedule", "view_failure")
    for url in (change_url("schedule", row.pk), change_url("failure", task.pk)):
        page = client.get(url)
        assert page.status_code == 200 and "/act/" not in page.content.decode()
    for url in (
        f"/admin/django_q/schedule/{row.pk}/act/run_now/",
        f"/admin/django_q/schedule/{row.pk}/act/pause/",
        f"/admin/django_q/failure/{task.pk}/act/run_again/",
    ):
        assert client.post(url).status_code == 403
    client.post("/admin/django_q/schedule/", {"action": "run_now", "_selected_action": [row.pk]})
    assert get_broker().queue_size(A) == 0
    assert client.get("/admin/django_q/success/").status_code == 403


def test_an_act_is_a_post(site):
    row = make_schedule()
    assert site(A).get(f"/admin/django_q/schedule/{row.pk}/act/run_now/").status_code == 405
    assert site(A).get(f"/admin/django_q/schedule/{row.pk}/act/delete_model/").status_code == 405
    site(A).post(f"/admin/django_q/schedule/{row.pk}/act/delete_model/")
    with in_schema(A):
        assert Schedule.objects.exists(), "only what a button does"


# Other tenants, and the public site


@pytest.mark.seam
def test_another_tenants_rows_are_behind_no_door(site):
    row, task, failed = (
        make_schedule(name="theirs"),
        make_task(name="theirs", group="theirs"),
        make_task(id="f" * 32, name="theirs", group="theirs", success=False, result="theirs"),
    )
    client = site(B)
    for model, pk in (("schedule", row.pk), ("success", task.pk), ("failure", failed.pk)):
        listing = f"/admin/django_q/{model}/"
        for query in ("", "?q=theirs", "?group=theirs", "?func=tests.tasks.add", f"?q={pk}", f"?id={pk}", "?all="):
            assert "theirs</a>" not in client.get(listing + query, follow=True).content.decode()
        for door in ("change", "delete", "history"):
            assert client.get(f"{listing}{pk}/{door}/").status_code == 302
        assert client.post(f"{listing}{pk}/delete/", {"post": "yes"}).status_code == 302
        for act in ("run_now", "pause", "resume", "run_again"):
            assert client.post(f"{listing}{pk}/act/{act}/").status_code == 404
            client.post(listing, {"action": act, "_selected_action": [pk]})
        client.post(listing, {"action": "delete_selected", "_selected_action": [pk], "post": "yes"})
    assert client.post(f"/admin/django_q/schedule/preview/?id={row.pk}", {"func": "tests.tasks.add"}).status_code == 200
    assert get_broker().queue_size() == 0
    with in_schema(A):
        assert Task.objects.count() == 2
        row.refresh_from_db()
        assert row.next_run is not None and row.repeats == -1


@pytest.mark.seam
def test_where_there_are_no_tables_there_are_no_pages(site, rf):
    from django.http import Http404

    connection.set_schema_to_public()
    user = get_user_model()(is_superuser=True, is_staff=True, is_active=True)
    for model in (Schedule, Success, Failure, LiveTask):
        page = admin.site._registry[model]
        request = rf.get("/")
        request.user = user
        assert not page.has_module_permission(request) and not page.has_view_permission(request)
        for url in page.get_urls():
            with pytest.raises(Http404):
                url.callback(request)


def test_the_style_uses_colours_that_there_are():
    """One that no scheme defines leaves a text in the colour of what is around it."""
    own = (ROOT / "tenant_q" / "static" / "tenant_q" / "admin.css").read_text()
    of_django = Path(admin.__file__).parent / "static" / "admin" / "css"
    defined = "\n".join([own, *(path.read_text() for path in of_django.glob("*.css"))])
    used = set(re.findall(r"var\((--[\w-]+)", own))
    assert len(used) > 5
    assert [name for name in used if f"{name}:" not in defined] == []
