"""Under "role", a task that names another tenant by mistake is refused. A task that changes its role is not."""

from __future__ import annotations

import uuid

import pytest

from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.isolated.arming import ATTACKER, VICTIM
from tests.isolated.attacks import ATTACKS, Attack
from tests.isolated.scene import not_refused, read_elsewhere, statements
from tests.tasks import let_go, notes

pytestmark = pytest.mark.seam
ISOLATION = "role"
CALLS = "tests.isolated.attack_calls."
# Those of the hostile set that an honest task could send.
MISTAKES = (
    "reads",
    "a search path of another tenant",
    "writes",
    "tables of tenant_q",
    "functions",
    "its own structure",
    "structure of others",
    "large objects",
    "locks on others' tables",
    "triggers on a temporary table",
)
SAMPLE = Attack(
    "SELECT number FROM {victim}.shop_order",
    "UPDATE {victim}.shop_order SET buyer = 'x'",
    "INSERT INTO public.prize VALUES ('me')",
    "DELETE FROM public.customers_customer",
    "SELECT {victim}.give()",
)


@pytest.fixture
def sample(scene) -> list[str]:
    return statements(SAMPLE, scene.names)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_statement_that_names_what_is_not_the_tenants(scene, name):
    with scene.nothing_elsewhere():
        outcomes = scene.commit("attempt", statements(ATTACKS[name], scene.names))
    assert not_refused(ATTACKS[name], outcomes) == []
    assert read_elsewhere(outcomes) == []


@pytest.mark.parametrize("way", ["in_transaction", "prepared", "in_new_sessions", "in_a_thread", "after_rollbacks"])
@pytest.mark.parametrize("transactional", [False, True], ids=["", "transactional"])
def test_however_it_is_sent(scene, sample, way, transactional):
    if transactional and way not in ("in_transaction", "in_a_thread"):
        pytest.skip("a transactional task keeps its session, and its first error ends it")
    with scene.nothing_elsewhere():
        outcomes = scene.commit(way, sample, q_options={"transactional": transactional})
    assert not_refused(SAMPLE, outcomes) == []


def test_over_another_alias(scene, sample):
    with scene.nothing_elsewhere():
        outcomes = scene.commit("attempt", sample, "replica")
    assert not_refused(SAMPLE, outcomes) == []


def test_in_a_hook(scene, sample):
    with scene.nothing_elsewhere(), in_schema(ATTACKER):
        id = QUtilities.add_async_task(
            "tests.isolated.attack_tasks.give", sample, hook="tests.isolated.attack_tasks.hook"
        )
        (found,) = wait_until(lambda: notes(f"hook:{id}"))
    assert not_refused(SAMPLE, found["outcomes"]) == []


def test_calls_that_name_another_tenant(scene):
    with scene.nothing_elsewhere():
        outcomes = scene.commit(f"{CALLS}by_our_functions", VICTIM)
    assert [outcome for outcome in outcomes if outcome[1] == "done"] == []


def test_a_statement_that_falls_through_to_public(scene):
    """The tenant's table is gone since its schema was verified, and public has one of the same name."""
    key = uuid.uuid4().hex
    rename = f"ALTER TABLE {ATTACKER}.auth_user RENAME TO "
    statements = ["SELECT * FROM auth_user", "DELETE FROM auth_user", "SELECT * FROM customers_customer"]
    with scene.nothing_elsewhere():
        with in_schema(ATTACKER):
            id = QUtilities.add_async_task("tests.isolated.attack_tasks.attempt_later", statements, key)
        wait_until(lambda: notes(key))
        scene.site.sql(f"{rename}elsewhere")
        let_go(key)
        outcomes = QUtilities.get_result(id, wait=30_000, schema_name=ATTACKER)
        scene.site.sql(f"ALTER TABLE {ATTACKER}.elsewhere RENAME TO auth_user")
    assert [state for _, state, _ in outcomes] == ["42501"] * 3
