"""`msinfo` as text and as JSON, and how `health` judges what clusters tell."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tenant_q import policies
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.operations import health
from tenant_q.operations.status import ClusterState, ClusterStatus, Death, Process
from tenant_q.support.durations import duration

NOW = timezone.now()
WORKER = Process("worker", 14, "w1", done=3)
SCHEDULER = Process("scheduler", 13, "s1", done=9)
CLUSTER = ClusterStatus(
    id="1",
    name="shop",
    host="web-1",
    version="1",
    parent=11,
    sentinel=12,
    started=NOW - timedelta(hours=1),
    seen=NOW,
    state=ClusterState.IDLE,
    is_gone=False,
    trouble="",
    workers=1,
    has_scheduler=True,
    restarts=0,
    processes=(SCHEDULER, WORKER),
    deaths=(),
)


def msinfo(*arguments: str) -> str:
    out = StringIO()
    call_command("msinfo", *arguments, stdout=out)
    return out.getvalue()


def queue(schema: str, count: int) -> None:
    get_broker().enqueue([Message(id=f"{schema}{n}", schema=schema, func="f", payload="x") for n in range(count)])


def test_tenants_are_sorted_by_load_or_otherwise(tenants, unlimited):
    queue("globex_inc", 3)
    queue("initech_llc", 1)
    policies.change("acme_corp", actor="test", act="pause", paused=True, weight=2, max_running=3)

    def order(*arguments: str) -> list[str]:
        lines = msinfo(*arguments).splitlines()
        head = next(place for place, line in enumerate(lines) if line.startswith("schema"))
        return [line.split()[0] for line in lines[head + 1 :] if not line.startswith("The first")]

    assert order() == ["globex_inc", "initech_llc", "acme_corp"]
    assert order("--sort", "name") == ["acme_corp", "globex_inc", "initech_llc"]
    assert order("--limit", "1") == ["globex_inc"]
    assert order("--schema", "initech_llc") == ["initech_llc"]
    text = msinfo()
    assert "paused, weight 2, max running 3" in text and "4 queued" in text and "No cluster is running" in text
    assert "The first 1 of 3 tenants" in msinfo("--limit", "1")
    assert "\x1b" not in text, "colours are for terminals"


def test_json(tenants):
    queue("globex_inc", 3)
    found = json.loads(msinfo("--json"))
    assert found["total"]["queued"] == 3 and found["clusters"] == []
    assert [one["schema"] for one in found["tenants"]] == list(tenants)
    (one,) = json.loads(msinfo("--json", "--schema", "globex_inc"))["tenants"]
    assert (one["queued"], one["done"], one["wait_p95"], one["policy"]["weight"]) == (3, 0, None, 1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--schema", "nobody"), "No tenant has the schema name 'nobody'"), (("--limit", "0"), "not a whole number")],
)
def test_what_is_wrong_with_the_call_is_told(tenants, arguments, words):
    with pytest.raises(CommandError, match=words):
        msinfo(*arguments)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0004, "0 ms"), (0.25, "250 ms"), (0.9999, "1.0 s"), (9.94, "9.9 s"), (59, "59 s"),
     (99.6, "1.7 min"), (3600, "60 min"), (9000, "2.5 h"), (400_000, "4.6 d")],
)  # fmt: skip
def test_durations_have_two_figures(seconds, text):
    assert duration(seconds) == text


def problems(monkeypatch: pytest.MonkeyPatch, *clusters: ClusterStatus, **asked: Any) -> health.Health:
    monkeypatch.setattr(health.status, "clusters", lambda broker: list(clusters))
    return health.examine(seconds=30, **asked)


def test_a_cluster_that_is_well(tenants, monkeypatch):
    assert problems(monkeypatch, CLUSTER) == health.Health((), (), (), (CLUSTER,))
    busy = replace(WORKER, task_id="1", schema="acme_corp", func="f", silent=1000.0, seconds=1000.0)
    assert problems(monkeypatch, replace(CLUSTER, processes=(SCHEDULER, busy))).is_well, "it runs a task"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"processes": (SCHEDULER,)}, "has 0 of 1 workers"),
        ({"processes": (WORKER,)}, "has no scheduler"),
        (
            {"processes": (WORKER, replace(SCHEDULER, silent=20.0))},
            "the scheduler 13 has shown no sign of life for 20 s",
        ),
        ({"processes": (SCHEDULER, replace(WORKER, silent=20.0))}, "worker 14 has shown no sign of life for 20 s"),
        ({"is_gone": True, "trouble": "why"}, " s ago: why"),
        ({"trouble": "its parent process died"}, "is in trouble: its parent process died"),
    ],
)
def test_what_is_wrong_with_a_cluster(tenants, monkeypatch, changes, words):
    found = problems(monkeypatch, replace(CLUSTER, **changes))
    assert not found.is_well and words in found.problems[-1]


def test_who_waits_for_a_server_that_is_away_is_not_stuck(tenants, monkeypatch):
    def away() -> bool:
        raise OSError("it is away")

    monkeypatch.setattr(health, "_probe_database", away)
    silent = replace(CLUSTER, processes=(replace(SCHEDULER, silent=20.0), replace(WORKER, silent=20.0)))
    found = problems(monkeypatch, silent)
    assert (found.problems, found.outages) == ((), ("The database cannot be used: it is away",))
    assert [note.split(": the ")[1].split(" has ")[0] for note in found.notes] == ["scheduler 13", "worker 14"]
    assert problems(monkeypatch, replace(CLUSTER, processes=(SCHEDULER,))).problems, "what is missing is missing"


def test_an_exporter_that_waits_for_a_scrape_is_not_stuck(tenants, monkeypatch):
    exporter = Process("exporter", 15, "e1", silent=1000.0)
    assert problems(monkeypatch, replace(CLUSTER, processes=(SCHEDULER, WORKER, exporter))).is_well


def test_what_mends_itself_is_a_note(tenants, monkeypatch):
    deaths = (
        Death(timezone.now().timestamp(), "worker", 99, "was killed by SIGKILL"),
        Death(1.0, "worker", 98, "long ago"),
    )
    late = replace(SCHEDULER, late=90.0)
    found = problems(monkeypatch, replace(CLUSTER, deaths=deaths, processes=(late, WORKER)))
    assert found.is_well and len(found.notes) == 2
    starting = replace(CLUSTER, state=ClusterState.STARTING, processes=())
    assert problems(monkeypatch, starting).notes == ("Cluster shop on web-1 is starting.",)


def test_which_clusters_are_judged(tenants, monkeypatch):
    monkeypatch.setattr(health.socket, "gethostname", lambda: "web-2")
    gone = replace(CLUSTER, id="2", is_gone=True, trouble="why", seen=NOW - timedelta(minutes=5))
    here = replace(CLUSTER, id="3", host="web-2")
    assert problems(monkeypatch, gone, here).clusters == (here,), "this machine's, if it has any"
    assert problems(monkeypatch, gone, CLUSTER).clusters == (gone, CLUSTER), "else all"
    assert (
        problems(monkeypatch, CLUSTER, host="web-2")
        .problems[0]
        .endswith("runs on web-2; start one with `python manage.py mscluster`.")
    )
    assert problems(monkeypatch, CLUSTER, cluster="other").problems[0].startswith("No cluster other of site")
    successor = replace(CLUSTER, id="4", started=NOW - timedelta(minutes=4))
    assert problems(monkeypatch, gone, successor).is_well, "another took its place"
    assert not problems(monkeypatch, gone, CLUSTER).is_well, "the other was there before"
