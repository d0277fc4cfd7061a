"""A schedule that could only fail is refused where it is made: by `create_schedule` and by `save()`."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django_q.models import Schedule
from django_q.tasks import schedule

from tenant_q.exceptions import WrongArgument
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks, tasks_declared

A = "acme_corp"
pytestmark = [pytest.mark.seam, pytest.mark.usefixtures("tenants")]


class Opaque:
    pass


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("func", {"func": "tests.tasks add"}, "is not the dotted path of a function"),
    ("func", {"func": "add"}, "is not the dotted path of a function"),
    ("hook", {"hook": "tests/tasks"}, "is not the dotted path of a function"),
    ("args", {"args": (Opaque(),)}, "do not parse as Python literals"),
    ("args", {"args": "1, nobody"}, "this is not a literal"),
    ("kwargs", {"kwargs": {"x": Opaque()}}, "do not parse as Python literals"),
    ("kwargs", {"kwargs": {"q_options": {"retries": 3}}}, "unknown option 'retries'"),
    ("kwargs", {"kwargs": {"q_options": {"timeout": -7}}}, "timeout"),
    ("cron", {"schedule_type": "C", "cron": "61 * * * *"}, "does not parse"),
    ("cron", {"schedule_type": "C"}, "does not parse"),
    ("minutes", {"schedule_type": "I", "minutes": -5}, "a whole number from 1 on"),
    ("schedule_type", {"schedule_type": "X"}, "is not one of"),
    ("intended_date_kwarg", {"intended_date_kwarg": "class"}, "cannot be the name of an argument"),
]


@pytest.mark.parametrize(("field", "values", "words"), WRONG)
def test_save_refuses_it(field, values, words):
    with in_schema(A):
        with pytest.raises(ValidationError) as raised:
            Schedule.objects.create(**{"func": "tests.tasks.add"} | values)
        assert words in " ".join(raised.value.message_dict[field])
        row = Schedule.objects.create(func="tests.tasks.add", args="1, 2")
        for name, value in values.items():
            setattr(row, name, value)
        with pytest.raises(ValidationError, match=words.replace("(", ".")):
            row.save(update_fields=list(values))


@pytest.mark.parametrize("make", [QUtilities.create_schedule, schedule])
def test_create_schedule_refuses_it(make):
    with in_schema(A):
        for refused in (("tests.tasks add",), ("tests.tasks.add", Opaque())):
            with pytest.raises(ValidationError):
                make(*refused)
        with pytest.raises(ValidationError):
            make("tests.tasks.add", 1, 2, q_options={"retries": 3})
        with pytest.raises(ValidationError):
            make("tests.tasks.add", 1, 2, schedule_type="C", cron="61 * * * *")
        assert not Schedule.objects.exists()


def test_nothing_is_imported_for_it():
    with in_schema(A):
        assert Schedule.objects.create(func="only.on.another.cluster").pk


@pytest.mark.parametrize(
    ("func", "stored"),
    [(tasks.add, "tests.tasks.add"), (tasks_declared.renamed, "tests.renamed"), (divmod, "builtins.divmod")],
)
def test_a_callable_is_stored_by_its_name(func, stored):
    made = QUtilities.create_schedule(func, 1, 2, schema_name=A)
    with in_schema(A):
        assert Schedule.objects.get(pk=made.pk).func == stored
        assert Schedule.objects.create(func=func).func == stored


@pytest.mark.parametrize("func", [lambda: None, partial(tasks.add, 1), "".join])
def test_a_callable_without_a_path_is_refused(func):
    with pytest.raises(ValidationError, match="no path of its own"):
        QUtilities.create_schedule(func, schema_name=A)


def test_no_function_at_all_is_a_wrong_argument():
    with pytest.raises(WrongArgument):
        QUtilities.create_schedule(7, schema_name=A)  # type: ignore[arg-type]


def test_a_row_that_was_broken_before_can_be_paused_and_renamed():
    with in_schema(A):
        (row,) = Schedule.objects.bulk_create([Schedule(func="tests.tasks.add", args="nobody", schedule_type="H")])
        row.name, row.next_run = "broken", None
        row.save()
        row.refresh_from_db()
        assert (row.name, row.next_run, row.args) == ("broken", None, "nobody")


def test_firing_validates_nothing():
    with in_schema(A):
        (row,) = Schedule.objects.bulk_create([Schedule(func="tests.tasks.add", args="nobody", schedule_type="H")])
        with CaptureQueriesContext(connection) as sent:
            row.save(update_fields=["next_run", "repeats", "task"])
        # django-tenants adds a statement for each cursor.
        assert len([one for one in sent if not one["sql"].startswith("SET search_path")]) == 1
