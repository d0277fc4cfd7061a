"""Chains: results that are passed on, the status of a chain, and its hook."""

from __future__ import annotations

from typing import Any

import pytest
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.cluster import follow_up
from tenant_q.custom import Chain
from tenant_q.exceptions import EnqueueError
from tenant_q.lifecycle import push
from tenant_q.lifecycle.chain_ids import first_id
from tenant_q.package.envelope import open_package
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import make_due, work

A, B = "acme_corp", "globex_inc"
ADD = "tests.tasks.add"
HOOK = "tests.tasks_chained.chain_ended"
KEPT = pytest.mark.parametrize("cached", [False, 60], ids=["table", "cache"])


@pytest.fixture(autouse=True)
def _no_notes():
    tasks.client().delete("note:chain")
    yield
    tasks.client().delete("note:chain")


def start(*links: Any, **options: Any) -> str:
    return QUtilities.create_async_tasks_chain(list(links), schema_name=A, **options)


def status(group: str) -> str:
    return QUtilities.get_status(group, schema_name=A)


def results(group: str, **options: Any) -> Any:
    return QUtilities.get_result_group(group, failures=True, schema_name=A, **options)


def one_step(worker: Any) -> None:
    worker.tick()
    worker.completer.finish()


def ends() -> list[Any]:
    return [(note["name"], note["success"], note["group"], note["schema"]) for note in tasks.notes("chain")]


# Passing results


@KEPT
def test_each_link_gets_the_result_of_the_one_before(worker, cached):
    group = start((ADD, (1, 2)), (ADD, (10,)), ADD, pass_result=True, cached=cached)
    work(worker)
    assert results(group, cached=bool(cached)) == [3, 13, 13]


def test_without_it_a_link_gets_its_own_arguments_only(worker):
    group = start((ADD, (1, 2)), (ADD, (10,)))
    work(worker)
    assert results(group) == [3, 10]


def test_it_is_passed_in_sync_mode_and_by_the_object(tenants):
    with in_schema(A):
        chain = Chain([(ADD, (1,)), (ADD, (), {"b": 5})], sync=True, pass_result=True)
        chain.run()
        assert chain.result() == [1, 6]


def test_a_result_survives_a_redelivery_between_two_links(make_worker, monkeypatch):
    """The first link is saved, and its worker dies before the next one is enqueued."""
    group = start((ADD, (1, 2)), (ADD, (10,)), pass_result=True, hook=HOOK)
    dies = make_worker("dies")
    with monkeypatch.context() as patch:
        patch.setattr(follow_up, "push_links", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            work(dies)
    assert results(group) == [3]
    assert status(group) == "running", "its last link is still leased"
    get_broker().reclaim("dies", running=None)
    work(make_worker("lives"))
    assert results(group) == [3, 13]
    assert [success for _, success, *_ in ends()] == [True]


def test_a_worker_of_an_earlier_version_refuses_the_link_instead_of_running_it_without_the_result(tenants):
    from tenant_q.exceptions import WrongArgument
    from tenant_q.lifecycle.chains import link_of

    start((ADD, (1, 2)), (ADD, (10,)), pass_result=True)
    (lease,) = get_broker().fetch("w").leases
    (link,) = open_package(lease.payload).option("chain")
    with pytest.raises(WrongArgument):
        link_of(link)  # as that version reads it


def test_a_chain_without_these_options_has_the_packages_of_before(tenants):
    start((ADD, (1, 2)), (ADD, (10,)))
    (lease,) = get_broker().fetch("w").leases
    task = open_package(lease.payload).task
    assert task["chain"] == [(ADD, (10,), {})] and "chain_hook" not in task


def test_a_user_cannot_write_the_fourth_item(tenants):
    with pytest.raises(EnqueueError, match="A link of a chain is"):
        start((ADD, (1,), {}, True))


# The status


@KEPT
def test_the_status_of_a_chain(worker, cached):
    group = start((ADD, (1,)), (ADD, (2,)), cached=cached)
    assert status(group) == "queued"
    assert QUtilities.get_status(group, schema_name=B) == "unknown"
    one_step(worker)
    assert results(group, cached=bool(cached)) == [1]
    assert status(group) == "running"
    work(worker)
    assert status(group) == "success"


def test_a_chain_runs_while_its_first_link_is_leased_or_a_later_one_waits(worker):
    group = start((ADD, (1,)), ("tests.tasks.fail", (), {"q_options": {"max_attempts": 2, "retry_delay": 100}}))
    work(worker)
    assert status(group) == "running", "its second link is delayed"
    make_due()
    work(worker)
    assert status(group) == "failure"


def test_a_cancelled_link_cancels_its_chain(worker):
    group = start((ADD, (1,)), (ADD, (2,)), hook=HOOK)
    assert QUtilities.cancel(first_id(group), schema_name=A)
    assert status(group) == "cancelled"
    work(worker)
    assert status(group) == "cancelled"
    assert [success for _, success, *_ in ends()] == [False]


def test_a_chain_whose_first_rows_are_pruned_has_its_status(worker):
    group = start(*[(ADD, (n,)) for n in range(4)])
    for _ in range(3):
        one_step(worker)
    with in_schema(A):
        Task.objects.filter(id=first_id(group)).delete()
    assert status(group) == "running"
    work(worker)
    assert status(group) == "success"


def test_a_label_and_an_iter_are_no_chains(worker):
    with in_schema(A):
        for value in (1, 2):
            QUtilities.add_async_task(ADD, value, group="0" * 32)
        parts = QUtilities.add_async_tasks_from_iter(ADD, [1, 2])
        assert QUtilities.get_status(parts) == "queued"
    work(worker)
    assert (status("0" * 32), status(parts)) == ("unknown", "success")


def test_two_chains_of_one_named_group_both_run(worker):
    for value in (1, 2):
        start((ADD, (value,)), (ADD, (value,)), group="g")
    work(worker)
    assert sorted(results("g")) == [1, 1, 2, 2]


def test_a_second_run_is_a_chain_of_its_own(worker):
    chain = Chain([(ADD, (1,))], schema_name=A)
    first = chain.run()
    work(worker)
    second = chain.run()
    assert (first == second, status(first), status(second)) == (False, "success", "queued")
    assert chain.result() is None
    work(worker)
    assert (status(second), chain.result()) == ("success", [1])
    named = Chain([(ADD, (1,))], group="g", schema_name=A)
    assert (named.run(), named.run()) == ("g", "g")


# The hook


@pytest.mark.parametrize("sync", [False, True])
def test_the_hook_is_called_once_at_the_end_of_success(worker, sync):
    group = start((ADD, (1,), {"task_name": "one"}), (ADD, (2,), {"task_name": "two"}), hook=HOOK, sync=sync)
    if not sync:
        one_step(worker)
        assert ends() == []
        work(worker)
    assert ends() == [("two", True, group, A)]


def test_the_hook_gets_the_link_that_failed(worker):
    group = start((ADD, (1,)), ("tests.tasks.fail", (), {"task_name": "no"}), (ADD, (3,)), hook=HOOK)
    work(worker)
    assert ends() == [("no", False, group, A)]
    assert len(results(group)) == 2


def test_in_sync_mode_it_gets_the_failed_link_too(tenants):
    with pytest.raises(ValueError, match="broken"):
        start((ADD, (1,)), ("tests.tasks.fail", (), {"task_name": "no"}), hook=HOOK, sync=True)
    assert [(name, success) for name, success, *_ in ends()] == [("no", False)]


def test_a_links_own_hook_is_called_besides(worker):
    own = {"hook": "tests.tasks.broken_hook"}
    start((ADD, (1,), own), (ADD, (2,), {"task_name": "two"} | own), hook=HOOK)
    work(worker)
    assert [name for name, *_ in ends()] == ["two"], "an error of the other hook changes nothing"


def test_it_is_called_for_a_link_that_cannot_be_built(worker):
    """The result of the link before it is too large to travel, or does not pickle."""
    group = start("tests.tasks_chained.returns_what_pickles_once", ADD, pass_result=True, hook=HOOK)
    work(worker)
    assert [(success, group_) for _, success, group_, _ in ends()] == [(False, group)]
    assert status(group) == "failure"


def test_it_is_called_for_a_link_that_cannot_be_enqueued(worker, monkeypatch):
    group = start((ADD, (1,)), (ADD, (2,)), hook=HOOK)
    pushed = push.push

    def refuse(packages: Any, **options: Any) -> None:
        if options.get("follows"):
            raise EnqueueError("no")
        pushed(packages, **options)

    monkeypatch.setattr(push, "push", refuse)
    work(worker)
    assert [success for _, success, *_ in ends()] == [False]
    assert status(group) == "failure"
    assert get_broker().counts().open == 0


def test_it_is_called_again_if_its_worker_dies_before_the_acknowledgement(make_worker, monkeypatch):
    """At least once, as every hook, and not for a link that goes on."""
    start((ADD, (1,)), (ADD, (2,)), hook=HOOK)
    dies = make_worker("dies")
    one_step(dies)
    monkeypatch.setattr(dies.completer, "_acknowledge", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        work(dies)
    assert len(ends()) == 1
    get_broker().reclaim("dies", running=None)
    work(make_worker("lives"))
    assert len(ends()) == 2


def test_a_wrong_hook_is_refused(tenants):
    with pytest.raises(EnqueueError, match="The hook of a chain is 5"):
        start(ADD, hook=5)
