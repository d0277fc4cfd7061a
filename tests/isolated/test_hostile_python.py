"""The attacker is a task under "login" that sends its SQL in other ways, and sets traps in what it may write."""

from __future__ import annotations

import json
import time
import uuid

import pytest
from django.utils import timezone
from django_q.models import Schedule

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.flows.workflows import diamond
from tests.isolated import attack_calls
from tests.isolated.arming import ATTACKER, VICTIM
from tests.isolated.attacks import Attack
from tests.isolated.scene import REFUSED, not_refused, read_elsewhere, statements
from tests.isolated.server import ADMIN, OWNER
from tests.schemas import TENANTS
from tests.tasks import let_go, notes

pytestmark = pytest.mark.seam

ACCESS = "tests.isolated.attack_access."
CALLS = "tests.isolated.attack_calls."
# What each way of sending must not reach.
SAMPLE = Attack(
    "SELECT number FROM {victim}.shop_order",
    "UPDATE {victim}.shop_order SET buyer = 'x'",
    "DELETE FROM public.vault",
    "SELECT * FROM public.tenant_q_tenantrole",
    "SELECT {victim}.open_up()",
    "DO $$BEGIN LOCK TABLE {victim}.shop_order; END$$",
    "SET ROLE {owner}",
    "SELECT lo_get({large_object})",
)


@pytest.fixture
def sample(scene) -> list[str]:
    return statements(SAMPLE, scene.names)


@pytest.mark.parametrize("way", ["in_transaction", "prepared", "in_new_sessions", "in_a_thread"])
def test_however_it_is_sent(scene, sample, way):
    with scene.nothing_elsewhere():
        outcomes = scene.commit(way, sample)
    assert not_refused(SAMPLE, outcomes) == []


@pytest.mark.parametrize("way", ["in_transaction", "in_a_thread"])
def test_in_a_transactional_task(scene, sample, way):
    with scene.nothing_elsewhere():
        outcomes = scene.commit(way, sample, q_options={"transactional": True})
    assert not_refused(SAMPLE, outcomes) == []


def test_over_another_alias(scene, sample):
    with scene.nothing_elsewhere():
        outcomes = scene.commit("attempt", sample, "replica")
    assert {state for _, state, _ in outcomes} <= {"OperationalError", *REFUSED}, "closed to tasks, or of the same role"


def test_by_the_protocol_of_copy(scene):
    tables = [f"{VICTIM}.shop_order", "public.vault", "public.tenant_q_tenantrole", "public.rates"]
    with scene.nothing_elsewhere():
        outcomes = scene.commit("by_copy", tables)
    assert [outcome[:2] for outcome in outcomes if outcome[1] == "done"] == [["COPY public.rates TO STDOUT", "done"]]


def test_in_a_forked_process(scene, sample):
    key = uuid.uuid4().hex
    with scene.nothing_elsewhere():
        scene.commit("in_a_child", sample, key)
    (found,) = notes(key)
    assert not_refused(SAMPLE, found["outcomes"]) == []


def test_in_a_hook(scene, sample):
    with scene.nothing_elsewhere(), in_schema(ATTACKER):
        id = QUtilities.add_async_task(
            "tests.isolated.attack_tasks.give", sample, hook="tests.isolated.attack_tasks.hook"
        )
        (found,) = wait_until(lambda: notes(f"hook:{id}"))
    assert not_refused(SAMPLE, found["outcomes"]) == []


@pytest.mark.parametrize("way", ["attempt", "in_new_sessions", "in_a_thread"])
def test_in_a_thread_that_stays_while_others_are_served(scene, sample, way):
    """Its session would have the role of the tenant that is served by then."""
    key = uuid.uuid4().hex
    with scene.nothing_elsewhere(do_others_run=True):
        scene.commit("leave_a_thread", [*sample, "SELECT number FROM shop_order", "SELECT current_user"], key, 30, way)
        for schema in (VICTIM, "initech_llc"):
            scene.commit("attempt", ["SELECT pg_sleep(1)"], schema=schema)
        let_go(key)
        wait_until(lambda: notes(key)[-1]["outcomes"] == "the end", 10, "the thread to end, or its worker")
    found = [outcome for one in notes(key)[:-1] for outcome in one["outcomes"]]
    assert read_elsewhere(found) == []
    assert {outcome[2] for outcome in found if "current_user" in outcome[0]} == {f"[('{scene.names.own_role}',)]"}


# With what the settings show


def test_no_setting_and_no_variable_shows_another_login(scene, sample):
    outcomes = scene.commit(f"{ACCESS}raw_sessions", sample)
    users = {(where, user) for where, state, user in outcomes if state == "user"}
    assert {one for one in users if one[1] != scene.names.own_role} == set()
    assert users
    assert read_elsewhere(outcomes) == []


def test_no_setting_shows_the_key_of_the_passwords(scene):
    roles = [scene.names.victim_role, OWNER, ADMIN, "postgres"]
    with scene.nothing_elsewhere():
        outcomes = scene.commit(f"{ACCESS}with_computed_passwords", roles, [f"SELECT number FROM {VICTIM}.shop_order"])
    assert {outcome[1] for outcome in outcomes} == {"refused"}


# By our functions


def test_our_functions_do_not_name_another_tenant_for_it(scene):
    """Nor public: its tasks run as the owner."""
    with scene.nothing_elsewhere():
        outcomes = scene.commit(f"{CALLS}by_our_functions", VICTIM)
        wait_until(lambda: get_broker().counts().open == 0)
    assert [outcome for outcome in outcomes if outcome[1] == "done"] == []


# Its own rows


SCHEDULES = {
    "a function that is not offered": {"func": "os.system", "args": "('touch {path}',)"},
    "a hook that is not offered": {
        "func": "tests.tasks.intended",
        "args": "('{path}',)",
        "hook": "tests.isolated.attack_calls.touch",
    },
    "a function of tenant_q": {"func": "tenant_q.tenancy.tenancy_package.in_public"},
    "code for arguments": {"func": "tests.tasks.nothing", "args": "__import__('os').system('touch {path}')"},
    "a module that does something": {"func": "tests.isolated.imported_trap.nothing"},
    "a pickle for arguments": {"func": "tests.tasks.nothing", "args": "{bomb}"},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_that_it_wrote(scene, tmp_path, name):
    path = tmp_path / "exploded"
    words = {"path": str(path), "bomb": attack_calls.bomb(str(path))}
    values = {"hook": "", "args": "()"} | {key: text.format(**words) for key, text in SCHEDULES[name].items()}
    columns = ", ".join(f"{key} = $v${text}$v$" for key, text in values.items())
    insert = (
        "INSERT INTO django_q_schedule (func, schedule_type, repeats, next_run, intended_date_kwarg, name) "
        "VALUES ('tests.tasks.nothing', 'D', 1, '2999-01-01 00:00+00', '', 'trap')"
    )
    update = f"UPDATE django_q_schedule SET next_run = now() - interval '1 minute', {columns} WHERE name = 'trap'"
    with scene.nothing_elsewhere():
        outcomes = scene.commit("attempt", [insert, update])
        assert [outcome[1] for outcome in outcomes] == ["done", "done"]
        with in_schema(ATTACKER):
            wait_until(lambda: not Schedule.objects.filter(name="trap", next_run__lt=timezone.now()).exists())
            Schedule.objects.filter(name="trap").delete()
    assert not path.exists()
    assert notes("imported-trap") == []


def test_a_task_row_that_it_wrote_before_the_task_ran(scene, tmp_path):
    path = tmp_path / "exploded"
    text = attack_calls.bomb(str(path))
    with scene.nothing_elsewhere(), in_schema(ATTACKER):
        key = uuid.uuid4().hex
        QUtilities.add_async_task("tests.tasks.hold", key)
        id = QUtilities.add_async_task("tests.tasks.nothing")
        with scene.site.session(scene.names.own_role, scene.password()) as raw:
            raw.execute(
                f"INSERT INTO {ATTACKER}.django_q_task (id, name, func, args, kwargs, result, started, stopped, "
                "success, attempt_count) VALUES (%(id)s, 'x', 'x', %(b)s, %(b)s, %(b)s, now(), now(), true, 1)",
                {"id": id, "b": text},
            )
        let_go(key)
        wait_until(lambda: get_broker().counts().open == 0)
    assert not path.exists()


def test_a_lock_that_it_keeps_on_its_own_tables_holds_up_nobody_else(scene):
    key = uuid.uuid4().hex
    tables = [f"{ATTACKER}.{name}" for name in ("django_q_task", "django_q_schedule", "tenant_q_workflows_run")]
    others = [schema for schema in TENANTS if schema != ATTACKER]
    with scene.nothing_elsewhere(do_others_run=True):
        with in_schema(ATTACKER):
            QUtilities.add_async_task(f"{CALLS}keep_a_lock", tables, key, 60)
        begun = time.monotonic()
        for schema in others:
            scene.commit("surroundings", schema=schema)
        took = time.monotonic() - begun
        let_go(key)
    assert took < 30


TRAP = "tests.isolated.imported_trap."
OPTIONS = {"retry_on": [f"{TRAP}Error"], "no_retry_on": [f"{TRAP}Other"], "hook": f"{TRAP}nothing", "max_attempts": 2}


def test_the_plan_of_a_workflow_that_it_changed(scene):
    """Its first step runs; the others get options, functions and an input that make them fail."""
    with scene.nothing_elsewhere(), in_schema(ATTACKER):
        diamond.start({"seconds": 1.0})
        ((plan,),) = wait_until(lambda: scene.site.sql(f"SELECT plan FROM {ATTACKER}.tenant_q_workflows_run"))
        for step in plan["steps"]:
            step["options"], step["func"] = OPTIONS, f"{TRAP}nothing"
        plan["on_end"] = {"func": f"{TRAP}nothing"}
        with scene.site.session(scene.names.own_role, scene.password()) as raw:
            raw.execute(
                f"UPDATE {ATTACKER}.tenant_q_workflows_run SET plan = %s, input = %s",
                [json.dumps(plan), json.dumps({"seconds": "x"})],
            )
        wait_until(lambda: scene.site.sql(f"SELECT state FROM {ATTACKER}.tenant_q_workflows_run") != [("running",)], 60)
        scene.site.sql(f"DELETE FROM {ATTACKER}.tenant_q_workflows_step; DELETE FROM {ATTACKER}.tenant_q_workflows_run")
    assert notes("imported-trap") == []


def test_a_run_of_a_workflow_that_it_wrote(scene):
    """Its workflow is a function that nobody offers."""
    with scene.nothing_elsewhere():
        outcomes = scene.commit(
            "attempt",
            [
                "INSERT INTO tenant_q_workflows_run (id, workflow, version, cluster, state, plan, input, config, "
                f"generation, created, look_at, error, by) VALUES ('trap', '{TRAP}nothing', '', "
                f"'{scene.site.cluster}', 'running', '{{}}', '{{}}', '{{}}', 1, now(), now(), '', '')",
                "INSERT INTO tenant_q_workflows_step (run, name, index, at_once, generation, state, context, attempts, "
                "error) VALUES ('trap', 'a', -1, 0, 1, 'ready', '{}', 0, '')",
            ],
        )
        assert [outcome[1] for outcome in outcomes] == ["done", "done"]
        with in_schema(ATTACKER):  # what the scheduler does next comes after its look at the run
            id = QUtilities.create_schedule("tests.tasks.nothing", name="after", schedule_type="O").pk
        wait_until(lambda: not scene.site.sql(f"SELECT 1 FROM {ATTACKER}.django_q_schedule WHERE id = %s", id), 60)
        scene.site.sql(f"DELETE FROM {ATTACKER}.tenant_q_workflows_run; DELETE FROM {ATTACKER}.tenant_q_workflows_step")
    assert notes("imported-trap") == []
