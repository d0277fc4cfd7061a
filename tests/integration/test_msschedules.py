"""`python manage.py msschedules`, and what it says where the index was not migrated."""

from __future__ import annotations

import json
from datetime import datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tenant_q import policies
from tenant_q.cluster import preflight
from tenant_q.exceptions import ConfigurationError
from tenant_q.schedules import fire
from tests.integration.conftest import sql, work
from tests.integration.planning import LATER, elsewhere, insert, on_the_wire, write_past_the_triggers


def msschedules(*arguments: str) -> str:
    out = StringIO()
    call_command("msschedules", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def planned(tenants, worker) -> dict[str, int]:
    """Of two tenants: one that has succeeded, one that has failed, one that has not run."""
    ids = {
        "daily": insert(next_run=timezone.now(), name="daily"),
        "broken": insert("globex_inc", timezone.now(), func="tests.tasks.fail", name="broken", schedule_type="W"),
        "cron": insert(next_run=LATER, schedule_type="C", cron="0 6 * * 1-5"),
    }
    for name in ("acme_corp", "globex_inc"):
        fire.fire_due(name)
    work(worker)
    return ids


@pytest.mark.seam
def test_the_table_of_what_is_next(planned):
    head, *rows = msschedules().splitlines()
    assert head.split() == ["schema", "name", "function", "type", "next", "run", "last", "held"]
    columns = [row.split("  ") for row in rows]
    cells = [[cell.strip() for cell in row if cell] for row in columns]
    assert [row[:4] for row in cells] == [
        ["acme_corp", "daily", "tests.tasks.nothing", "daily"],
        ["globex_inc", "broken", "tests.tasks.fail", "weekly"],
        ["acme_corp", str(planned["cron"]), "tests.tasks.nothing", "cron 0 6 * * 1-5"],
    ]
    assert [row[5:] for row in cells] == [["success", "-"], ["failure", "-"], ["-", "-"]]
    assert cells[2][4] == "2999-01-01 00:00:00+00:00"
    assert "\x1b" not in msschedules(), "colours are for terminals"


def test_json_limit_and_schema(planned):
    (first,) = json.loads(msschedules("--json", "--limit", "1"))
    assert (first["schema"], first["id"], first["last_result"]) == ("acme_corp", planned["daily"], "success")
    assert (first["func"], first["type"], first["held"]) == ("tests.tasks.nothing", "daily", None)
    assert datetime.fromisoformat(first["next_run"]) > timezone.now()
    found = json.loads(msschedules("--json", "--schema", "globex_inc"))
    assert [one["name"] for one in found] == ["broken"]
    assert "--limit N lists more" in msschedules("--limit", "1")
    assert msschedules("--schema", "initech_llc") == "Nothing is planned in initech_llc.\n"


def test_it_asks_only_the_schemas_it_shows(planned):
    with on_the_wire() as asked:
        msschedules("--limit", "1")
    assert not any("globex_inc" in text for text in asked)
    assert any("acme_corp" in text for text in asked)


def test_why_a_schedule_is_held_is_told(planned, unlimited, scheduler):
    policies.change("acme_corp", actor="test", act="pause", paused=True)
    sql("UPDATE acme_corp.django_q_schedule SET next_run = now()")
    scheduler.tick()
    assert {one["held"] for one in json.loads(msschedules("--json", "--schema", "acme_corp"))} == {"paused"}


def test_a_schema_that_is_gone_is_listed_without_details(spare):
    insert(spare, id=1)
    sql("DROP SCHEMA spare CASCADE")
    (one,) = json.loads(msschedules("--json"))
    assert (one["schema"], one["id"], one["func"]) == ("spare", 1, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--schema", "nobody"), "No tenant has the schema name 'nobody'; create it"),
        (("--limit", "0"), "'0' is not a whole number of at least 1"),
        (("--limit", "x"), "'x' is not a whole number"),
        (("--repair",), "--repair belongs to `msschedules --check`; give both"),
        (("--check", "--limit", "3"), "leave one of them out"),
    ],
)
def test_what_is_wrong_with_the_call_is_told(tenants, arguments, words):
    with pytest.raises(CommandError, match=words.replace("(", r"\(")):
        msschedules(*arguments)


@pytest.mark.seam
def test_check_and_repair(spare):
    assert msschedules("--check") == "The index agrees with the schedules of 4 schemas.\n"
    write_past_the_triggers(
        "INSERT INTO acme_corp.django_q_schedule (func, schedule_type, repeats, next_run) "
        "VALUES ('tests.tasks.nothing', 'D', -1, now())"
    )
    sql("ALTER TABLE globex_inc.django_q_schedule DISABLE TRIGGER USER")
    sql("DROP SCHEMA spare CASCADE")
    out = StringIO()
    with pytest.raises(CommandError, match="wrong about 3 schemas: `msschedules --check --repair`") as error:
        call_command("msschedules", "--check", stdout=out)
    assert error.value.returncode == 1
    assert out.getvalue().splitlines() == [
        "acme_corp: 1 schedule is wrong in the index",
        "globex_inc: not in the index as it is now, or without its triggers",
        "spare: no tenant has this schema, or its table django_q_schedule is gone, and it is still in the index",
    ]
    assert msschedules("--check", "--schema", "initech_llc") == "The index agrees with the schedules of 1 schema.\n"
    assert msschedules("--check", "--repair", "--schema", "acme_corp") == (
        "acme_corp: 1 schedule is wrong in the index; repaired\n"
    )
    answer = json.loads(msschedules("--check", "--repair", "--json"))
    assert [(one["schema"], one["repaired"]) for one in answer["wrong"]] == [("globex_inc", True), ("spare", True)]
    assert msschedules("--check") == "The index agrees with the schedules of 3 schemas.\n"


@pytest.mark.seam
def test_what_is_not_offered_is_listed_and_no_error(tenants):
    """A tenant's staff of the version before could have made it, and so could code: it goes on firing."""
    insert(func="shop.tasks.ship", kwargs="order_id=1")
    one = insert(func="os.system", name="evil \x1b[2J", args="'ls'")
    two = insert(hook="os.system", name=None, repeats=0)
    three = insert("globex_inc", func="shop.tasks.ship", kwargs="q_options={'chain': [('os.system',)]}")
    lines = msschedules("--check").splitlines()
    assert lines == [
        "The index agrees with the schedules of 3 schemas.",
        "3 schedules run code that is not offered to the tenants' staff (TENANT_Q['admin_functions']):",
        f"acme_corp: schedule {one} (evil \\x1b[2J), function os.system: "
        "os.system is not a function that is offered here.",
        f"acme_corp: schedule {two}, function tests.tasks.nothing: os.system is not a function that is offered here.",
        f"globex_inc: schedule {three}, function shop.tasks.ship: "
        "These are options of the task that cannot be set here: chain.",
    ]
    answer = json.loads(msschedules("--check", "--json", "--schema", "globex_inc"))
    (found,) = answer["unlisted"]
    assert (found["schema"], found["id"], found["func"], found["hook"]) == (
        "globex_inc",
        three,
        "shop.tasks.ship",
        None,
    )
    assert answer["wrong"] == []


def test_with_isolation_login_what_is_not_offered_does_not_run(tenants, settings):
    insert(func="os.system")
    settings.TENANT_Q = {"isolation": "login", "role_key": "k" * 40}
    line = msschedules("--check").splitlines()[1]
    assert line.startswith("1 schedule names code that is not offered to the tenants' staff, so each run is a failed")
    assert line.endswith("TENANT_Q['admin_functions'], or declare the schedules in code:")


def test_many_schemas_are_compared_in_one_round_trip(tenants):
    insert(func="os.system")
    with on_the_wire() as asked:
        msschedules("--check")
    assert sum("intended_date_kwarg" in text for text in asked) == 1


def test_a_schema_that_cannot_be_read_costs_only_itself(spare):
    insert(func="os.system")
    sql("ALTER TABLE spare.django_q_schedule RENAME COLUMN hook TO hooked")
    assert "acme_corp: schedule" in msschedules("--check")


def test_what_cannot_be_repaired_now(tenants):
    sql("ALTER TABLE acme_corp.django_q_schedule DISABLE TRIGGER USER")
    with elsewhere() as migrating:
        migrating.execute("LOCK TABLE acme_corp.django_q_schedule IN ROW EXCLUSIVE MODE")
        with pytest.raises(CommandError, match=r"still wrong about 1 schema \(acme_corp\)") as error:
            msschedules("--check", "--repair")
        assert error.value.returncode == 1
    assert msschedules("--check", "--repair").endswith("repaired\n")


def test_tables_that_are_not_migrated(tenants):
    sql("ALTER TABLE tenant_q_dueschedule RENAME TO away")
    try:
        for ask in (preflight.survey, msschedules):
            with pytest.raises((ConfigurationError, CommandError), match=r"no table tenant_q_dueschedule.*--shared"):
                ask()
    finally:
        sql("ALTER TABLE away RENAME TO tenant_q_dueschedule")
    sql("ALTER FUNCTION tenant_q_install_index(text) RENAME TO away")
    try:
        with pytest.raises(ConfigurationError, match="no function tenant_q_install_index"):
            preflight.survey()
    finally:
        sql("ALTER FUNCTION away(text) RENAME TO tenant_q_install_index")
