"""The log and `mshealth` name clusters that do not run, or that no setting names, while tasks wait for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django_q import tasks as django_q_tasks
from django_q.conf import Conf
from django_q.signing import SignedPackage
from django_q.status import Stat

from tenant_q import tenancy
from tenant_q.brokers import get_broker, strays
from tenant_q.brokers.redis import RedisBroker
from tenant_q.exceptions import BrokerError, EnqueueError
from tenant_q.operations import health, status
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.test_msinfo import CLUSTER, msinfo

A = "acme_corp"


@pytest.fixture
def typo(tenants, settings) -> Iterator[str]:
    """A name of a cluster that the settings do not know, in this test's own site."""
    name = f"{settings.Q_CLUSTER['name']}-typo"
    yield name
    for tag in (name, settings.Q_CLUSTER["name"]):
        client = get_broker().client
        for key in client.scan_iter(f"{{tq:{tag}}}*"):
            client.delete(key)
    strays.forget()


def examine(monkeypatch: pytest.MonkeyPatch, *names: str, **asked: Any) -> health.Health:
    found = [replace(CLUSTER, name=name) for name in names]
    monkeypatch.setattr(health.status, "clusters", lambda broker: found)
    return health.examine(seconds=30, **asked)


def ours(**options: Any) -> None:
    QUtilities.add_async_task("math.floor", 2.5, **options)


def django_q2(**options: Any) -> None:
    django_q_tasks.async_task("math.floor", 2.5, **options)


@pytest.mark.parametrize("enqueue", [ours, django_q2])
def test_a_cluster_that_the_settings_do_not_name(monkeypatch, caplog, settings, typo, enqueue: Callable[..., None]):
    own = settings.Q_CLUSTER["name"]
    with caplog.at_level(logging.WARNING, "tenant_q.brokers"), in_schema(A):
        enqueue()
        enqueue(cluster=own)
        assert caplog.messages == []
        enqueue(cluster=typo)
        enqueue(cluster=typo)
        (said,) = caplog.messages
        strays.forget()
        enqueue(cluster=typo)
    assert caplog.messages == [said, said], "logged again by a process that has forgotten it"
    assert f"the cluster {typo!r}" in said and f"({own})" in said and "correct the name, or add it there" in said
    (problem,) = examine(monkeypatch, own).problems
    assert problem.startswith(f"3 tasks wait for the cluster {typo!r}, and none of that name runs; the settings do not")
    assert f"mscluster --name {typo}" in problem
    assert examine(monkeypatch, own, host=CLUSTER.host).problems == (), "a probe of one machine is not failed"
    assert problem in examine(monkeypatch, own, host=CLUSTER.host).notes
    assert examine(monkeypatch, own, cluster=own).problems == ()
    assert examine(monkeypatch, own, typo).problems == (), "it runs"
    RedisBroker(typo).purge()
    assert examine(monkeypatch, own).problems == ()
    assert get_broker().strays() == [], "its name is forgotten"


@pytest.mark.parametrize("enqueue", [ours, django_q2])
def test_a_name_that_cannot_be_kept_fails_no_task(monkeypatch, typo, enqueue: Callable[..., None]):
    """The task is on its queue by then, so a caller that gets an error enqueues it again. The next call keeps it."""

    def refuse(broker: RedisBroker) -> None:
        raise BrokerError("away")

    with monkeypatch.context() as patch, in_schema(A):
        patch.setattr(RedisBroker, "note_stray", refuse)
        enqueue(cluster=typo)
    assert get_broker(typo).counts().queued == 1
    assert get_broker().strays() == []
    with in_schema(A):
        enqueue(cluster=typo)
    assert get_broker().strays() == [typo]


def test_no_more_names_are_logged_than_so_many(monkeypatch, caplog, typo):
    monkeypatch.setattr(strays, "_MOST", 2)
    for number in range(3):
        strays.note(RedisBroker(f"{typo}{number}"))
    assert [f"{typo}{number}" in said for number, said in enumerate(caplog.messages)] == [True, True]


def test_a_cluster_that_is_known_and_does_not_run(monkeypatch, caplog, settings, typo):
    own = settings.Q_CLUSTER["name"]
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"ALT_CLUSTERS": {typo: {}}}
    with caplog.at_level(logging.WARNING, "tenant_q.brokers"), in_schema(A):
        ours(cluster=typo, q_options={"delay": 60})
        assert examine(monkeypatch, own).problems == (), "it is not due yet"
        ours(cluster=typo)
    assert caplog.messages == []
    (problem,) = examine(monkeypatch, own).problems
    assert problem.endswith(f"none of that name runs; start one with `python manage.py mscluster --name {typo}`.")


def test_a_delayed_task_of_a_name_that_is_unknown(monkeypatch, settings, typo):
    """No worker would notice when it is due."""
    ours(cluster=typo, q_options={"delay": 60}, schema_name=A)
    (problem,) = examine(monkeypatch, settings.Q_CLUSTER["name"]).problems
    assert problem.startswith(f"1 task waits for the cluster {typo!r}, and none of that name runs; the settings do not")


def test_msinfo_shows_clusters_that_nobody_serves(monkeypatch, settings, typo):
    ours(cluster=typo, schema_name=A)
    ours(schema_name=A)
    line = f"1 task waits for the cluster {typo!r}, and none of that name runs; the settings do not name it either"
    assert line in " ".join(msinfo().split()), "also where no cluster runs"
    assert json.loads(msinfo("--json"))["unserved"] == [{"cluster": typo, "waiting": 1}]
    monkeypatch.setattr(health.status, "clusters", lambda broker: [replace(CLUSTER, name=typo)])
    own = settings.Q_CLUSTER["name"]
    assert json.loads(msinfo("--json"))["unserved"] == [{"cluster": own, "waiting": 1}]


def test_schedules_of_a_cluster_that_does_not_run(monkeypatch, settings, typo):
    own = settings.Q_CLUSTER["name"]
    past = timezone.now() - timedelta(minutes=5)
    QUtilities.create_schedule("math.floor", 2.5, next_run=past, cluster=typo, schema_name=A)
    QUtilities.create_schedule("math.floor", 2.5, next_run=past, schema_name=A)
    (problem,) = examine(monkeypatch, own).problems
    assert problem.startswith(f"1 schedule waits for a scheduler of the cluster {typo!r}, and none runs; ")
    monkeypatch.setattr(health.status, "clusters", lambda broker: [replace(CLUSTER, name=own, has_scheduler=False)])
    assert len(health.examine(seconds=30).problems) == 2, "nor has its own cluster a scheduler"


def test_no_more_names_are_kept_than_so_many(typo, monkeypatch):
    monkeypatch.setattr("tenant_q.brokers.redis.status.MOST_STRAYS", 2)
    for number in range(3):
        RedisBroker(f"{typo}{number}").note_stray()
    assert get_broker().strays() == [f"{typo}0", f"{typo}1"]
    assert get_broker().client.ttl(get_broker()._strays) > 24 * 3600


def qcluster(state: Any) -> None:
    """Tell a status as a `qcluster` of Django-Q2 does."""
    stat = Stat.__new__(Stat)
    told = {"cluster_id": "7", "tob": timezone.now(), "status": state, "pid": 7, "host": "web-9", "workers": [8]}
    more = {
        "broker": None,
        "sentinel": 6,
        "reincarnations": 0,
        "pusher": 9,
        "monitor": 10,
        "task_q_size": 0,
        "done_q_size": 0,
    }
    stat.__dict__ |= told | more | {"timestamp": timezone.now()}
    get_broker().set_stat(f"{Conf.Q_STAT}:7", SignedPackage.dumps(stat, True), 3)


def test_a_qcluster_that_was_stopped_is_no_cluster_that_is_gone(typo):
    qcluster(Conf.STOPPED)
    client = get_broker().client
    client.delete(*client.scan_iter(f"*{Conf.Q_STAT}:7"))  # as after three seconds
    assert status.clusters(get_broker()) == []
    (problem,) = health.examine(seconds=30).problems
    assert problem.startswith("No cluster of site")


def test_a_qcluster_serves_no_tenants(typo):
    qcluster(Conf.IDLE)
    (found,) = status.clusters(get_broker())
    assert (found.name, found.is_ours, found.is_gone) == ("qcluster", False, False)
    answer = health.examine(seconds=30)
    assert [problem[:18] for problem in answer.problems] == ["No cluster of site"] and answer.clusters == ()
    (note,) = answer.notes
    assert note.startswith("A qcluster of Django-Q2 runs on web-9 (process 7) and serves no tenants; run ")


def test_packages_that_wait_for_their_tenant_are_told(typo, settings, monkeypatch):
    ours(schema_name=A)
    (lease,) = get_broker().fetch("w").leases
    get_broker().put_off("w", lease, delay=60, unready=True)
    (note,) = examine(monkeypatch, settings.Q_CLUSTER["name"]).notes
    assert "1 task cannot start" in note


@pytest.fixture
def lite(tenants, settings, monkeypatch) -> None:
    """The tenants are of a type that has no tasks, of django-tenants' types."""
    settings.HAS_MULTI_TYPE_TENANTS = True
    settings.TENANT_TYPES = {
        "public": {"APPS": ["tenant_q"]},
        "lite": {"APPS": ["shop"]},
        "full": {"APPS": ["django_q"]},
    }
    monkeypatch.setattr(tenancy.tenant_model(), "type", "lite", raising=False)
    tenancy.forget_tenants()


@pytest.mark.parametrize("enqueue", [ours, django_q2])
def test_a_type_of_tenant_without_tasks_is_refused(lite, enqueue):
    words = r"Tenants of the type 'lite', such as 'acme_corp', .* TENANT_TYPES\['lite'\]\['APPS'\]"
    with in_schema(A), pytest.raises(EnqueueError, match=words):
        enqueue()
    assert get_broker().counts().open == 0


def test_so_it_is_by_name_and_for_each_way(lite, monkeypatch):
    for call in (
        lambda: ours(schema_name=A),
        lambda: QUtilities.add_async_tasks_from_iter("math.floor", [1], schema_name=A),
        lambda: QUtilities.create_async_tasks_chain(["math.floor"], schema_name=A),
        lambda: QUtilities.create_schedule("math.floor", schema_name=A),
    ):
        with pytest.raises(EnqueueError, match="type 'lite'"):
            call()
    for kind in ("full", "unheard of"):
        monkeypatch.setattr(tenancy.tenant_model(), "type", kind)
        tenancy.forget_tenants()
        ours(schema_name=A)
    assert get_broker().counts().queued == 2
