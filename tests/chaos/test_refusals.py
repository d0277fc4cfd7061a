"""Redis refuses single entries for ever, or everything for a while: no worker is held, and nothing is lost.

Short in `make test`, long in `make chaos`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.lifecycle import submit
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.chaos.redis_proxy import RedisProxy
from tests.conftest import MANAGE, wait_until

IS_LONG = os.environ.get("CHAOS") == "long"
ACME, GLOBEX, INITECH = "acme_corp", "globex_inc", "initech_llc"
SERVER_ERRORS = {
    "READONLY": "READONLY You can't write against a read only replica.",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "NOPERM": "NOPERM User default has no permissions to run this command",
}
ENTRY_ERRORS = [
    "ERR refused by a proxy",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR Protocol error: invalid bulk length",
]


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[RedisProxy]:
    proxy = RedisProxy(os.environ["REDIS_URL"], str(tmp_path / "p"))
    yield proxy
    proxy.close()


def submit_marked(id: str, kind: int) -> None:
    """Tasks whose every later command names the id: acknowledgements, retries, cached results, parts of groups."""
    match kind % 4:
        case 0:
            submit.submit("tests.tasks.add", (kind,), {}, id=id)
        case 1:
            submit.submit("tests.tasks.fail", (), {"q_options": {"max_attempts": 3, "retry_delay": 0}}, id=id)
        case 2:
            submit.submit("tests.tasks.add", (kind,), {"cached": 60}, id=id)
        case 3:
            submit.submit("tests.tasks.add", (kind,), {"cached": 60, "group": "marked"}, id=id)


def test_entries_that_are_refused_for_ever_hold_no_worker(tenants, mscluster, proxy):
    marked = [uuid.uuid4().hex for _ in range(20)]
    places = {id.encode(): place for place, id in enumerate(marked)}

    def refuse(command: list[bytes]) -> str | None:
        for word in command:
            for id, place in places.items():
                if id in word:
                    return ENTRY_ERRORS[place % len(ENTRY_ERRORS)]
        return None

    proxy.refuse = refuse
    cluster = mscluster("--workers", "2", REDIS_URL=proxy.url, TEST_TENANT_Q='{"lease": 2}')
    workers = cluster.pids("worker")
    with in_schema(ACME):
        for kind, id in enumerate(marked):
            submit_marked(id, kind)
    for schema in (GLOBEX, INITECH):
        with in_schema(schema):
            begun = time.monotonic()
            ids = [QUtilities.add_async_task("tests.tasks.add", n) for n in range(30)]
            assert [QUtilities.get_result(id, wait=10_000) for id in ids] == list(range(30))
            assert time.monotonic() - begun < 10
    wait_until(lambda: get_broker().counts().open == 0, 60, "the marked entries to end")
    dead = {one.id for one in get_broker().dead()}
    with in_schema(ACME):
        failed = set(Task.objects.filter(success=False).values_list("id", flat=True))
        mine = QUtilities.add_async_task("tests.tasks.add", 1)
        assert QUtilities.get_result(mine, wait=10_000) == 1
    assert [id for id in marked if id not in dead | failed] == []
    assert proxy.refused >= len(marked)
    assert cluster.pids("worker") == workers, "no process was lost over it"
    assert "waits, nothing is lost" not in cluster.log
    assert cluster.stop() == 0


@pytest.mark.parametrize("error", SERVER_ERRORS)
def test_a_server_that_refuses_everything_for_a_while_loses_nothing(tenants, mscluster, proxy, error):
    seconds = 60 if IS_LONG else 4
    cluster = mscluster("--workers", "2", REDIS_URL=proxy.url, TEST_TENANT_Q='{"lease": 2}')
    workers = cluster.pids("worker")
    ids: dict[str, list[str]] = {schema: [] for schema in (ACME, GLOBEX)}

    def enqueue(count: int) -> None:
        for schema, own in ids.items():
            with in_schema(schema):
                own += [QUtilities.add_async_task("tests.tasks.sleep", 0.02) for _ in range(count)]
                own += [QUtilities.add_async_task("tests.tasks.add", n) for n in range(count)]

    enqueue(30)
    wait_until(lambda: get_broker().counts().open < 120, 30, "some to be done")
    proxy.refuse = lambda command: SERVER_ERRORS[error]
    ends = time.monotonic() + seconds
    wait_until(lambda: cluster.log.count("The worker waits, nothing is lost") == 2, what="the outage to be logged")
    enqueue(10)
    told = subprocess.run(
        [sys.executable, str(MANAGE), "mshealth"],
        env=os.environ | {"Q_NAME": cluster.name, "REDIS_URL": proxy.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode != 0
    assert SERVER_ERRORS[error].partition(" ")[2] in " ".join((told.stdout + told.stderr).split())
    time.sleep(max(0.0, ends - time.monotonic()))
    done_before = _done(ids)
    proxy.refuse = lambda command: None
    wait_until(lambda: _done(ids) > done_before, 5, "work to go on")
    wait_until(lambda: get_broker().counts().open == 0, 30, "everything to be done")
    for schema, own in ids.items():
        with in_schema(schema):
            assert set(Task.objects.filter(id__in=own).values_list("success", flat=True)) == {True}
            assert Task.objects.filter(id__in=own).count() == len(own), "0 lost"
    assert get_broker().dead() == []
    assert cluster.pids("worker") == workers
    assert cluster.log.count("The worker waits, nothing is lost") == 2, "each worker logs it once"
    assert cluster.stop() == 0


def _done(ids: dict[str, list[str]]) -> int:
    done = 0
    for schema, own in ids.items():
        with in_schema(schema):
            done += Task.objects.filter(id__in=own).count()
    return done
