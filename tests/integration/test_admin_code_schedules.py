"""In the admin, schedules from code are marked; a tenant's staff may pause and resume them, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from django_q.models import Schedule

from tenant_q.schedules import code_sync
from tenant_q.tenancy import in_schema
from tests.integration.test_admin import change_url, posted, site  # noqa: F401  (a fixture)
from tests.integration.test_code_schedules import DAILY, A, _clean, code, rows, sync  # noqa: F401  (fixtures)

LIST = "/admin/django_q/schedule/"


@pytest.fixture
def client(site: Any, code: Any) -> Any:  # noqa: F811
    code(1, daily=DAILY | {"func": "tests.tasks.add", "args": [1, 2]})
    sync()
    return site(A)


def page(client: Any) -> str:
    return client.get(change_url("schedule", rows()["daily"].pk)).content.decode()


def do(client: Any, action: str) -> str:
    data = {"action": action, "_selected_action": [rows()["daily"].pk], "post": "yes"}
    return client.post(LIST, data, follow=True).content.decode()


def test_it_is_marked_and_has_no_fields_to_edit(client):
    assert "From code" in client.get(LIST).content.decode()
    shown = page(client)
    assert "comes from the code of this site" in shown
    assert 'name="cron"' not in shown and 'name="func"' not in shown and "deletelink" not in shown


def test_it_is_not_edited_or_deleted(client):
    posted(client, change_url("schedule", rows()["daily"].pk), cron="1 1 * * *", name="mine")
    assert rows()["daily"].cron == DAILY["cron"]
    client.post(f"{LIST}{rows()['daily'].pk}/delete/", {"post": "yes"})
    do(client, "delete_selected")
    assert "daily" in rows()


def test_it_is_paused_and_resumed(client, code):  # noqa: F811
    do(client, "pause")
    assert rows()["daily"].next_run is None
    code(2, daily=DAILY | {"func": "tests.tasks.add", "args": [3, 4]})
    sync()
    assert (rows()["daily"].next_run, rows()["daily"].args) == (None, "(3, 4)")
    do(client, "resume")
    assert rows()["daily"].next_run is not None


def test_what_left_the_code_is_not_resumed(client, code):  # noqa: F811
    code(2)
    sync()
    assert "Withdrawn" in client.get(LIST).content.decode()
    assert "does not have this schedule any more" in do(client, "resume")
    assert rows()["daily"].next_run is None
    do(client, "delete_selected")
    assert rows() == {}
    code(3, daily=DAILY)
    assert code_sync.Sync().run().done["added"] >= 1


def test_what_left_the_code_is_not_run(client, code):  # noqa: F811
    code(2)
    sync()
    assert "does not have this schedule any more" in do(client, "run_now")
    assert "1 task was queued" not in do(client, "run_now")


def test_a_row_with_the_id_of_one_from_code_is_the_staffs_own(client):
    with in_schema(A):
        Schedule.objects.filter(name="daily").update(name="own")
    row = rows()["own"]
    assert "From code" not in client.get(LIST).content.decode()
    assert posted(client, change_url("schedule", row.pk), name="daily").status_code == 302
    assert "daily" in rows()


def test_others_are_edited_as_before(client):
    with in_schema(A):
        row = Schedule.objects.create(name="own", func="tests.tasks.add", args="1, 2", schedule_type="D")
    assert posted(client, change_url("schedule", row.pk), name="renamed").status_code == 302
    assert "renamed" in rows()
