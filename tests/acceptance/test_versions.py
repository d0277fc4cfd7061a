"""A cluster of an earlier version and one of this version share a broker and a database, as in a rolling upgrade."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django_q.models import Schedule, Task

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import MANAGE, wait_until

ROOT = Path(__file__).parent.parent.parent
# Earlier versions that a cluster of this one works beside.
BEFORE = {
    "packages name no tenant, rows are not signed": "087c8bb1f8e8d9461ae616abab250d83c72c3928",
    "before the modules moved into folders": "dd67a83cfd72b9d210b4249880050d1fd373d44c",
}
COUNT = 200

ENQUEUE = """
import json
import tenant_q.outbox  # this version does not have it any more
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
key, count, names = json.loads({!r})
ids = {{}}
for name in names:
    with in_schema(name):
        add = QUtilities.add_async_task
        ids[name] = [add("tests.tasks.note_where", key) for _ in range(count)]
        ids[name].append(add("tests.tasks.note_where", key, q_options={{"delay": 1}}))
        ids[name] += [QUtilities.add_async_tasks_from_iter("tests.tasks.add", list(range(20)))]
        QUtilities.create_async_tasks_chain([("tests.tasks.note_where", (key,))] * 5, group="chain-before")
        ids["cached " + name] = [add("tests.tasks.add", 5, cached=True, group="cached-before")]
print(json.dumps(ids))
"""


@pytest.fixture(scope="module", params=BEFORE.values(), ids=list(BEFORE))
def version_before(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of an earlier version, in a folder of its own."""
    folder = tmp_path_factory.mktemp("before")
    commit: str = request.param
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "tenant_q"], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"this clone has no commit {commit[:7]}: git fetch --unshallow")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def of_version(before: Path) -> dict[str, str]:
    """The environment of a process of the version before."""
    return {"PYTHONPATH": os.pathsep.join([str(before), os.environ["PYTHONPATH"]]), "TEST_VERSION_BEFORE": "yes"}


def enqueue_before(before: Path, name: str, key: str, tenants: tuple[str, ...]) -> dict[str, list[str]]:
    """Enqueue in a process of the version before. Returns the ids."""
    words = json.dumps([key, COUNT, list(tenants)])
    done = subprocess.run(
        [sys.executable, str(MANAGE), "shell", "-c", ENQUEUE.format(words)],
        env=os.environ | of_version(before) | {"Q_NAME": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.seam
def test_two_versions_share_one_broker(tenants, mscluster, version_before):
    old = mscluster("--workers", "2", **of_version(version_before))
    new = mscluster("--workers", "2", wait=False)
    new.wait_for_workers(2)
    key = f"versions-{new.name}"
    for name in tenants:
        with in_schema(name):
            Schedule.objects.create(func="tests.tasks.note_where", args=repr(key), schedule_type="O", repeats=-1)
    before = enqueue_before(version_before, new.name, key, tenants)
    ids: dict[str, list[str]] = {}
    for name in tenants:
        with in_schema(name):
            add = QUtilities.add_async_task
            ids[name] = [add("tests.tasks.note_where", key) for _ in range(COUNT)]
            ids[name].append(QUtilities.add_async_tasks_from_iter("tests.tasks.add", list(range(20))))
            QUtilities.create_async_tasks_chain([("tests.tasks.note_where", (key,))] * 5, group="chain")
            ids[f"cached {name}"] = [add("tests.tasks.add", 5, cached=True, group="cached")]

    # In each tenant: what either version has enqueued, a delayed one, two chains of five links, and a schedule's fire.
    expected = 2 * COUNT + 1 + 10 + 1
    wait_until(lambda: len(tasks.notes(key)) >= expected * len(tenants), 120, what="all tasks to have run")
    wait_until(lambda: get_broker().counts().open == 0, what="all packages to be acknowledged")
    assert Counter(note["schema"] for note in tasks.notes(key)) == dict.fromkeys(tenants, expected)
    for name in tenants:
        look_at(name, ids, before)
    assert get_broker().counts().dead == 0
    assert get_broker().statistics() == {"stale_acks": 0, "expired": 0, "broken": 0}
    shares = [_done_by(cluster) for cluster in (old, new)]
    assert all(shares), "both took part"
    shown = io.StringIO()
    call_command("msinfo", stdout=shown)
    assert all(re.search(rf"\b{cluster.process.pid}\b", shown.getvalue()) for cluster in (old, new)), shown.getvalue()


def look_at(name: str, ids: dict[str, list[str]], before: dict[str, list[str]]) -> None:
    for found in (ids, before):
        with in_schema(name):
            rows = Task.objects.filter(id__in=found[name])
            assert rows.filter(success=True).count() == len(found[name])
        assert QUtilities.get_result(found[f"cached {name}"][0], cached=True, schema_name=name) == 5
        assert QUtilities.get_result(found[name][-1], schema_name=name) == list(range(20))
    for group in ("cached", "cached-before"):
        assert QUtilities.get_result_group(group, cached=True, schema_name=name) == [5]
    for group in ("chain", "chain-before"):
        assert QUtilities.get_group_count(group, schema_name=name) == 5


def _done_by(cluster: Any) -> int:
    """How many tasks the workers of a cluster have run, as its status says."""
    from tenant_q.operations import status

    found = [one for one in status.clusters(get_broker()) if one.parent == cluster.process.pid]
    return sum(process.done for one in found for process in one.of_role("worker"))
