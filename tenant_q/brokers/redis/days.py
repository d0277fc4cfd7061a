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
            now, elements, words, queued, functions, places = self._run("day_of_all")
            ahead = _functions_since(words, places)
        else:
            now, elements, words, queued, functions = self._run("day", *self._owner(schema))
            places, ahead = _ALONE, []
        first = (now + 1 - DAY_PERIODS) * PERIOD_SECONDS
        recorded = map(day_elements.unpack, elements)
        periods = (one for one in chain(recorded, _unrecorded(words, places, now, queued)) if one.start >= first)
        since, *rows = functions
        return Day(tuple(periods), tuple(_by_function(chain(map(_function, rows), ahead))), float(since))

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

    def record_periods(self) -> int:
        count = 0
        while answer := self._run("record_period"):
            number, before, after, places, queued = answer
            self._record(number, places, _since(places, after, before), queued)
            count += 1
        return count

    def _record(self, number: int, places: Sequence[bytes], changed: Mapping[str, Figures], queued: Any) -> None:
        waiting = None if queued is None else {queue.decode(): count for queue, count in _pairs(queued)}
        names = {name.decode(): place for name, place in _pairs(places)}
        tenants = dict(_tenants(changed))
        rows: list[tuple[Any, ...]] = [_tenant_row("", number, _sum(tenants.values()), _total(waiting))]
        for queue in {*tenants, *(waiting or ())}:
            left = None if waiting is None else waiting.get(queue, 0)
            rows.append(_tenant_row(queue, number, tenants.get(queue, NOTHING), left))
        functions = [_function_row(names[name], name, one) for name, one in changed.items() if name.startswith(OF_ALL)]
        if len(rows) == 1 and not functions:
            return
        for some in _chunks(rows):
            self._run("keep_day", number, len(some), *chain.from_iterable(some))
        for some in _chunks(functions):
            self._run("keep_day", number, 0, *chain.from_iterable(some))


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


def _total(waiting: Mapping[str, int] | None) -> int | None:
    return None if waiting is None else sum(waiting.values())


def _tenant_row(queue: str, number: int, figures: Figures, queued: int | None) -> tuple[Any, ...]:
    """Return what `keep_day.lua` gets of a tenant in the day; the queue is empty for all tenants together."""
    element = day_elements.pack(number, figures, queued)
    return queue, element, figures.done, figures.failed, _microseconds(figures)


def _function_row(place: bytes, name: str, figures: Figures) -> tuple[Any, ...]:
    """Return what `keep_day.lua` gets of a function in the day."""
    runs = Histogram.of(figures.runs).counts
    return place, name.removeprefix(OF_ALL), figures.failed, _microseconds(figures), *runs


def _microseconds(figures: Figures) -> int:
    return round(figures.run_seconds * 1e6)


def _unrecorded(words: Sequence[Any], places: Sequence[bytes], now: int, queued: int) -> Iterator[Period]:
    """Yield the periods of a day that are not recorded yet, and the present one if something is done or queued.

    Args:
        words: As `unrecorded` in `common.lua` returns them.
        places: The names and their places in the words.
        now: The number of the present period.
        queued: How many packages are queued now.
    """
    begins, states = words[:-1:2], [*words[1::2], *words[-1:]]
    found = {}
    for number, before, after in zip(begins, states, states[1:], strict=False):
        found[number] = _sum(dict(_tenants(_since(places, after, before))).values())
    done_now = found.pop(now, NOTHING)
    yield from (Period.of(number, done, None) for number, done in found.items() if done is not NOTHING)
    if queued or done_now is not NOTHING:
        yield Period.of(now, done_now, queued)


def _functions_since(words: Sequence[Any], places: Sequence[bytes]) -> list[FunctionFigures]:
    """Return the functions of a day that are not recorded yet."""
    changed = _since(places, words[-1], words[1]) if len(words) > 1 else {}
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
