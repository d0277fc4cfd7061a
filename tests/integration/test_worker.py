"""A worker's round: packages of several tenants are fetched, run, saved, followed up and acknowledged."""

from __future__ import annotations

import logging
import sys
import time
from types import ModuleType
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django_q import tasks as django_q_tasks
from django_q.models import Task
from django_q.signals import post_execute, post_spawn
from django_q.signing import SignedPackage
from django_q.tasks import async_task

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.cluster.lifespan import LONGEST_BATCH
from tenant_q.cluster.shared_memory import Slot
from tenant_q.cluster.worker import Worker
from tenant_q.exceptions import BrokerError, DatabaseAway, EnqueueError, NoTenant
from tenant_q.lifecycle import bulk_rows, prune_results
from tenant_q.lifecycle.retries import MOST_PUT_OFFS
from tenant_q.package.build import build
from tenant_q.package.envelope import seal
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas, tasks
from tests.integration.conftest import know_as_short, make_due, redis_key, sql, work

HERE = __name__


# Tasks of this module


SEEN: list[Any] = []


def see(what: Any) -> Any:
    SEEN.append((connection.schema_name, what))
    return what


def spoil(values: list[Any]) -> str:
    values.append(lambda: None)
    return "done"


class Own:
    """A class that is gone when the package is fetched."""


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


@pytest.fixture
def key(tenants):
    """A name for notes that no other test has."""
    return get_broker().cluster


def add(schema: str, func: str, *args: Any, **keywords: Any) -> str:
    return QUtilities.add_async_task(func, *args, schema_name=schema, **keywords)


def enqueue(schema: str, text: str, id: str = "a" * 32) -> None:
    """Put a text on a tenant's queue, past all that checks it."""
    get_broker().enqueue([Message(id, schema, "tests.tasks.add", text)])


def row(id: str, schema: str = "acme_corp") -> Task:
    task = QUtilities.fetch_task(id, schema_name=schema)
    assert task is not None
    return task


def is_drained() -> bool:
    counts = get_broker().counts()
    return counts.open == counts.dead == 0


# Tenants


@pytest.mark.seam
def test_each_task_runs_in_its_tenants_schema(tenants, worker):
    know_as_short("tests.tasks.where", *tenants)
    ids = {name: [add(name, "tests.tasks.where") for _ in range(3)] for name in tenants}
    worker.tick()
    assert worker.lifespan.started == 9, "all in one batch"
    for name in tenants:
        tenant = tenancy.get_tenant(name)
        for id in ids[name]:
            assert row(id, name).result == {"schema": name, "tenant": name, "pk": tenant.pk}
        assert schemas.count_tasks(name) == 3
    assert is_drained()
    assert connection.schema_name == "public"
    assert worker.slot.running is None
    assert worker.slot.done == 9


@pytest.mark.seam
def test_a_hook_runs_in_the_tenants_schema(tenants, worker):
    ids = {name: add(name, "tests.tasks.where", hook="tests.tasks.hook") for name in tenants}
    work(worker)
    for name, id in ids.items():
        (told,) = tasks.notes(f"hook:{id}")
        assert (told["schema"], told["tenant"], told["success"]) == (name, name, True)
        assert row(id, name).hook == "tests.tasks.hook"


@pytest.mark.parametrize("hook", ["tests.tasks.broken_hook", "tests.tasks.no_such", "nodots", "tests.tasks.exit_now"])
def test_a_hook_that_breaks_changes_nothing(tenants, worker, hook):
    id = add("acme_corp", "tests.tasks.add", 1, hook=hook)
    work(worker)
    assert row(id).success
    assert is_drained()


def test_a_hook_sees_a_failure(tenants, worker):
    id = add("acme_corp", "tests.tasks.fail", hook="tests.tasks.hook")
    work(worker)
    (told,) = tasks.notes(f"hook:{id}")
    assert not told["success"]
    assert told["result"].startswith("broken : Traceback")


def test_a_hook_may_be_a_function(tenants, worker):
    id = add("acme_corp", "tests.tasks.add", 1, hook=tasks.hook)
    work(worker)
    assert len(tasks.notes(f"hook:{id}")) == 1
    assert row(id).hook == "tests.tasks.hook"


def test_what_a_task_enqueues_is_its_tenants(tenants, worker, key):
    add("globex_inc", "tests.tasks.enqueue_another", key)
    add("globex_inc", "tests.tasks.plain_async_task", key)
    work(worker)
    assert [note["schema"] for note in tasks.notes(key)] == ["globex_inc"] * 2
    assert schemas.count_tasks("globex_inc") == 4


# Chains


@pytest.mark.seam
def test_a_chain_stops_at_a_link_that_fails(tenants, worker):
    with in_schema("globex_inc"):
        group = QUtilities.create_async_tasks_chain(
            [(f"{HERE}.see", (1,)), ("tests.tasks.fail", ("in the middle",)), (f"{HERE}.see", (3,))]
        )
    work(worker)
    assert SEEN == [("globex_inc", 1)]
    with in_schema("globex_inc"):
        first, failed = QUtilities.fetch_task_group(group)
        assert (first.success, failed.success) == (True, False)
        assert "in the middle" in failed.result
        assert QUtilities.get_group_count(group, failures=True) == 1
    assert is_drained()


def test_the_links_of_a_chain_run_in_order_in_its_schema(tenants, worker):
    groups = {
        name: QUtilities.create_async_tasks_chain([(f"{HERE}.see", (n,)) for n in range(4)], schema_name=name)
        for name in tenants
    }
    work(worker)
    for name, group in groups.items():
        assert [what for schema, what in SEEN if schema == name] == [0, 1, 2, 3]
        assert QUtilities.get_result_group(group, schema_name=name) == [0, 1, 2, 3]


def test_a_link_is_enqueued_once(tenants, worker, make_worker):
    """Its worker died after it had enqueued the next link, and before it acknowledged."""
    group = QUtilities.create_async_tasks_chain([(f"{HERE}.see", (1,)), (f"{HERE}.see", (2,))], schema_name="acme_corp")
    worker.broker.acknowledge = die
    with pytest.raises(Died):
        worker.tick()
    del worker.broker.acknowledge
    assert get_broker().reclaim(worker.key, running=None) == 1
    work(make_worker("w2"))
    assert SEEN == [("acme_corp", 1), ("acme_corp", 2)], "nothing ran twice"
    assert QUtilities.get_result_group(group, schema_name="acme_corp") == [1, 2]


@pytest.mark.parametrize(
    "link",
    [
        (f"{HERE}.see", (2,), {"task_name": "x" * 101}),
        ("x" * 257,),
    ],
    ids=["name", "function"],
)
def test_a_link_that_cannot_be_built_leaves_a_failed_row(tenants, worker, link):
    group = QUtilities.create_async_tasks_chain(
        [(f"{HERE}.see", (1,)), link, (f"{HERE}.see", (3,))], schema_name="acme_corp"
    )
    work(worker)
    first, second = QUtilities.fetch_task_group(group, schema_name="acme_corp")
    assert (first.success, second.success) == (True, False)
    assert "characters; use at most" in second.result
    assert SEEN == [("acme_corp", 1)]
    assert is_drained()


# Iters


@pytest.mark.seam
def test_an_iters_results_are_in_the_order_of_its_arguments(tenants, worker, make_worker):
    """Two workers run its parts, the later ones first."""
    arguments = [5, 3, 9, 1, 7, 2]
    id = QUtilities.add_async_tasks_from_iter(
        f"{HERE}.see", arguments, schema_name="acme_corp", hook="tests.tasks.hook"
    )
    fetched = [get_broker().fetch("other", limit=1).leases[0] for _ in (1,)]
    for _ in arguments[1:]:
        worker.tick()
    assert QUtilities.get_result(id, schema_name="acme_corp") is None, "one part is missing"
    get_broker().give_back("other", fetched)
    make_worker("w2").tick()
    assert [what for _, what in SEEN] != arguments
    assert QUtilities.get_result(id, schema_name="acme_corp") == arguments
    task = row(id)
    assert task.args == tuple((n,) for n in arguments)
    assert schemas.count_tasks("acme_corp") == 1, "parts leave no rows"
    (told,) = tasks.notes(f"hook:{id}")
    assert told["result"] == arguments
    assert not list(tasks.client().scan_iter(f"{redis_key('group')}*"))
    assert is_drained()


def test_an_iter_with_a_part_that_fails(tenants, worker):
    id = QUtilities.add_async_tasks_from_iter("math.sqrt", [4, -1, 9], schema_name="acme_corp")
    work(worker)
    task = row(id)
    assert not task.success
    assert (task.result[0], task.result[2]) == (2.0, 3.0)
    assert "math domain error" in task.result[1]
    assert schemas.count_tasks("acme_corp") == 2, "the failed part has a row of its own"


def test_an_iter_is_kept_as_its_options_say(tenants, worker):
    kept = QUtilities.add_async_tasks_from_iter("math.floor", [1.5], schema_name="acme_corp", task_name="n")
    unsaved = QUtilities.add_async_tasks_from_iter("math.floor", [2.5], schema_name="acme_corp", save=False)
    cached = QUtilities.add_async_tasks_from_iter("math.floor", [3.5], schema_name="acme_corp", cached=60)
    work(worker)
    with in_schema("acme_corp"):
        assert QUtilities.get_result("n") == QUtilities.get_result(kept) == [1]
        assert QUtilities.get_result(unsaved) is None
        assert QUtilities.get_result(cached) is None
        assert QUtilities.get_result(cached, cached=True) == [3]


def test_a_part_that_runs_twice_is_one_part(tenants, worker, make_worker):
    id = QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [1, 2], schema_name="acme_corp")
    worker.broker.acknowledge = die
    with pytest.raises(Died):
        worker.tick()
    del worker.broker.acknowledge
    get_broker().reclaim(worker.key, running=None)
    work(make_worker("w2"))
    assert [what for _, what in SEEN] == [1, 1, 2], "parts have no rows, so the first one ran again"
    assert QUtilities.get_result(id, schema_name="acme_corp") == [1, 2]


def test_an_iter_whose_result_cannot_be_saved_at_once(tenants, worker, monkeypatch):
    id = QUtilities.add_async_tasks_from_iter(f"{HERE}.see", [1, 2], schema_name="acme_corp")
    worker.tick()
    with monkeypatch.context() as broken:
        broken.setattr(bulk_rows, "save", fail_for("acme_corp"))
        worker.tick()
    assert get_broker().counts().delayed == 1
    make_due()
    work(worker)
    assert [what for _, what in SEEN] == [1, 2], "nothing ran twice"
    assert QUtilities.get_result(id, schema_name="acme_corp") == [1, 2]


# Equal names


@pytest.fixture(params=["a cache with tenants in its keys", "a cache without"])
def cache(request, settings):
    """The test project's cache has a KEY_FUNCTION of the tenancy package; a project need not have one."""
    if request.param == "a cache without":
        plain = {name: value for name, value in settings.CACHES["default"].items() if name != "KEY_FUNCTION"}
        settings.CACHES = settings.CACHES | {"plain": plain}
        settings.Q_CLUSTER = settings.Q_CLUSTER | {"cache": "plain"}


@pytest.mark.seam
def test_cached_results_and_groups_of_two_tenants_are_apart(tenants, cache, worker, monkeypatch):
    """Equal ids and equal groups."""
    monkeypatch.setattr("tenant_q.package.build.uuid", lambda: ("same name", "a" * 32))
    for name in tenants[:2]:
        add(name, f"{HERE}.see", name, cached=60, group="g")
        work(worker)
        add(name, f"{HERE}.see", f"kept of {name}")
        work(worker)
    for name in tenants[:2]:
        with in_schema(name):
            assert QUtilities.get_result("a" * 32, cached=True) == name
            assert QUtilities.get_result_group("g", cached=True) == [name]
            assert QUtilities.get_group_count("g", cached=True) == 1
            assert QUtilities.get_result("a" * 32) == QUtilities.get_result("same name") == f"kept of {name}"
    with in_schema("initech_llc"):
        assert QUtilities.get_result("a" * 32, cached=True) is None
        assert QUtilities.get_result_group("g", cached=True) is None
        assert QUtilities.get_result("a" * 32) is QUtilities.get_result("same name") is None
    with in_schema("acme_corp"):
        assert QUtilities.delete_task_group("g", cached=True) == 1
        assert QUtilities.get_result("a" * 32, cached=True) is None
    with in_schema("globex_inc"):
        assert QUtilities.get_result("a" * 32, cached=True) == "globex_inc"


def test_a_cached_result_of_another_cluster_is_found(tenants, make_worker, other_cluster):
    id = add("acme_corp", "tests.tasks.add", 1, cached=60, cluster=other_cluster("another"))
    work(make_worker(broker=get_broker("another")))
    assert QUtilities.get_result(id, cached=True, schema_name="acme_corp") == 1


# Deliveries


class Died(BaseException):
    """Stands for `kill -9`."""


def die(*_: Any, **__: Any) -> Any:
    raise Died


@pytest.mark.seam
def test_a_package_that_succeeded_is_not_run_again(tenants, worker, make_worker):
    """Its worker died after it had saved, and before it acknowledged."""
    id = add("acme_corp", f"{HERE}.see", 1, hook="tests.tasks.hook")
    worker.broker.acknowledge = die
    with pytest.raises(Died):
        worker.tick()
    del worker.broker.acknowledge
    assert get_broker().counts().leased == 1
    get_broker().reclaim(worker.key, running=None)
    work(make_worker("w2"))
    assert SEEN == [("acme_corp", 1)]
    assert row(id).result == 1
    assert is_drained()


def test_a_package_that_failed_is_run_again(tenants, worker, make_worker):
    """A failure is no success, and the worker's death may have been its cause."""
    id = add("acme_corp", "tests.tasks.fail")
    worker.broker.acknowledge = die
    with pytest.raises(Died):
        worker.tick()
    del worker.broker.acknowledge
    get_broker().reclaim(worker.key, running=id)
    work(make_worker("w2"))
    assert row(id).attempt_count == 2
    assert is_drained()


@pytest.mark.parametrize(
    ("limit", "starts", "words"), [(1, 1, "died once"), (None, 3, "died 3 times"), (4, 4, "died 4 times")]
)
def test_a_task_that_kills_its_workers_is_given_up(tenants, worker, limit, starts, words):
    options = {"q_options": {"max_deliveries": limit}} if limit else {}
    id = add("acme_corp", f"{HERE}.see", 1, save=False, **options)
    for n in range(starts):
        assert get_broker().fetch("dead")
        get_broker().reclaim("dead", running=id, death=f"was killed by SIGKILL (peak memory {n + 1} MiB)")
    worker.tick()
    assert SEEN == []
    task = row(id)
    assert f"{'it' if starts == 1 else 'the last one'} was killed by SIGKILL (peak memory {starts} MiB)" in task.result
    assert not task.success
    assert task.result.startswith("WorkerDied: the worker process")
    assert words in task.result
    assert task.attempt_count == starts
    assert is_drained()


def test_one_start_less_and_it_runs(tenants, worker):
    id = add("acme_corp", f"{HERE}.see", 1)
    for _ in range(2):
        get_broker().fetch("dead")
        get_broker().reclaim("dead", running=id)
    worker.tick()
    assert (row(id).result, row(id).attempt_count) == (1, 3)


def test_the_settings_limit_of_starts(tenants, worker, settings):
    settings.TENANT_Q = {"max_deliveries": 1}
    id = add("acme_corp", f"{HERE}.see", 1)
    get_broker().fetch("dead")
    get_broker().reclaim("dead", running=id)
    worker.tick()
    assert row(id).result.startswith("WorkerDied")


def test_a_task_killed_for_its_timeout_is_given_up(tenants, worker):
    id = add("acme_corp", f"{HERE}.see", 1)
    get_broker().fetch("dead")
    get_broker().reclaim("dead", running=id, give_up_reason="Task exceeded maximum timeout value (1 seconds)")
    worker.tick()
    assert SEEN == []
    assert row(id).result == "TaskTimeout: Task exceeded maximum timeout value (1 seconds)"
    assert is_drained()


def test_a_package_whose_failed_row_kills_workers_is_buried(tenants, worker):
    id = add("acme_corp", f"{HERE}.see", 1, q_options={"max_deliveries": 1})
    for _ in range(2):
        get_broker().fetch("dead")
        get_broker().reclaim("dead", running=id)
    worker.tick()
    (dead,) = get_broker().dead()
    assert (dead.id, dead.cause) == (
        id,
        "WorkerDied: what follows the task, its row or its hook, killed the worker as well",
    )


# Refused packages


def test_a_bad_signature_is_buried(tenants, worker):
    enqueue("acme_corp", "no:good:signature")
    good = add("acme_corp", f"{HERE}.see", 1)
    work(worker)
    (dead,) = get_broker().dead()
    assert dead.cause.startswith("BadPackage: the signature does not fit this project's SECRET_KEY")
    assert row(good).success, "nobody else is stopped"
    assert schemas.count_tasks("acme_corp") == 1
    assert sql("SELECT to_regclass('public.django_q_task')") == [(None,)]


@pytest.mark.seam
def test_a_package_moved_to_another_tenants_queue_does_not_run(tenants, worker):
    package = build(f"{HERE}.see", (1,), {}, schema="acme_corp")
    enqueue("globex_inc", seal(package), package.id)
    work(worker)
    assert SEEN == []
    (dead,) = get_broker().dead()
    assert "belongs to tenant 'acme_corp' and was found in the queue of 'globex_inc'" in dead.cause
    assert [schemas.count_tasks(name) for name in tenants] == [0, 0, 0]


def test_a_package_without_a_tenant_does_not_run(tenants, worker):
    package = build(f"{HERE}.see", (1,), {}, schema="acme_corp")
    task = {name: value for name, value in package.task.items() if name != "schema_name"}
    for schema in ("acme_corp", "public"):
        enqueue(schema, SignedPackage.dumps(task), f"{schema}")
    work(worker)
    assert SEEN == []
    assert ["names no tenant" in dead.cause for dead in get_broker().dead()] == [True, True]


@pytest.mark.parametrize("save", [True, False])
def test_a_removed_class_leaves_a_failed_row(tenants, worker, monkeypatch, save):
    module = ModuleType("an_old_release")
    monkeypatch.setattr(Own, "__module__", module.__name__)
    module.Own = Own
    monkeypatch.setitem(sys.modules, module.__name__, module)
    chain = [(f"{HERE}.see", (2,))]
    id = add("acme_corp", f"{HERE}.see", Own(), group="g", save=save, chain=chain)
    good = add("acme_corp", f"{HERE}.see", 1)
    monkeypatch.delitem(sys.modules, module.__name__)
    work(worker)
    task = row(id)
    assert (task.success, task.group, task.func, task.args) == (False, "g", f"{HERE}.see", ())
    assert task.result.startswith("BadPackage: it cannot be unpickled: No module named 'an_old_release'")
    assert row(good).success
    assert is_drained()


# Tenants that are not there


def test_an_unknown_tenant_is_waited_for_and_then_given_up(tenants, worker, caplog):
    package = build(f"{HERE}.see", (1,), {}, schema="nobody")
    enqueue("nobody", seal(package), package.id)
    good = add("acme_corp", f"{HERE}.see", 2)
    delays = []
    for _ in range(MOST_PUT_OFFS):
        work(worker)
        assert get_broker().counts().delayed == 1
        delays.append(get_broker().fetch("looks").next_delayed)
        make_due()
    assert delays == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 60], abs=0.3), "with back-off"
    worker.tick()
    (dead,) = get_broker().dead()
    assert (dead.id, dead.schema) == (package.id, "nobody")
    assert dead.cause.startswith("UnknownTenant: No tenant has the schema name 'nobody'")
    assert SEEN == [("acme_corp", 2)]
    assert row(good).success
    warnings = [record for record in caplog.records if "waits for its tenant" in record.getMessage()]
    assert len(warnings) == 1, "told once, not each time"
    assert warnings[0].schema == "nobody"


@pytest.mark.seam
def test_a_tenant_that_is_made_meanwhile_is_served(tenants, worker):
    """Its row may be in a transaction still open when the package is fetched."""
    package = build("tests.tasks.where", (), {}, schema="newcomer")
    enqueue("newcomer", seal(package), package.id)
    worker.tick()
    assert get_broker().counts().delayed == 1
    schemas.clone_tenants(["newcomer"])
    try:
        make_due()
        worker.tick()
        assert row(package.id, "newcomer").result["schema"] == "newcomer"
    finally:
        schemas.drop_tenant("newcomer")
        tenancy.forget_tenants()


def test_a_schema_not_migrated_is_waited_for(tenants, worker):
    ids = [add("globex_inc", f"{HERE}.see", n) for n in range(2)]
    other = add("acme_corp", f"{HERE}.see", 2)
    sql("ALTER TABLE globex_inc.django_q_task RENAME TO away")
    try:
        for _ in range(MOST_PUT_OFFS + 3):
            work(worker)
            make_due()
        assert SEEN == [("acme_corp", 2)]
        assert row(other).success
        assert get_broker().counts().dead == 0
    finally:
        sql("ALTER TABLE globex_inc.away RENAME TO django_q_task")
    work(worker)
    assert sorted(row(id, "globex_inc").result for id in ids) == [0, 1]


def test_waiting_for_a_tenant_uses_up_no_try(tenants, worker, monkeypatch):
    """Once it is migrated, its results may fail to be saved as often as any other's."""
    id = add("globex_inc", f"{HERE}.see", 1)
    sql("ALTER TABLE globex_inc.django_q_task RENAME TO away")
    try:
        for _ in range(MOST_PUT_OFFS + 3):
            work(worker)
            make_due()
    finally:
        sql("ALTER TABLE globex_inc.away RENAME TO django_q_task")
    with monkeypatch.context() as broken:
        broken.setattr(bulk_rows, "save", fail_for("globex_inc"))
        work(worker)
    assert get_broker().counts().dead == 0
    make_due()
    work(worker)
    assert row(id, "globex_inc").result == 1


# Outcomes that cannot be saved


def fail_for(*names: str) -> Any:
    """Saving that fails for some tenants."""
    save = bulk_rows.save

    def save_rows(by_tenant: Any) -> Any:
        if {schema for schema, _ in by_tenant} & set(names):
            raise DatabaseError("this table is broken")
        return save(by_tenant)

    return save_rows


@pytest.mark.seam
def test_an_outcome_that_cannot_be_saved_is_saved_later(tenants, worker, monkeypatch):
    know_as_short(f"{HERE}.see", *tenants)
    ids = {name: add(name, f"{HERE}.see", name, hook="tests.tasks.hook", group="g") for name in tenants}
    with monkeypatch.context() as broken:
        broken.setattr(bulk_rows, "save", fail_for("globex_inc"))
        worker.tick()
        assert len(SEEN) == 3
        assert [schemas.count_tasks(name) for name in tenants] == [1, 0, 1], "it costs no other tenant"
        assert get_broker().counts().delayed == 1
        assert tasks.notes(f"hook:{ids['globex_inc']}") == [], "hooks come after saving"
        make_due()
        worker.tick()
        assert get_broker().counts().delayed == 1
    make_due()
    work(worker)
    assert len(SEEN) == 3, "it was not run again"
    task = row(ids["globex_inc"], "globex_inc")
    assert (task.result, task.success, task.group, task.attempt_count) == ("globex_inc", True, "g", 1)
    assert len(tasks.notes(f"hook:{ids['globex_inc']}")) == 1
    assert is_drained()


def test_a_failure_that_cannot_be_saved_is_saved_later(tenants, worker, monkeypatch):
    id = add("acme_corp", "tests.tasks.fail")
    with monkeypatch.context() as broken:
        broken.setattr(bulk_rows, "save", fail_for("acme_corp"))
        worker.tick()
    make_due()
    work(worker)
    assert row(id).result.startswith("broken : Traceback")


def test_an_outcome_is_saved_later_whatever_became_of_the_arguments(tenants, worker, monkeypatch):
    id = add("acme_corp", f"{HERE}.spoil", [])
    with monkeypatch.context() as broken:
        broken.setattr(bulk_rows, "save", fail_for("acme_corp"))
        worker.tick()
    make_due()
    work(worker)
    assert (row(id).result, row(id).args) == ("done", ([],))
    assert get_broker().counts().dead == 0


def test_a_last_attempt_that_cannot_be_saved_stays_the_last(tenants, worker, monkeypatch):
    """It is not started again, though it has attempts left: it killed its worker each time."""
    id = add("acme_corp", f"{HERE}.see", 1, q_options={"max_deliveries": 1, "max_attempts": 0})
    get_broker().fetch("dies")
    get_broker().reclaim("dies", running=id)
    with monkeypatch.context() as broken:
        broken.setattr(bulk_rows, "save", fail_for("acme_corp"))
        worker.tick()
    make_due()
    worker.tick()
    assert row(id).result.startswith("WorkerDied: ")
    assert is_drained()


def test_an_outcome_that_can_never_be_saved_is_buried(tenants, worker, monkeypatch):
    id = add("acme_corp", f"{HERE}.see", 1)
    monkeypatch.setattr(bulk_rows, "save", fail_for("acme_corp"))
    for _ in range(MOST_PUT_OFFS + 1):
        work(worker)
        make_due()
    (dead,) = get_broker().dead()
    assert (dead.id, dead.cause) == (id, "DatabaseError: this table is broken")
    assert SEEN == [("acme_corp", 1)]
    monkeypatch.undo()


@pytest.mark.parametrize("server", ["postgresql", "broker"])
def test_what_is_finished_is_kept_through_an_outage(tenants, worker, monkeypatch, server):
    id = add("acme_corp", f"{HERE}.see", 1)
    with monkeypatch.context() as away:
        if server == "postgresql":
            away.setattr(bulk_rows, "save", raising(DatabaseAway("away")))
        else:
            away.setattr(type(worker.broker), "acknowledge", raising(BrokerError("away")))
        for _ in range(3):
            with pytest.raises((DatabaseAway, BrokerError)):
                worker.tick()
            assert worker.has_unfinished()
    work(worker)
    assert not worker.has_unfinished()
    assert SEEN == [("acme_corp", 1)]
    assert row(id).success
    assert is_drained()


def raising(error: Exception) -> Any:
    def raise_it(*_: Any, **__: Any) -> Any:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("func", "args", "keywords"),
    [
        (f"{HERE}.spoil", ([],), {}),
        (f"{HERE}.see", (1,), {"timeout": "10"}),
        (f"{HERE}.see", (1,), {"chain": 5}),
        (f"{HERE}.see", (1,), {"task_name": "half a pair \ud800"}),
    ],
    ids=["arguments that no longer pickle", "timeout", "chain", "name"],
)
def test_no_package_ends_a_worker(tenants, worker, func, args, keywords):
    """As plain `async_task` enqueues it, which checks nothing."""
    know_as_short(func, *tenants)
    know_as_short(f"{HERE}.see", *tenants)
    with in_schema("acme_corp"):
        async_task(func, *args, **keywords)
    other = add("globex_inc", f"{HERE}.see", 2)
    worker.tick()
    assert row(other, "globex_inc").success


# Stopping


def test_what_did_not_start_goes_back_when_told_to_stop(tenants, worker):
    know_as_short("tests.integration.test_worker.stop_here", *tenants)
    STOP.append(worker)
    try:
        for n in range(4):
            add("acme_corp", f"{HERE}.stop_here", n)
        worker.tick()
    finally:
        STOP.clear()
    assert SEEN == [("acme_corp", 0)]
    assert schemas.count_tasks("acme_corp") == 1, "what ran is saved"
    assert get_broker().counts() == type(get_broker().counts())(queued=3, leased=0, delayed=0, dead=0)
    (lease,) = get_broker().fetch("w2", limit=1).leases
    assert not lease.is_redelivered


def test_a_batch_that_turned_out_long_is_not_gone_on_with(tenants, worker):
    """What its worker has not started waits for whoever is free, in its order, as if it had never been taken."""
    know_as_short(f"{HERE}.drag", "acme_corp", "globex_inc")
    worker.lifespan.longest_batch = LONGEST_BATCH
    for n in range(4):
        add("acme_corp", f"{HERE}.drag", n)
        add("globex_inc", f"{HERE}.drag", n)
    worker.tick()
    ran = list(SEEN)
    assert ran[-1][1] == 1, "it took long"
    counts = get_broker().counts()
    assert (counts.queued, counts.leased) == (8 - len(ran), 0)
    assert worker.slot.waiting_seconds == 0, "the sentinel has nothing to recall"
    taken = get_broker().fetch("w2").leases
    assert taken and not any(lease.is_redelivered for lease in taken)
    get_broker().give_back("w2", taken)
    work(worker)
    for schema in ("acme_corp", "globex_inc"):
        assert [n for name, n in SEEN if name == schema] == [0, 1, 2, 3], "each tenant's in their order"
    assert is_drained()


def drag(n: int) -> None:
    see(n)
    time.sleep(1.1 * LONGEST_BATCH if n == 1 else 0)


STOP: list[Worker] = []


def stop_here(n: int) -> None:
    see(n)
    STOP[0].stopping.set()


@pytest.mark.parametrize("setting", [{"recycle": 2}, {"max_rss": 1}])
def test_a_worker_makes_way_for_a_fresh_one(tenants, worker, settings, setting):
    settings.Q_CLUSTER = settings.Q_CLUSTER | setting
    for n in range(3):
        add("acme_corp", f"{HERE}.see", n)
    ticks = 0
    while not worker.stopping:
        worker.tick()
        ticks += 1
    assert ticks == (2 if "recycle" in setting else 1)
    assert get_broker().counts().leased == 0


# Signals and logs


def test_receivers_of_post_execute(tenants, worker):
    seen: list[Any] = []

    def receiver(task: dict[str, Any], **_: Any) -> None:
        seen.append((connection.schema_name, task["id"], task["result"], task["success"]))

    post_execute.connect(receiver)
    try:
        ids = {name: add(name, "tests.tasks.add", n) for n, name in enumerate(tenants)}
        work(worker)
    finally:
        post_execute.disconnect(receiver)
    assert sorted(seen) == sorted((name, ids[name], n, True) for n, name in enumerate(tenants))


def test_a_broken_receiver_of_post_execute_changes_nothing(tenants, worker):
    def receiver(**_: Any) -> None:
        raise ValueError("the receiver is broken")

    post_execute.connect(receiver)
    try:
        id = add("acme_corp", "tests.tasks.add", 1)
        work(worker)
    finally:
        post_execute.disconnect(receiver)
    assert row(id).success
    assert is_drained()


def test_a_worker_tells_that_it_is_there(tenants):
    told: list[str] = []

    def receiver(proc_name: str, **_: Any) -> None:
        told.append(proc_name)

    post_spawn.connect(receiver)
    try:
        worker = Worker("w9", get_broker(), Slot())
        worker.stopping.restore()
    finally:
        post_spawn.disconnect(receiver)
    assert told[0].startswith("worker ")


def test_a_refused_acknowledgement_is_logged_with_its_tenant(tenants, worker, make_worker, monkeypatch, caplog):
    id = add("acme_corp", f"{HERE}.see", 1)
    monkeypatch.setattr(worker.completer, "_acknowledge", lambda: None)
    worker.tick()
    monkeypatch.undo()
    get_broker().reclaim(worker.key, running=None)
    work(make_worker("w2"))
    with caplog.at_level(logging.WARNING, "tenant_q"):
        worker.tick()
    (record,) = [record for record in caplog.records if "refused its acknowledgement" in record.getMessage()]
    assert (record.schema, record.task_id, record.func) == ("acme_corp", id, f"{HERE}.see")


def test_a_slot_tells_what_runs(tenants):
    slot = Slot()
    assert (slot.running, slot.log_labels) == (None, {})
    labels = {"task_id": "a" * 32, "schema": "s" * 63, "func": "é" * 200}
    slot.start(labels, None)
    assert slot.running == "a" * 32
    assert slot.log_labels | {"func": ""} == labels | {"func": ""}
    assert slot.log_labels["func"].startswith("é" * 127), "what is too long is cut"
    slot.finish()
    assert (slot.log_labels, slot.done) == ({}, 1)


# Pruning


def test_old_results_are_pruned_between_batches(tenants, worker, settings, monkeypatch):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 1}
    settings.TENANT_Q = {"lease": 1}
    pruned: list[str] = []
    monkeypatch.setattr(prune_results, "prune", lambda schema, **_: pruned.append(schema))
    add("acme_corp", "tests.tasks.add", 1)
    add("globex_inc", "tests.tasks.add", 1)
    work(worker)
    assert pruned == [], "what was saved just now is spared"
    monkeypatch.setattr(prune_results, "spared", lambda: type("Zero", (), {"total_seconds": lambda self: -1.0})())
    worker.pruner._next = 0.0
    worker.tick()
    assert sorted(pruned) == ["acme_corp", "globex_inc"]
    worker.pruner._next = 0.0
    worker.tick()
    assert len(pruned) == 2, "each once, until something new is saved"


def test_what_is_left_to_prune_is_pruned_the_next_time(tenants, worker, settings, monkeypatch):
    monkeypatch.setattr(prune_results, "prune", lambda schema, **_: pruned.append(schema) or len(pruned) < 3)
    pruned: list[str] = []
    worker.pruner._noted_at["acme_corp"] = float("-inf")
    for _ in range(5):
        worker.pruner._next = 0.0
        worker.tick()
    assert pruned == ["acme_corp"] * 3


def test_a_tenant_that_cannot_be_pruned_stops_nobody(tenants, worker, monkeypatch):
    def prune(schema: str, **_: Any) -> None:
        raise DatabaseError("broken")

    monkeypatch.setattr(prune_results, "prune", prune)
    worker.pruner._noted_at = {"acme_corp": -1e9, "globex_inc": -1e9}
    worker.pruner._next = 0.0
    worker.tick()
    assert worker.pruner._noted_at == {}


# Plain Django-Q2


@pytest.mark.seam
def test_plain_async_task_is_for_the_current_tenant(tenants, worker):
    with in_schema("globex_inc"):
        id = async_task("tests.tasks.where", hook="tests.tasks.hook", group="g")
    work(worker)
    assert row(id, "globex_inc").result["schema"] == "globex_inc"
    assert tasks.notes(f"hook:{id}")[0]["schema"] == "globex_inc"
    with in_schema("globex_inc"):
        assert django_q_tasks.result(id)["schema"] == "globex_inc"
        assert django_q_tasks.fetch(id).group == "g"
        assert len(django_q_tasks.result_group("g")) == 1
        assert django_q_tasks.queue_size() == 0
    with in_schema("acme_corp"):
        assert django_q_tasks.result(id) is None


@pytest.mark.seam
def test_plain_async_task_refuses_public(tenants):
    with pytest.raises(NoTenant) as caught:
        async_task("tests.tasks.where")
    assert "Schema 'public' is current and has no django_q tables" in str(caught.value)
    assert "in_schema('<schema>')" in str(caught.value)
    assert "schema_name='<schema>'" in str(caught.value)
    assert is_drained()


def test_a_plain_chain_and_iter(tenants, worker):
    with in_schema("acme_corp"):
        group = django_q_tasks.async_chain([("tests.tasks.add", (1,)), ("tests.tasks.add", (2,))])
        id = django_q_tasks.async_iter("tests.tasks.add", [(3,), (4,)])
    work(worker)
    assert QUtilities.get_result_group(group, schema_name="acme_corp") == [1, 2]
    assert sorted(QUtilities.get_result(id, schema_name="acme_corp")) == [3, 4]


def test_a_task_without_a_tenant_is_not_put_on_a_queue(tenants):
    """A receiver of `pre_enqueue` is switched off, or another process has no tenant_q."""
    from django_q.brokers import get_broker as django_q_broker

    package = build("tests.tasks.add", (1,), {}, schema="acme_corp")
    task = {name: value for name, value in package.task.items() if name != "schema_name"}
    with pytest.raises(EnqueueError, match="The task is refused: it names no tenant"):
        django_q_broker().enqueue(SignedPackage.dumps(task))
    assert is_drained()


def test_a_batch_that_comes_while_a_worker_is_told_to_stop_goes_back_at_once(tenants, worker, monkeypatch):
    """A fetch waits in the server for its turn, and may have it after the signal."""
    QUtilities.add_async_task("tests.tasks.add", 1, schema_name="acme_corp")
    fetch, asked = worker.broker.fetch, []

    def told_meanwhile(*args: Any, **kwargs: Any) -> Any:
        worker.stopping.set()
        return fetch(*args, **kwargs)

    monkeypatch.setattr(worker.broker, "fetch", told_meanwhile)
    monkeypatch.setattr(tenancy, "verify", lambda *_: asked.append(1))
    worker.tick()
    counts = worker.broker.counts()
    assert (counts.queued, counts.leased, asked) == (1, 0, [])
