"""A day of figures in Redis: its periods, functions and tenants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from tenant_q.brokers import loads
from tenant_q.brokers.days import (
    DAY_PERIODS,
    Day,
    FunctionFigures,
    Histogram,
    Period,
    TenantFigures,
    busiest,
)
from tenant_q.brokers.loads import NOTHING, PERIOD_SECONDS, Figures
from tenant_q.brokers.redis import day_elements
from tenant_q.brokers.redis.decoding import schemas, shown
from tenant_q.brokers.redis.ledger import FREE, OF_ALL, Ledger
from tenant_q.brokers.redis.part import Part

# How many tenants or functions of a period one call of a script records.
_CHUNK = 200
# A place for a tenant's words that are read without those of others.
_ALONE = (b"", b"0")


class RedisDays(Part):
    """The day of figures, see `protocol.monitoring`."""

    def day(self, schema: str | None = None) -> Day:
        if schema is None:
            now, elements, begun, words, queued, functions, places = self._run("day_of_all")
            ahead = _functions_since(begun, words, places)
        else:
            now, elements, begun, words, queued, functions = self._run("day", *self._owner(schema))
            places, ahead = _ALONE, []
        first = (now + 1 - DAY_PERIODS) * PERIOD_SECONDS
        recorded = map(day_elements.unpack, elements)
        unrecorded = _unrecorded(begun, words, places, now, queued)
        since, *rows = functions
        return Day(
            tuple(one for one in chain(recorded, unrecorded) if one.start >= first),
            tuple(_by_function(chain(map(_function, rows), ahead))),
            float(since),
        )

    def top_tenants(self, *, day: bool = False, most: int = 10) -> list[TenantFigures]:
        places, now, before, owners, parts = self._run("top_tenants", 0 if day else loads.PERIODS)
        by_queue = schemas(owners)
        found: dict[str, TenantFigures] = {}

        def add(queue: str, done: int, failed: int, seconds: float) -> None:
            schema = by_queue.get(queue, queue)
            own = TenantFigures(schema, done, failed, seconds)
            found[schema] = found[schema] + own if schema in found else own

        for queue, counts in ((queue, counts) for part in parts for queue, counts in _pairs(part)):
            done, failed, us = map(int, counts.split(b","))
            add(shown(queue), done, failed, us / 1e6)
        for queue, figures in _tenants(_since(places, now, before)):
            add(queue, figures.done, figures.failed, figures.run_seconds)
        return busiest(found.values(), most)

    def note_busy(self, ids: Sequence[str], seconds: float) -> None:
        self._run("note_busy", round(seconds * 1000), *ids)

    def record_periods(self) -> int:
        count = 0
        while answer := self._run("record_period"):
            number, before, after, places, queued, samples = answer
            changed = _since(places, after, before)
            rows = _tenant_rows(number, dict(_tenants(changed)), _counts(queued), _counts(samples or None))
            functions = _function_rows(dict(_pairs(places)), changed)
            for some in _chunks(rows):
                self._run("keep_day", number, len(some), *chain.from_iterable(some))
            for some in _chunks(functions):
                self._run("keep_day", number, 0, *chain.from_iterable(some))
            count += 1
        return count


def _counts(flat: Sequence[Any] | None) -> dict[str, int] | None:
    """Return counts by queue from Redis; None if there are none."""
    return None if flat is None else {shown(queue): int(count) for queue, count in _pairs(flat)}


def _tenant_rows(
    number: int, done: Mapping[str, Figures], queued: Mapping[str, int] | None, samples: Mapping[str, int] | None
) -> list[tuple[Any, ...]]:
    """Return what `keep_day.lua` gets of the tenants of a period: one row for all of them, then one for each.

    Args:
        number: The number of the period.
        done: What was done in it, by queue.
        queued: How many packages were queued at its end, by queue; None if that is not known.
        samples: The milliseconds for which workers were busy, by queue, and the time of all samples without a queue;
            None without samples.
    """
    busy = None if samples is None else {queue: ms for queue, ms in samples.items() if queue}
    queues = {*done, *(queued or ()), *(busy or ())}
    if not queues:
        return []

    def row(queue: str, figures: Figures, waiting: int | None, ms: int | None) -> tuple[Any, ...]:
        element = day_elements.pack(Period.of(number, figures, waiting, ms))
        return queue, element, figures.done, figures.failed, _microseconds(figures)

    def of(counts: Mapping[str, int] | None, queue: str) -> int | None:
        return None if counts is None else counts.get(queue, 0)

    def total(counts: Mapping[str, int] | None) -> int | None:
        return None if counts is None else sum(counts.values())

    every = row("", _sum(done.values()), total(queued), total(busy))
    return [every, *(row(queue, done.get(queue, NOTHING), of(queued, queue), of(busy, queue)) for queue in queues)]


def _function_rows(places: Mapping[bytes, bytes], changed: Mapping[str, Figures]) -> list[tuple[Any, ...]]:
    """Return what `keep_day.lua` gets of the functions of a period in the day, from the places of their figures."""
    rows = []
    for name, one in changed.items():
        if name.startswith(OF_ALL):
            runs = Histogram.of(one.runs).counts
            rows.append((places[name.encode()], name.removeprefix(OF_ALL), one.failed, _microseconds(one), *runs))
    return rows


def _chunks(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    return (rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK))


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _since(places: Sequence[bytes], now: bytes | None, before: bytes | None) -> dict[str, Figures]:
    """Return by name what Redis' figures have more than before; nothing if there is no before."""
    if before is None:
        return {}
    return {name: one for name, one in Ledger(places, now).since(before).items() if one is not NOTHING}


def _tenants(changed: Mapping[str, Figures]) -> Iterator[tuple[str, Figures]]:
    return ((name, one) for name, one in changed.items() if not name.startswith((OF_ALL, FREE)))


def _sum(figures: Iterable[Figures]) -> Figures:
    total = NOTHING
    for one in figures:
        total = total + one
    return total


def _microseconds(figures: Figures) -> int:
    return round(figures.run_seconds * 1e6)


def _unrecorded(begun: Sequence[Any], words: bytes, places: Sequence[bytes], now: int, queued: int) -> Iterable[Period]:
    """Return the periods of a day that are not recorded yet, and the present one if something is done or queued.

    Args:
        begun: The periods, and the words when they began, as `unrecorded` in `common.lua` returns them.
        words: The words now.
        places: The names and their places in the words.
        now: The number of the present period.
        queued: How many packages are queued now.
    """
    found = {now: Period.of(now, NOTHING, queued)} if queued else {}
    for number, before, busy in reversed(begun):
        done = _sum(dict(_tenants(_since(places, words, before))).values())
        words = words if before is None else before
        if done is not NOTHING or busy or number in found:
            found[number] = Period.of(number, done, queued if number == now else None, busy)
    return sorted(found.values(), key=lambda one: one.start)


def _functions_since(begun: Sequence[Any], words: bytes, places: Sequence[bytes]) -> list[FunctionFigures]:
    """Return the functions of a day that are not recorded yet."""
    first = next((before for _, before, _ in begun if before is not None), None)
    changed = _since(places, words, first)
    return [
        FunctionFigures.of(name.removeprefix(OF_ALL), one) for name, one in changed.items() if name.startswith(OF_ALL)
    ]


def _function(row: Sequence[Any]) -> FunctionFigures:
    """Return a function of a day as `day_functions` in `common.lua` describes it."""
    name, failed, us, *counts = row
    return FunctionFigures(shown(name), sum(counts) - failed, failed, Histogram(tuple(counts)), us / 1e6)


def _by_function(figures: Iterable[FunctionFigures]) -> Iterable[FunctionFigures]:
    found: dict[str, FunctionFigures] = {}
    for one in figures:
        found[one.func] = found[one.func] + one if one.func in found else one
    return found.values()
