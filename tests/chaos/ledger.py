"""What the storm was accepted to do, and what came of it: counted in the tenants' schemas, in the log and in Redis."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A worker holds at most this many packages, so no kill can repeat more.
IN_FLIGHT = 256

# What the broker may keep when no package is left: what is learned, clocks, tombstones, policies, idle workers' tokens,
# what clusters told last of their status, and the operators' figures.
MAY_STAY = {
    "costs", "day", "day_busy", "day_functions", "day_names", "day_recorded", "day_tenants", "epoch", "expired",
    "figures", "figure_places", "functions", "known", "late", "policy", "queue_owners", "queues", "ring", "statistics",
    "status", "status of a cluster", "token", "vtime", "waited", "wake",
}  # fmt: skip


@dataclass
class Accepted:
    """What a call to enqueue returned for. The keys are those of the effects, with the tenant of each."""

    plain: dict[str, str] = field(default_factory=dict)
    transactional: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    fires: dict[str, str] = field(default_factory=dict)
    chains: dict[str, tuple[str, int]] = field(default_factory=dict)  # group -> tenant, length

    def all(self) -> dict[str, str]:
        return self.plain | self.transactional | self.links | self.fires


@dataclass(frozen=True)
class Line:
    """A line of the log that the processes at the points write."""

    at: float
    what: str
    words: tuple[str, ...]


def read_log(path: Path, what: str) -> list[Line]:
    """The lines of one kind; one that is being written is not there yet."""
    whole, _, _ = (path / "log").read_text().rpartition("\n")
    lines = (line.split() for line in whole.splitlines())
    return [Line(float(at), kind, tuple(words)) for at, kind, *words in lines if kind == what]


def recoveries(path: Path) -> dict[str, list[float]]:
    """Seconds from each kill until the first of the packages in the process's hands was claimed again.

    For a scheduler, until the next one ran; for a server, from its start until the next claim. By what was killed.
    """
    claims: dict[str, list[float]] = defaultdict(list)
    for line in read_log(path, "claim"):
        for id in line.words:
            claims[id].append(line.at)
    any_claim = [line.at for line in read_log(path, "claim")]
    schedulers = [line.at for line in read_log(path, "scheduler")]
    found: dict[str, list[float]] = defaultdict(list)
    for line in read_log(path, "obey"):
        act, point, _, *ids = line.words
        if "scheduler" in act or point in ("before-push", "after-push") or point.startswith("look-"):
            later = schedulers
        else:
            later = [at for id in ids for at in claims[id]]
        found[_kind(act, point)] += _first_after(line.at, later)
    for line in read_log(path, "started"):
        found[f"kill {line.words[0]}"] += _first_after(line.at, any_claim)
    return found


def kills(path: Path) -> Counter[str]:
    """How often what was killed or frozen."""
    counted = Counter(_kind(*line.words[:2]) for line in read_log(path, "obey"))
    counted.update(f"kill {line.words[0]}" for line in read_log(path, "started"))
    return counted


def _kind(act: str, point: str) -> str:
    return f"{act} {point}" if point != "-" else f"{act} anywhere"


def _first_after(moment: float, times: Iterable[float]) -> list[float]:
    later = [at for at in times if at > moment]
    return [min(later) - moment] if later else []


@dataclass
class Account:
    """The figures at the end. `problems` says what must not be."""

    accepted: Accepted
    kills: Counter[str]
    recoveries: Mapping[str, Sequence[float]]
    starts: int
    effects: Counter[tuple[str, str]]  # (key, tenant) -> how often
    rows: Mapping[tuple[str, str], bool]  # (id, tenant) -> success
    groups: Mapping[tuple[str, str], int]  # (group, tenant) -> successful rows
    statistics: Mapping[str, int]
    keys: set[str]
    places: Mapping[str, int]
    refused: int
    clusters: int

    @property
    def sigkills(self) -> int:
        return sum(n for kind, n in self.kills.items() if not kind.startswith("freeze"))

    @property
    def lost(self) -> list[str]:
        return [key for key, schema in self.accepted.all().items() if not self.effects[key, schema]]

    @property
    def duplicated(self) -> int:
        return self.effects.total() - len(self.effects)

    def problems(self) -> list[str]:
        return [text for text, holds in self._checks() if not holds]

    def _checks(self) -> Iterable[tuple[str, bool]]:
        ours = self.accepted
        yield f"lost: {self.lost}", not self.lost
        bound = self.kills.total() * IN_FLIGHT
        yield f"{self.duplicated} effects were done again; at most {bound} may be", self.duplicated <= bound
        twice = [pair for pair in ours.transactional.items() if self.effects[pair] > 1]
        yield f"transactional tasks took effect more than once: {twice}", not twice
        foreign = self.effects.keys() - set(ours.all().items())
        yield f"effects of tasks that were not accepted, or in another tenant: {foreign}", not foreign
        one_by_one = ours.plain | ours.transactional
        unsaved = [pair for pair in one_by_one.items() if not self.rows.get(pair)]
        yield f"tasks without a successful row: {unsaved}", not unsaved
        chains = {(group, schema): length for group, (schema, length) in ours.chains.items()}
        fires = dict.fromkeys(ours.fires.items(), 1)
        wrong = {pair: self.groups.get(pair, 0) for pair, n in (chains | fires).items() if self.groups.get(pair) != n}
        yield f"groups of chains and fires with another number of rows than they should have: {wrong}", not wrong
        expected = len(one_by_one) + sum(chains.values()) + len(fires)
        yield f"there are {len(self.rows)} rows and should be {expected}", len(self.rows) == expected
        yield f"packages are left: {self.places}", not any(self.places.values())
        yield f"keys are left in the broker: {sorted(self.keys - MAY_STAY)}", self.keys <= MAY_STAY

    def show(self, write: Callable[[str], Any] = print) -> None:
        """The figures as tables."""
        ours = self.accepted
        figures = {
            "accepted": len(ours.all()),
            "  plain, transactional": f"{len(ours.plain)}, {len(ours.transactional)}",
            "  links of chains, fires": f"{len(ours.links)}, {len(ours.fires)}",
            "run": len(ours.all()) - len(self.lost),
            "claimed": self.starts,
            "lost": len(self.lost),
            "duplicated effects": self.duplicated,
            "  of transactional tasks": sum(max(0, self.effects[pair] - 1) for pair in ours.transactional.items()),
            "stale acks refused": self.statistics["stale_acks"],
            "leases expired": self.statistics["expired"],
            "enqueues refused, tried again": self.refused,
            "SIGKILLs": self.sigkills,
            "clusters started": self.clusters,
        }
        for name, value in figures.items():
            write(f"{name:<32} {value}")
        write(f"\n{'kill':<44} {'times':>5}  recovery in seconds: median, max")
        for kind, times in sorted(self.kills.items()):
            seconds = self.recoveries.get(kind, ())
            shown = f"{statistics.median(seconds):8.2f} {max(seconds):8.2f}" if seconds else f"{'-':>8} {'-':>8}"
            write(f"{kind:<44} {times:>5}  {shown}")
