"""Schedulers of three clusters are killed again and again: each fire takes effect exactly once.

The workers live, so plain tasks do: a fire that reached the queue twice would leave two rows, whatever its task's id.
Half of the kills come at the worst moments, just before a push and between push and commit; the others come anywhere.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule

from tenant_q.brokers import get_broker
from tenant_q.schedules import due_index
from tenant_q.tenancy import in_schema
from tests import schemas
from tests.chaos import points, tasks
from tests.chaos.ledger import read_log
from tests.conftest import RunningCluster, wait_until

IS_LONG = os.environ.get("CHAOS") == "long"
FIRES, KILLS = (5_000, 200) if IS_LONG else (300, 12)
CLUSTERS = 3
TENANTS = [f"fires_{n:02}" for n in range(10)]
LIMIT = 120.0

Fire = tuple[str, str, datetime]


@pytest.fixture
def crowd(tenants) -> Iterator[None]:
    schemas.clone_tenants(TENANTS)
    with connection.cursor() as cursor:
        for name in TENANTS:
            cursor.execute(f"CREATE TABLE {name}.{tasks.FIRES} (schedule text, planned timestamptz)")
    yield
    for name in TENANTS:
        schemas.drop_tenant(name)


@dataclass
class Battle:
    """What was planned, and what is done to the clusters meanwhile."""

    clusters: list[RunningCluster]
    path: Path
    seed: int

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.planned: list[Fire] = []
        self.killed: Counter[str] = Counter()
        self._names = 0
        self._struck = 0

    def plan(self, count: int) -> None:
        """Schedules with `count` fires in all: once, missed by hours, missed and counted."""
        while count > 0:
            kind = self.random.choice(["once", "hourly", "counted"])
            fires = {"once": 1, "hourly": 5, "counted": 3}[kind]
            if fires <= count:
                self._plan(kind, fires)
                count -= fires

    def _plan(self, kind: str, fires: int) -> None:
        self._names += 1
        schema, name = self.random.choice(TENANTS), f"{kind}-{self._names}"
        first = timezone.now()
        fields: dict[str, Any] = {"schedule_type": Schedule.ONCE}
        if kind == "hourly":  # the fifth was due half an hour ago
            first -= timedelta(hours=4, minutes=30)
            fields = {"schedule_type": Schedule.HOURLY}
        elif kind == "counted":  # more are missed than it has repeats
            first -= timedelta(hours=8)
            fields = {"schedule_type": Schedule.HOURLY, "repeats": fires}
        with in_schema(schema):
            Schedule.objects.create(
                name=name,
                func="tests.chaos.tasks.fire_effect",
                args=f"('{name}',)",
                intended_date_kwarg="planned",
                next_run=first,
                **fields,
            )
        self.planned += [(schema, name, first + timedelta(hours=n)) for n in range(fires)]

    def kill_at(self, point: str) -> None:
        """The next scheduler that comes to a point ends there; what it has locked is planned first."""

        def has_come() -> bool:
            if not due_index.look():
                self.plan(1)
            return len(read_log(self.path, "obey")) > before

        before = len(read_log(self.path, "obey"))
        (self.path / "orders" / point / f"kill-{before:05}").touch()
        wait_until(has_come, LIMIT, f"a scheduler at {point}")
        self.killed[point] += 1
        self._struck = int(read_log(self.path, "obey")[-1].words[2])

    def kill_anywhere(self) -> None:
        def strike() -> bool:
            # One that obeys an order just now is no other kill.
            others = [one for one in self.clusters if one.process.pid != self._struck]
            pids = [pid for one in others for pid in one.pids("scheduler")]
            if not pids:
                return False
            os.kill(self.random.choice(pids), signal.SIGKILL)
            return True

        time.sleep(self.random.uniform(0, 0.05))  # so that it does not come at the same place each time
        wait_until(strike, LIMIT, "a scheduler to kill")
        self.killed["anywhere"] += 1

    def end(self) -> None:
        """Wait until all that is due has fired and is done."""
        wait_until(lambda: not [one for one in due_index.look() if one.seconds <= 0], LIMIT, "all to fire")
        wait_until(lambda: get_broker().counts().open == 0, LIMIT, "all tasks to be done")


def effects() -> Counter[Fire]:
    query = " UNION ALL ".join(f"SELECT '{name}', schedule, planned FROM {name}.{tasks.FIRES}" for name in TENANTS)
    with connection.cursor() as cursor:
        cursor.execute(query)
        return Counter(cursor.fetchall())


def test_each_fire_takes_effect_once(crowd, mscluster, tmp_path, capsys):
    points.prepare(tmp_path)
    env = {"DJANGO_SETTINGS_MODULE": "tests.chaos.settings", "CHAOS_DIR": str(tmp_path)}
    clusters = [mscluster("--workers", "1", wait=False, **env) for _ in range(CLUSTERS)]
    for cluster in clusters:
        cluster.wait_for_workers(1)
    seed = random.randrange(10**6)
    battle = Battle(clusters, tmp_path, seed)
    begun = time.monotonic()
    places = cycle(["before-push", "anywhere", "after-push", "anywhere"])
    for _ in range(KILLS):
        battle.plan(FIRES // KILLS)
        place = next(places)
        battle.kill_anywhere() if place == "anywhere" else battle.kill_at(place)
    battle.plan(max(0, FIRES - len(battle.planned)))
    battle.end()
    again = {id for line in read_log(tmp_path, "obey") if line.words[1] == "after-push" for id in line.words[3:]}
    with capsys.disabled():
        print(
            f"\n  {len(battle.planned)} fires, {sum(battle.killed.values())} schedulers of {CLUSTERS} clusters killed "
            f"({', '.join(f'{count} {place}' for place, count in battle.killed.items())}), {len(again)} fires rolled "
            f"back behind their push; {time.monotonic() - begun:.1f} s, seed {seed}"
        )
    found, wanted = effects(), Counter(battle.planned)
    assert set(wanted.values()) == {1}
    assert found - wanted == Counter(), f"more often than once, seed {seed}"
    assert wanted - found == Counter(), f"not at all, seed {seed}"
    assert again, "no kill came between push and commit"
    wait_until(lambda: len(read_log(tmp_path, "scheduler")) == CLUSTERS + KILLS, what="each killed one to be replaced")
    for cluster in clusters:
        assert cluster.stop() == 0
