"""The storm of workflows: runs of many tenants while everything is killed. `python -m tests.chaos.flow_storm [--long]`

It is as the storm of tasks is, see `storm`, and Redis is also emptied. Runs are deleted soon after they have ended. At
the end their effects are counted, and no row and no key may be left.
"""

from __future__ import annotations

import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.chaos import flow_ledger, points, storm
from tests.chaos import workflows as flows
from tests.chaos.ledger import MAY_STAY, kills, read_log, recoveries
from tests.chaos.storm import Incident, Storm

# 20 SIGKILLs.
ROUND = [
    *(Incident("kill", point) for point in points.STEP_WORKER if point != "attempt-settled"),
    Incident("kill", "look-begun"),
    Incident("kill", "look-pushed"),
    Incident("kill-tree", "in-transactional-step"),
    Incident("kill-tree", "advance-committed"),
    Incident("kill-tree", "steps-pushed"),
    Incident("kill-worker"),
    Incident("kill-sentinel"),
    Incident("kill-scheduler"),
]
SERVERS = [Incident("kill-redis"), Incident("kill-postgres"), Incident("empty-redis")]
# The pause between two counts of all rows, which would take the processors from the clusters otherwise.
LOOK_SECONDS = 0.5


@dataclass
class Account:
    """The figures at the end. `problems` says what must not be."""

    accepted: dict[str, str]  # run -> tenant
    kills: Counter[str]
    recoveries: dict[str, list[float]]
    effects: flow_ledger.Effects
    rows: Counter[str]
    keys: set[str]
    places: dict[str, int]
    starts: int
    refused: int
    clusters: int

    @property
    def sigkills(self) -> int:
        return sum(n for kind, n in self.kills.items() if kind != "kill emptied")

    def problems(self) -> list[str]:
        found = [text for text, holds in self._checks() if not holds]
        for run, schema in self.accepted.items():
            found += flow_ledger.problems_of(run, self.effects.get((schema, run), {}))
        return found

    def _checks(self) -> Iterable[tuple[str, bool]]:
        foreign = self.effects.keys() - {(schema, run) for run, schema in self.accepted.items()}
        yield f"effects of runs that were not accepted, or in another tenant: {foreign}", not foreign
        yield f"rows are left: {self.rows}", not self.rows
        yield f"packages are left: {self.places}", not any(self.places.values())
        yield f"keys are left in the broker: {sorted(self.keys - MAY_STAY)}", self.keys <= MAY_STAY

    def show(self, write: Callable[[str], Any] = print) -> None:
        effects = [(place, one) for found in self.effects.values() for place, one in found.items()]
        again = sum(one.count - 1 for (step, _), one in effects if step == flows.PLAIN)
        doubled = sum(one.count - 1 for (step, _), one in effects if step != flows.PLAIN)
        figures = {
            "runs": len(self.accepted),
            "unfinished": sum((schema, run) not in self.effects for run, schema in self.accepted.items()),
            "effects of transactional steps": sum(step != flows.PLAIN for (step, _), _ in effects),
            "  doubled": doubled,
            "effects of the plain step": sum(step == flows.PLAIN for (step, _), _ in effects),
            "  done again": again,
            "steps before a dependency": sum(one.early for _, one in effects),
            "packages claimed": self.starts,
            "calls refused, tried again": self.refused,
            "SIGKILLs": self.sigkills,
            "Redis emptied": self.kills["kill emptied"],
            "clusters started": self.clusters,
        }
        for name, value in figures.items():
            write(f"{name:<32} {value}")
        write(f"\n{'kill':<44} {'times':>5}  recovery in seconds: median, max")
        for kind, times in sorted(self.kills.items()):
            seconds = self.recoveries.get(kind, ())
            shown = f"{statistics.median(seconds):8.2f} {max(seconds):8.2f}" if seconds else f"{'-':>8} {'-':>8}"
            write(f"{kind:<44} {times:>5}  {shown}")


class FlowStorm(Storm):
    """One run of the storm of workflows, in the directory `path`."""

    def __init__(self, *arguments: Any, **sizes: Any) -> None:
        super().__init__(*arguments, **sizes)
        self.runs: dict[str, str] = {}

    def incidents(self, rounds: int, server_kills: int) -> list[Incident]:
        return [*ROUND * rounds, *SERVERS * server_kills]

    def _enqueue(self, count: int) -> None:
        for _ in range(count):
            self._enqueue_task()

    def _enqueue_task(self) -> None:
        """Start a run. Its key makes it the same one, however often the call is refused."""
        key, schema = uuid.uuid4().hex, self.random.choice(storm.TENANTS)
        input = {"failures": int(self.random.random() < 0.1)}
        run = self._insist(lambda: flows.fleeting.start(input, key=key, schema_name=schema))
        self.runs[run.id] = schema

    def _lead_to(self, point: str, tasks: int) -> None:
        self._enqueue(tasks)

    def _strike(self, incident: Incident, tasks: int) -> None:
        if incident.act == "empty-redis":
            self._empty_redis(tasks)
        elif incident in SERVERS:
            self._strike_server(incident.act.removeprefix("kill-"), tasks)
        elif incident.point == "-":
            self._enqueue(tasks)
            self._kill_one(incident.act.removeprefix("kill-"))
        else:
            self._strike_at_point(incident, tasks)

    def _empty_redis(self, tasks: int) -> None:
        from tenant_q.brokers import get_broker

        self._enqueue(tasks)
        self._insist(lambda: get_broker().client.flushall())
        points.note("started", "emptied", "redis", path=self.path)

    def _drain(self) -> None:
        """Wait as long as steps take effect and rows go."""

        def seen() -> tuple[int, int]:
            rows = self._insist(lambda: flow_ledger.rows_left(storm.TENANTS))
            return rows.total(), self._insist(lambda: flow_ledger.starts(storm.TENANTS))

        while (before := seen())[0] > 0:
            time.sleep(LOOK_SECONDS)
            try:
                self._wait_until(partial(lambda old: seen() != old, before), "a step to take effect or a row to go")
            except AssertionError:
                self._show_left()
                raise
        self._wait_until(self._is_idle, "everything to be done")

    def _show_left(self) -> None:
        """What keeps the runs that are left, and what the broker has of them."""
        from tenant_q.brokers import get_broker

        steps = (
            "SELECT run.id, run.state AS run_state, run.ended, run.look_at, step.name, step.index, step.state, "
            "step.wake_at FROM {0}.tenant_q_workflows_run run "
            "LEFT JOIN {0}.tenant_q_workflows_step step ON step.run = run.id AND step.state <> 'succeeded'"
        )
        for row in flow_ledger.select(storm.TENANTS, steps)[:100]:
            print(*row)
        print(get_broker().counts())

    def _is_idle(self) -> bool:
        from tenant_q.brokers import get_broker

        return bool(self._insist(get_broker().counts).open == 0)

    def _account(self) -> Any:
        from tenant_q.brokers import get_broker

        broker = get_broker()
        counts = broker.counts()
        tag = f"{{tq:{broker.cluster}}}:"
        return Account(
            accepted=self.runs,
            kills=kills(self.path),
            recoveries=dict(recoveries(self.path)),
            effects=flow_ledger.effects(storm.TENANTS),
            rows=flow_ledger.rows_left(storm.TENANTS),
            keys={storm.key_name(key.decode().removeprefix(tag)) for key in broker.client.scan_iter(f"{tag}*")},
            places={name: getattr(counts, name) for name in ("queued", "leased", "delayed", "dead")},
            starts=sum(len(line.words) for line in read_log(self.path, "claim")),
            refused=self.refused,
            clusters=self._started,
        )


if __name__ == "__main__":
    # Runs, rounds of kills, kills of each server; the short form, then the long one.
    sys.exit(storm.main(FlowStorm, (60, 1, 1), (2_000, 11, 3), tables=[flows.CREATE]))
