"""`mscluster` on the command line: options, signals, exit codes, and errors in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.core.management import call_command
from django_q.status import Stat

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import MANAGE, wait_until

WAIT = 30_000


def manage(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(MANAGE), *arguments]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=60)


def _with_login(url: str) -> str:
    """The same server, which refuses this name and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"nobody:wrong@{host}"))


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "Redis at 127.0.0.1:1 does not serve"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}, "database nothing at 127.0.0.1 cannot be used"),
        ({"TEST_Q_CLUSTER": '{"orm": "default"}'}, "does not support the Django ORM broker"),
        ({"TEST_Q_CLUSTER": '{"wokers": 2}'}, "unknown key 'wokers': did you mean 'workers'?"),
        ({"TEST_TENANT_Q": '{"lease": "long"}'}, "TENANT_Q['lease'] is 'long' (str); it must be"),
        ({"TEST_WITHOUT": "django_q"}, "django_q is not in TENANT_APPS"),
        ({"TEST_NO_SECRET_KEY": "1"}, "Set SECRET_KEY"),
    ],
)
def test_what_is_missing_is_told_in_one_line(tenants, env, told):
    ended = manage("mscluster", **env)
    assert ended.returncode != 0
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr


@pytest.mark.parametrize(
    ("env", "advice", "not_advised"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, ". Start the broker, or set Q_CLUSTER", ".."),
        ({"REDIS_URL": _with_login(os.environ["REDIS_URL"])}, ". Correct the user name and the password", "tart"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}, ". Start it, or correct DATABASES;", "again"),
        ({"DATABASE_URL": _with_login(os.environ["DATABASE_URL"])}, ". Correct DATABASES;", "tart"),
    ],
)
def test_a_server_is_to_be_started_only_if_it_does_not_run(tenants, env, advice, not_advised):
    shown = manage("mscluster", **env).stderr
    assert advice in shown
    assert not_advised not in shown.partition("cannot be used" if "DATABASE_URL" in env else "does not serve")[2]


def test_a_command_that_ends_with_its_error_promises_nothing(tenants):
    ended = manage("mstenant", "list", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert ended.returncode != 0
    assert "cannot be reached" in ended.stderr
    assert "again" not in ended.stderr


def test_burst_works_off_every_queue_and_ends(tenants, mscluster):
    for name in tenants:
        with in_schema(name):
            for n in range(30):
                QUtilities.add_async_task("tests.tasks.add", n)
            QUtilities.add_async_tasks_from_iter("tests.tasks.add", [1, 2, 3])
            QUtilities.create_schedule("tests.tasks.add", 1, name="now")
    cluster = mscluster("--burst", "--workers", "2", wait=False)
    assert cluster.process.wait(60) == 0, cluster.log
    assert get_broker().counts().open == 0
    for name in tenants:
        with in_schema(name):
            assert QUtilities.get_result_group("now") == [1]
    wait_until(lambda: not cluster.processes())


def test_run_once_from_within_python(tenants):
    """The 2020 package's own test of its command."""
    call_command("mscluster", run_once=True)


def test_run_once_looks_once_for_work(tenants, mscluster):
    with in_schema("acme_corp"):
        id = QUtilities.add_async_task("tests.tasks.add", 1, 2)
    cluster = mscluster("--run-once", "--workers", "1", wait=False)
    assert cluster.process.wait(60) == 0, cluster.log
    assert QUtilities.get_result(id, schema_name="acme_corp") == 3


def test_another_cluster_by_name(tenants, mscluster, settings):
    with in_schema("acme_corp"):
        id = QUtilities.add_async_task("tests.tasks.add", 1, 2, cluster=f"{settings.Q_CLUSTER['name']}-long")
        other = QUtilities.add_async_task("tests.tasks.add", 3, 4)
        cluster = mscluster("--burst", "--name", f"{settings.Q_CLUSTER['name']}-long", wait=False)
        assert cluster.process.wait(60) == 0, cluster.log
        assert QUtilities.get_result(id) == 3
        assert QUtilities.get_result(other) is None
    for key in tasks.client().scan_iter(f"{{tq:{settings.Q_CLUSTER['name']}-long}}*"):
        tasks.client().delete(key)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_stop_lets_running_tasks_end(tenants, mscluster, number, whole_group):
    cluster = mscluster("--workers", "1")
    key = f"{cluster.name}-{number}-{whole_group}"
    with in_schema("acme_corp"):
        held = QUtilities.add_async_task("tests.tasks.hold", key)
        wait_until(lambda: tasks.notes(key))
        waiting = [QUtilities.add_async_task("tests.tasks.add", n) for n in range(3)]
    if whole_group:
        os.killpg(cluster.process.pid, number)
    else:
        cluster.process.send_signal(number)
    wait_until(lambda: not cluster.pids("scheduler"), what="the stop to be on its way")
    tasks.let_go(key)
    assert cluster.process.wait(20) == 0, cluster.log
    wait_until(lambda: not cluster.processes())
    assert QUtilities.get_result(held, schema_name="acme_corp") == "run 1"
    counts = get_broker().counts()
    assert (counts.queued, counts.leased) == (len(waiting), 0)


def test_what_outlives_the_grace_is_killed_and_given_back(tenants, mscluster):
    cluster = mscluster("--workers", "1", TEST_TENANT_Q='{"grace": 1}')
    key = cluster.name
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.hold", key)
    wait_until(lambda: tasks.notes(key))
    assert cluster.stop() == 0
    counts = get_broker().counts()
    assert (counts.queued, counts.leased) == (1, 0)
    (lease,) = get_broker().fetch("another").leases
    assert (lease.starts, lease.is_redelivered) == (0, True), "a stop is not the task's fault"


def test_a_second_signal_ends_at_once(tenants, mscluster):
    cluster = mscluster("--workers", "1")
    key = cluster.name
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.hold", key)
    wait_until(lambda: tasks.notes(key))
    cluster.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not cluster.pids("scheduler"))
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.process.wait(5) == 0
    assert get_broker().counts().queued == 1


def test_a_second_signal_ends_at_once_also_while_the_broker_hangs(tenants, mscluster):
    cluster = mscluster("--workers", "1")
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.hold", cluster.name)
    wait_until(lambda: tasks.notes(cluster.name))
    tasks.client().client_pause(12_000)
    cluster.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not cluster.pids("scheduler"), 15)
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.process.wait(10) == 0


def test_a_killed_sentinel_takes_its_children_along_and_is_told(tenants, mscluster):
    cluster = mscluster("--workers", "2")
    (sentinel,) = cluster.pids("sentinel")
    os.kill(sentinel, signal.SIGKILL)
    assert cluster.process.wait(5) != 0
    wait_until(lambda: not cluster.processes(), 3)


def test_a_killed_parent_takes_all_along(tenants, mscluster):
    cluster = mscluster("--workers", "2")
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.hold", cluster.name)
    wait_until(lambda: tasks.notes(cluster.name))
    cluster.process.kill()
    cluster.process.wait(5)
    wait_until(lambda: not cluster.processes(), 5, "all processes to leave")
    assert get_broker().counts().queued == 1


def test_django_q2s_status_tells_the_truth(tenants, mscluster):
    cluster = mscluster("--workers", "2")
    with in_schema("acme_corp"):
        QUtilities.add_async_task("tests.tasks.hold", cluster.name)
        done = QUtilities.add_async_task("tests.tasks.add", 1)
        QUtilities.get_result(done, wait=WAIT)

    def stat() -> Stat:
        return next((one for one in Stat.get_all() if sorted(one.workers) == sorted(cluster.pids("worker"))), None)

    busy = wait_until(lambda: (one := stat()) and str(one.status) == "Working" and one)
    assert busy.pid == cluster.process.pid
    tasks.let_go(cluster.name)
    wait_until(lambda: (one := stat()) and str(one.status) == "Idle")
    ended = manage("qinfo", Q_NAME=cluster.name)
    assert ended.returncode == 0, ended.stderr
    assert "Workers" in ended.stdout
    cluster.stop()
    left = [one for one in Stat.get_all() if one.pid == cluster.process.pid]
    assert all(str(one.status) == "Stopped" for one in left)


def test_qinfo_counts_all_tenants_or_one(tenants, mscluster, settings):
    for name in tenants:
        with in_schema(name):
            QUtilities.add_async_task("tests.tasks.add", 1, sync=True)
    for arguments, successes in (((), "3"), (("--schema", "acme_corp"), "1")):
        ended = manage("qinfo", *arguments, Q_NAME=settings.Q_CLUSTER["name"])
        assert ended.returncode == 0, ended.stderr
        assert f"Successes{successes}" in ended.stdout.replace(" ", "")
    ended = manage("qinfo", "--schema", "nobody")
    assert ended.returncode != 0
    assert "nobody" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_qcluster_says_what_to_run_instead(tenants):
    with pytest.raises(Exception, match="mscluster"):
        from django_q.brokers import get_broker as django_q_broker

        django_q_broker().dequeue()
