"""The attacker: a user of a tenant's admin, a superuser there, who wants the cluster to run code of the server.

Whatever the user sends, by whichever page, only functions that the project offers are saved or run, and nothing that is
merely named is imported. What the project offers works.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.test import Client
from django.urls import path
from django.utils import timezone
from django_q.models import Schedule, Task

from tenant_q.admin import ScheduleAdmin
from tenant_q.brokers import get_broker
from tenant_q.conf import conf
from tenant_q.lifecycle import task_rows
from tenant_q.package import declarations
from tenant_q.package.options import KEYWORD_OPTIONS, TENANT_OPTIONS
from tenant_q.package.package import ADMIN, CODE, SCHEDULE
from tenant_q.schedules import fire, offered, offered_schedules
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import make_worker, work  # noqa: F401  (a fixture)
from tests.rows import sign
from tests.schemas import served_at

pytestmark = pytest.mark.usefixtures("clean_admin")

A, B = "acme_corp", "globex_inc"
ADD, LIST, PREVIEW = (f"/admin/django_q/schedule/{page}" for page in ("add/", "", "preview/"))
OFFERED = "shop.tasks.revenue_report"
DAILY = {"schedule_type": "D", "repeats": "-1", "next_run_0": "2090-01-01", "next_run_1": "00:00:00"}

# A module of the project's that `admin_functions` offers as a whole, with all that a path could reach through it.
BAIT = """
import functools, os, shutil
from os import system
from unittest.mock import call
from shop.tasks import revenue_report

def report(): return "a report"
@functools.wraps(report)
def wrapped(): return "wrapped"
def decorate(function):
    @functools.wraps(function)
    def inner(*args): return function(*args)
    return inner
@decorate
def decorated(): return "decorated"
@functools.cache
def cached(): return "cached"
async def asynchronous(): return "asynchronous"
def _private(): return "private"
def make(): return lambda command: os.system(command)

run = functools.partial(os.system, "id")
shell = lambda command: os.system(command)
made = make()
alias = os.system
renamed = _private
wrapped_system = decorate(os.system)
class Job:
    @staticmethod
    def run(command): return os.system(command)
    def __call__(self, command): return os.system(command)
job = Job()
method = Job.run
def rename(function, name):
    function.__module__, function.__qualname__ = __name__, name
    return function
renamed_partial = rename(functools.partial(os.system), "renamed_partial")
renamed_wrapper = rename(decorate(shutil.rmtree), "renamed_wrapper")
"""

PATHS = [
    # Code of the server
    "os.system",
    "posix.system",
    "subprocess.check_output",
    "builtins.eval",
    "builtins.__import__",
    "pickle.loads",
    "django.core.management.call_command",
    "django.contrib.auth.models.User.objects.create_superuser",
    # What runs what its arguments name, or reaches other tenants
    "django_q.tasks.async_task",
    "django_q.tasks.schedule",
    "tenant_q.utils.QUtilities.add_async_task",
    "tenant_q.policies.change",
    "tenant_q.schedules.by_hand.run_now",
    "customers.models.Customer.objects.all",
    "customers.management.commands.setupdata.Command",
    # Elsewhere in the project
    "shop.models.Order.delete",
    "shop.views.dashboard",
    # Through what an offered module imports, and what is in it besides public functions
    "shop.tasks.time.sleep",
    "shop.tasks.QUtilities.add_async_task",
    "shop.tasks.connection.close",
    "shop.tasks.Order.objects.all",
    "shop.tasks.Order",
    "shop.tasks.Count",
    "shop.tasks.PaymentDeclined",
    "shop.tasks._advance",
    "shop.tasks.__builtins__",
    "shop.tasks.__loader__.exec_module",
    "shop.tasks.revenue_report.__globals__.get",
    "shop.tasks.revenue_report.__call__",
    "bait.os.system",
    "bait.system",
    "bait.revenue_report",
    "bait.run",
    "bait.shell",
    "bait.made",
    "bait.alias",
    "bait.renamed",
    "bait.wrapped_system",
    "bait.wrapped",
    "bait._private",
    "bait.Job",
    "bait.Job.run",
    "bait.job",
    "bait.method",
    "bait.renamed_partial",
    "bait.call",
    "bait.renamed_wrapper",
    "bait.functools.partial",
    # Other spellings
    " shop.tasks.revenue_report",
    "shop.tasks.revenue_report ",
    "shop.tasks.revenue_report\n",
    "shop.tasks.revenue_report\x00",
    "shop..tasks.revenue_report",
    "shop.tasks..revenue_report",
    ".shop.tasks.revenue_report",
    "shop.tasks.revenue_report.",
    "shop.tasks:revenue_report",
    "shop/tasks.revenue_report",
    "Shop.Tasks.revenue_report",
    "shop.tasks.revenue_rep\u043ert",  # a Cyrillic letter
    "\uff53hop.tasks.revenue_report",  # normalized it is an s
    "shop.tasks.revenue_report()",
    "shop.tasks.*",
    "bait.*",
    "shop.tasks",
    "shop",
    ".",
    # A module that nobody imports
    "trap.job",
    "trap",
]
OPTIONS = sorted({*KEYWORD_OPTIONS, *TENANT_OPTIONS} - set(offered_schedules.HARMLESS_OPTIONS))
VALUES = {"chain": "[('os.system', ('ls',))]", "hook": "'os.system'", "databases": "['default']"}
KWARGS = [
    *(f"q_options={{'{option}': {VALUES.get(option, '1')}}}" for option in (*OPTIONS, "broker_name", "iter_hook")),
    *(f"{option}={VALUES.get(option, '1')}" for option in KEYWORD_OPTIONS if option in OPTIONS),
    "{'hook': 'os.system'}",
    "{'q_options': {'hook': 'os.system'}, 'title': 'x'}",
    "title='x', q_options={'group': 'x', 'hook': 'os.system'}",
    "schema_name='globex_inc'",
]


@pytest.fixture(autouse=True)
def bait(settings, monkeypatch, tmp_path: Path) -> Iterator[Path]:
    """Modules on the path: one that is offered, one that notes when it is imported. Returns where it notes that."""
    told = tmp_path / "imported"
    (tmp_path / "bait.py").write_text(BAIT)
    (tmp_path / "trap.py").write_text(f"open({str(told)!r}, 'w').close()\ndef job(*args): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.TENANT_Q = settings.TENANT_Q | {"admin_functions": ["bait.*"]}
    yield told
    for name in ("bait", "trap"):
        sys.modules.pop(name, None)


@pytest.fixture
def staff(tenants) -> Iterator[Client]:
    """A browser at the tenant's admin, of a superuser there."""
    with served_at(A, "staff.localhost"):
        client = Client(HTTP_HOST="staff.localhost")
        with in_schema(A):
            client.force_login(get_user_model().objects.create_superuser("boss"))
        yield client


def url(row: Schedule) -> str:
    return f"{LIST}{row.pk}/change/"


def by_code(**fields: Any) -> Schedule:
    """A schedule as code of the project makes it."""
    values = {"func": OFFERED, "name": "by code", "schedule_type": Schedule.DAILY}
    with in_schema(A):
        return Schedule.objects.create(**{**values, "next_run": timezone.now() + timedelta(hours=1), **fields})


def stored() -> list[tuple[Any, ...]]:
    with in_schema(A):
        return list(Schedule.objects.order_by("pk").values_list(*offered_schedules.GUARDED))


def queued() -> int:
    return get_broker().queue_size()


# Naming code: by each page


@pytest.mark.parametrize("named", PATHS)
def test_no_path_is_saved_or_imported(staff, bait, named):
    row = by_code()
    before = stored()
    for page in (ADD, PREVIEW, url(row)):
        wanted = DAILY | {"func": named, "args": "'ls'"}
        assert staff.post(page, wanted).status_code == 200, "redirected after it was saved"
    assert staff.post(ADD, DAILY | {"func": OFFERED, "hook": named}).status_code == 200
    assert stored() == before
    assert not bait.exists(), "the module was imported"
    assert queued() == 0


@pytest.mark.parametrize("kwargs", KWARGS)
def test_no_option_is_saved(staff, kwargs):
    row = by_code()
    before = stored()
    for text in (kwargs, f" {kwargs}\r\n"):
        wanted = DAILY | {"func": OFFERED, "kwargs": text}
        assert staff.post(ADD, wanted).status_code == 200
        answer = staff.post(url(row), wanted)
        assert "cannot be set here" in answer.content.decode()
    assert stored() == before


@pytest.mark.parametrize("name", [*KEYWORD_OPTIONS, "q_options", "task_name", "schema_name"])
def test_the_planned_time_is_no_option(staff, name):
    assert staff.post(ADD, DAILY | {"func": OFFERED, "intended_date_kwarg": name}).status_code == 200
    assert stored() == []


@pytest.mark.parametrize("cluster", ["elsewhere", "testproject ", "*", "django_q"])
def test_no_other_sites_cluster_is_saved(staff, cluster):
    row = by_code()
    before = stored()
    wanted = DAILY | {"func": OFFERED, "cluster": cluster}
    assert staff.post(ADD, wanted).status_code == staff.post(url(row), wanted).status_code == 200
    assert stored() == before


def test_harmless_options_are_saved(staff):
    kwargs = "title='May', q_options={'group': 'books', 'task_name': 'x', 'ack_failure': True}"
    assert staff.post(ADD, DAILY | {"func": OFFERED, "kwargs": kwargs, "cluster": conf().cluster}).status_code == 302


def test_every_option_is_refused_or_said_to_be_harmless():
    """A new option is refused until somebody has looked at what it gives a tenant's staff."""
    assert set(offered_schedules.HARMLESS_OPTIONS) == {"task_name", "group", "ack_failure"}
    assert {*KEYWORD_OPTIONS, *TENANT_OPTIONS} - set(OPTIONS) == {"group", "ack_failure"}


# A project's own page and form


class PlainForm(forms.ModelForm):  # type: ignore[type-arg]
    """A project's own form, which knows nothing of what is offered."""

    class Meta:
        model = Schedule
        fields = ("func", "hook", "args", "kwargs", "schedule_type", "next_run", "repeats")


class PlainAdmin(ScheduleAdmin):
    """A project's own page: its own form, all fields, some of them to be changed in the list."""

    form = PlainForm  # type: ignore[assignment]  # not ours
    fieldsets = None
    fields = ("func", "hook", "args", "kwargs", "schedule_type", "next_run", "repeats")
    list_display = ("label", "func", "hook", "kwargs")  # fewer than ours
    list_display_links = ("label",)
    list_editable = ("func", "hook", "kwargs")
    save_as = True


@pytest.fixture
def own_page(settings, monkeypatch) -> None:
    site = admin.AdminSite("admin")
    site.register(Schedule, PlainAdmin)
    urls = types.ModuleType("own_urls")
    urls.urlpatterns = [path("admin/", site.urls)]
    monkeypatch.setitem(sys.modules, "own_urls", urls)
    settings.ROOT_URLCONF = "own_urls"


def bulk(row: Schedule, **changes: str) -> dict[str, str]:
    words = {"form-0-id": str(row.pk), "form-0-func": row.func, "form-0-hook": row.hook or "", "form-0-kwargs": ""}
    counts = {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "_save": "Save"}
    return counts | words | {f"form-0-{name}": value for name, value in changes.items()}


@pytest.mark.parametrize("field", ["func", "hook"])
@pytest.mark.parametrize("named", ["os.system", "bait.system", "trap.job", "shop.tasks.QUtilities.add_async_task", "x"])
def test_a_projects_own_page_is_safe(staff, own_page, bait, named, field):
    row = by_code()
    before = stored()
    wanted = DAILY | {"func": OFFERED, field: named}
    assert staff.post(ADD, wanted).status_code == staff.post(url(row), wanted).status_code == 200
    staff.post(url(row), wanted | {"_saveasnew": "1"})
    answer = staff.post(LIST, bulk(row, **{field: named}))
    assert "not offered here" in answer.content.decode(), "the list is shown again"
    assert stored() == before
    assert not bait.exists()


def test_a_list_that_can_be_edited_works_for_what_is_offered(staff, own_page):
    row = by_code()
    assert staff.post(LIST, bulk(row, func="bait.report", kwargs="q_options={'group': 'g'}")).status_code == 302
    assert stored()[0][0] == "bait.report"
    assert staff.post(LIST, bulk(row, kwargs="hook='os.system'")).status_code == 200
    locked = by_code(func="os.system")
    with in_schema(A):
        Schedule.objects.exclude(pk=locked.pk).delete()
    assert staff.post(LIST, bulk(locked, kwargs="a=1")).status_code == 200
    assert stored() == [("os.system", None, None, None, None, None)]


def test_a_form_that_is_used_by_itself_is_safe(tenants, bait):
    """As import tools do."""
    with in_schema(A):
        form_class = ScheduleAdmin.form
        data = {"func": "trap.job", "schedule_type": "D", "repeats": -1, "next_run": timezone.now()}

        class Form(form_class):  # type: ignore[valid-type,misc]
            class Meta:
                model = Schedule
                fields = "__all__"

        assert not Form(data).is_valid()
        assert Form(data | {"func": OFFERED}).is_valid()
    assert not bait.exists()


class TextForm(ScheduleAdmin.form):  # type: ignore[valid-type,misc]
    """A project's own form, in which function and hook are texts again."""

    class Meta:
        model = Schedule
        fields = PlainForm.Meta.fields

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["func"] = forms.CharField()
        self.fields["hook"] = forms.CharField(required=False)


@pytest.mark.parametrize("fields", [{"func": "trap.job"}, {"func": OFFERED, "hook": "trap.job"}])
def test_a_form_without_lists_is_safe(tenants, bait, fields):
    with in_schema(A):
        data = {"schedule_type": "D", "repeats": -1, "next_run": timezone.now()}
        form = TextForm(data | fields)
        assert list(form.errors) == ["hook" if "hook" in fields else "func"]
    assert not bait.exists()


def test_what_a_page_hands_to_save_is_looked_at_once_more(tenants, rf):
    """A subclass may have replaced form and formset."""
    page = admin.site._registry[Schedule]
    request = rf.post("/")
    with in_schema(A):
        request.user = get_user_model().objects.create_superuser("boss")
        form = types.SimpleNamespace(changed_data=["func"], is_planned_anew=False)
        with pytest.raises(PermissionDenied):
            page.save_model(request, Schedule(func="os.system", next_run=timezone.now()), form, change=False)
        row = by_code()
        row.func = "os.system"
        with pytest.raises(PermissionDenied):
            page.save_model(request, row, form, change=True)
        # Code changes the function while the page with the arguments is on its way.
        row = Schedule.objects.get(pk=row.pk)
        Schedule.objects.filter(pk=row.pk).update(func="os.system")
        row.args = "'ls'"
        form.changed_data = ["args"]
        with pytest.raises(PermissionDenied):
            page.save_model(request, row, form, change=True)
    assert stored() == [("os.system", None, None, None, None, None)]


# Schedules that code made, of what is not offered

LOCKED = [
    {"func": "trap.job", "args": "1, 2"},
    {"hook": "tests.tasks.hook"},
    {"kwargs": "q_options={'hook': 'tests.tasks.hook'}"},
    {"kwargs": "timeout=5"},
    {"cluster": "elsewhere"},
    {"intended_date_kwarg": "q_options"},
]


@pytest.mark.parametrize("fields", LOCKED)
def test_what_is_not_offered_can_be_moved_but_not_changed(staff, bait, fields):
    row = by_code(**fields)
    before = stored()
    page = staff.get(url(row)).content.decode()
    assert "that is not offered here" in page
    assert not any(f'name="{name}"' in page for name in offered_schedules.GUARDED)
    crafted = {
        "func": OFFERED,
        "hook": "",
        "args": "'ls'",
        "kwargs": "a=1",
        "intended_date_kwarg": "date",
        "cluster": conf().cluster,
    }
    moved = {"name": "moved", "schedule_type": "I", "minutes": "7", "repeats": "3", "initial-repeats": "-1"}
    assert staff.post(url(row), DAILY | crafted | moved).status_code == 302
    assert stored() == before, "whatever was sent"
    with in_schema(A):
        row.refresh_from_db()
    assert (row.name, row.schedule_type, row.minutes, row.repeats) == ("moved", "I", 7, 3)
    assert row.next_run.year == 2090
    assert staff.post(f"{PREVIEW}?id={row.pk}", DAILY | crafted).status_code == 200
    assert not bait.exists(), "nor is its function imported"


def test_what_is_not_offered_is_paused_resumed_and_deleted_and_not_run_now(staff):
    row = by_code(func="tests.tasks.add", args="1, 2")
    act = f"{LIST}{row.pk}/act/"

    def is_paused() -> bool:
        with in_schema(A):
            return Schedule.objects.get().next_run is None

    staff.post(f"{act}pause/")
    assert is_paused()
    staff.post(f"{act}resume/")
    assert not is_paused()
    assert "run_now" not in staff.get(url(row)).content.decode()
    by_button = staff.post(f"{act}run_now/", follow=True)
    by_list = staff.post(LIST, {"action": "run_now", "_selected_action": [row.pk]}, follow=True)
    told = [[str(message) for message in answer.context["messages"]][-1] for answer in (by_button, by_list)]
    assert told == [
        "Nothing was done, because this is no longer possible.",
        "by code: tests.tasks.add is not a function that is offered here.",
    ]
    assert queued() == 0
    assert staff.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert stored() == []


@pytest.mark.parametrize("fields", LOCKED)
def test_run_now_looks_at_everything(staff, fields):
    row = by_code(**fields)
    staff.post(f"{LIST}{row.pk}/act/run_now/")
    staff.post(LIST, {"action": "run_now", "_selected_action": [row.pk]})
    assert queued() == 0


@pytest.mark.seam
def test_what_code_planned_goes_on_firing(staff, make_worker):  # noqa: F811
    by_code(func="tests.tasks.add", args="1, 2", hook="tests.tasks.nothing", next_run=timezone.now())
    fire.fire_due(A)
    work(make_worker())
    with in_schema(A):
        assert Task.objects.get().result == 3


# Run again


def finished(func: str, origin: str | None, **fields: Any) -> Task:
    now = timezone.now()
    values = {"id": "a" * 32, "name": "job", "args": (), "kwargs": {}, "success": True, "started": now, "stopped": now}
    with in_schema(A):
        task = Task.objects.create(**{**values, "func": func, **fields, "hook": None})
        task.hook = fields.get("hook")
        Task.objects.filter(pk=task.pk).update(hook=task.hook)  # Django-Q2 would call it
        sign(task, origin=origin)
    return task


def run_again(client: Client, task: Task) -> str:
    answer = client.post(f"/admin/django_q/success/{task.pk}/act/run_again/", follow=True)
    listed = client.post(
        "/admin/django_q/success/", {"action": "run_again", "_selected_action": [task.pk]}, follow=True
    )
    return " ".join(str(message) for one in (answer, listed) for message in one.context["messages"])


@pytest.mark.parametrize("origin", [SCHEDULE, ADMIN, None])
@pytest.mark.parametrize(
    "fields", [{"func": "os.system", "args": ("ls",)}, {"func": OFFERED, "hook": "trap.job"}, {"func": "bait.run"}]
)
def test_what_a_schedule_ran_runs_again_only_where_it_is_offered(staff, bait, origin, fields):
    told = run_again(staff, finished(origin=origin, **fields))
    assert "not a function that is offered here" in told
    assert queued() == 0
    assert not bait.exists()


@pytest.mark.parametrize(
    ("func", "origin"), [("tests.tasks.add", CODE), (OFFERED, SCHEDULE), (OFFERED, ADMIN), (OFFERED, None)]
)
def test_what_code_ran_and_what_is_offered_runs_again(staff, func, origin):
    assert "queued again" in run_again(staff, finished(func, origin, args=(1, 2)))
    assert queued() == 2


@pytest.mark.seam
def test_the_origin_follows_what_a_schedule_started(staff, make_worker):  # noqa: F811
    """A fire, its chain's next link, and what "Run now" queues: none of them is taken for code's own."""
    by_code(
        func="tests.tasks.add", kwargs="a=1, q_options={'chain': [('tests.tasks.nothing',)]}", next_run=timezone.now()
    )
    fire.fire_due(A)
    worker = make_worker()
    work(worker)
    row = by_code(name="now")
    staff.post(f"{LIST}{row.pk}/act/run_now/")
    work(worker)
    with in_schema(A):
        QUtilities.add_async_task("tests.tasks.add", 1, group="g")
        QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), ("tests.tasks.nothing",)])
        iter_id = QUtilities.add_async_tasks_from_iter("tests.tasks.add", [(1, 1), (2, "x")])
    work(worker)
    run_again(staff, Task(pk=_latest("now")))
    work(worker)
    origins = {"by code": {SCHEDULE}, "now": {ADMIN}, "g": {CODE}}
    assert {group: _origins(group) for group in origins} == origins
    with in_schema(A):
        tasks = list(Task.objects.exclude(pk=iter_id).order_by("started").values_list("pk", "func"))
    told = {pk: run_again(staff, Task(pk=pk)) for pk, _ in tasks[:3]}
    refused = [pk for pk, text in told.items() if "is not a function that is offered here" in text]
    assert refused == [pk for pk, func in tasks[:3] if func != OFFERED]
    assert len(refused) == 2
    for pk, _ in tasks[3:]:
        model = "success" if _is_success(pk) else "failure"
        answer = staff.post(f"/admin/django_q/{model}/{pk}/act/run_again/", follow=True)
        assert "queued again" in answer.content.decode(), "code has enqueued it"


def _latest(group: str) -> str:
    with in_schema(A):
        return Task.objects.filter(group=group).latest("started").pk


def _origins(group: str) -> set[str | None]:
    with in_schema(A):
        return {task_rows.read(task, "args").origin for task in task_rows.as_texts(Task.objects.filter(group=group))}


def _is_success(pk: str) -> bool:
    with in_schema(A):
        return bool(Task.objects.values_list("success", flat=True).get(pk=pk))


# What the project offers


@pytest.mark.seam
def test_a_projects_own_task_is_offered_and_runs(staff, make_worker):  # noqa: F811
    page = staff.get(ADD)
    fields = page.context["adminform"].form.fields
    groups = dict(fields["func"].choices)
    assert [one for one, _ in groups["Shop"]] == [
        f"shop.tasks.{name}"
        for name in ("charge_card", "import_catalogue", "pack", "pick", "revenue_report", "ship", "total_with_tax")
    ] + ["shop.workflows.order"]
    offers = [
        f"bait.{name}" for name in ("asynchronous", "cached", "decorate", "decorated", "make", "rename", "report")
    ]
    assert [one for one, _ in groups["bait"]] == offers
    assert list(fields["func"].choices) == list(fields["hook"].choices)
    assert staff.post(ADD, DAILY | {"func": OFFERED, "args": "'May'", "name": "books"}).status_code == 302
    with in_schema(A):
        row = Schedule.objects.get()
    assert staff.post(url(row), DAILY | {"func": OFFERED, "args": "'June'", "name": "books"}).status_code == 302
    staff.post(f"{LIST}{row.pk}/act/run_now/")
    worker = make_worker()
    work(worker)
    with in_schema(A):
        task = Task.objects.get()
    assert (task.success, task.result["schema"]) == (True, A)
    assert "queued again" in run_again(staff, task)
    work(worker)
    with in_schema(A):
        assert Task.objects.filter(success=True).count() == 3


def test_a_path_that_settings_name_is_offered(staff, settings):
    settings.TENANT_Q = settings.TENANT_Q | {"admin_functions": ["math.pow", "trap.job"]}
    assert staff.post(ADD, DAILY | {"func": "math.pow", "args": "2, 3", "hook": "trap.job"}).status_code == 302
    assert staff.post(ADD, DAILY | {"func": "math.floor", "args": "2"}).status_code == 200


def test_a_declaration_decides_what_is_offered(settings, monkeypatch):
    importlib.import_module("tests.tasks_declared")
    settings.TENANT_Q = settings.TENANT_Q | {"admin_functions": ["tests.tasks_declared.*"]}
    for short, is_offered in (("plain", False), ("renamed", None), ("fail_twice", True)):
        own = declarations.find_loaded(f"tests.tasks_declared.{short}")
        other = replace(own, admin=is_offered)
        for name in (own.name, own.path):
            monkeypatch.setitem(declarations._registry.by_name, name, other)
    shown = offered.functions()["tests.tasks_declared"]
    assert {"tests.renamed", "tests.tasks_declared.fail_twice"} <= set(shown)
    assert not {"tests.tasks_declared.plain", "tests.tasks_declared.renamed"} & set(shown)
    assert not offered.is_offered("tests.tasks_declared.plain")
    assert offered.is_offered("tests.renamed") and offered.is_offered("tests.tasks_declared.renamed")
    settings.TENANT_Q = settings.TENANT_Q | {"admin_functions": []}
    assert not offered.is_offered("tests.renamed")
    assert offered.is_offered("tests.tasks_declared.fail_twice"), "by its declaration alone"
    assert offered.functions()["tests.tasks_declared"] == ["tests.tasks_declared.fail_twice"]


def test_a_tasks_module_that_is_broken_costs_only_its_own_functions(staff, settings, tmp_path):
    (tmp_path / "broken_bait.py").write_text("raise RuntimeError('broken')")
    settings.TENANT_Q = settings.TENANT_Q | {"admin_functions": ["broken_bait.*", "bait.*"]}
    assert set(offered.functions()) == {"Shop", "bait"}
    assert [entry for entry, _ in offered.fruitless_entries()] == ["broken_bait.*"]


def test_the_modules_in_a_package_are_offered_but_its_tests(settings, tmp_path):
    for name in ("deep/__init__", "deep/inner/__init__", "deep/inner/far", "deep/_own", "deep/test_it", "deep/tests"):
        (tmp_path / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("def job(): pass")
    settings.TENANT_Q = {"admin_functions": ["deep.*"]}
    try:
        found = [one for title, paths in offered.functions().items() if title != "Shop" for one in paths]
        assert sorted(found) == ["deep.inner.far.job", "deep.inner.job", "deep.job"]
        assert not offered.is_offered("deep._own.job")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "deep"]:
            del sys.modules[name]


def test_the_tasks_of_shared_apps_are_not_offered(settings, monkeypatch):
    """Were there such a module, in an app whose tables are in the public schema only."""
    module = types.ModuleType("customers.tasks")
    exec("def drop_all(): pass", vars(module))
    module.__spec__ = sys.modules["customers"].__spec__
    monkeypatch.setitem(sys.modules, "customers.tasks", module)
    settings.TENANT_Q = {}
    assert not offered.is_offered("customers.tasks.drop_all")
    settings.TENANT_APPS = [*settings.TENANT_APPS, "customers.apps.CustomersConfig"]
    assert offered.is_offered("customers.tasks.drop_all"), "named by its configuration"


# The operators' site


def test_in_the_public_schema_nothing_is_limited(tenants):
    """Where it has task tables too, its admin is the operators'."""
    connection.set_schema_to_public()
    assert not offered_schedules.is_limited()
    offered_schedules.refuse_unlisted(Schedule(func="os.system"))
    offered_schedules.refuse_again(Task(func="os.system"), SCHEDULE)
    with in_schema(A):
        assert offered_schedules.is_limited()


# Permissions


def test_who_may_only_add_names_no_more(staff, bait):
    with in_schema(A):
        user = get_user_model().objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="add_schedule"))
        staff.force_login(user)
    assert staff.post(ADD, DAILY | {"func": "trap.job"}).status_code == 200
    assert staff.post(PREVIEW, DAILY | {"func": "trap.job"}).status_code == 200
    assert stored() == [] and not bait.exists()
