"""Pack what was done in a period into an element of a day in Redis: 16 bytes, and as many again for each kind of times.

The numbers have their most significant byte in front: 3 bytes for the period's number, done, failed, and 1 more than is
queued, 4 bytes for the milliseconds busy. Those that do not fit are the largest that do. Then come the waits and the
runs: the first place with a count and the number of places in one byte, and the counts, one byte each. If the largest
count of a period does not fit, all are in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence

from tenant_q.brokers.days import NO_TIMES, Histogram, Period
from tenant_q.brokers.loads import PERIOD_SECONDS

_SIZES = (3, 3, 3, 3, 4)
_LARGEST_COUNT = 255


def pack(period: Period) -> bytes:
    """Return the element of a day for what was done in a period."""
    number, ms = round(period.start / PERIOD_SECONDS), round(period.busy_seconds * 1000)
    numbers = number, period.done, period.failed, 0 if period.queued is None else period.queued + 1, ms
    fixed = b"".join(min(n, 256**size - 1).to_bytes(size) for n, size in zip(numbers, _SIZES, strict=True))
    return fixed + _pack_times(period.waits) + _pack_times(period.runs)


def unpack(element: bytes) -> Period:
    """Return the period that an element of a day describes."""
    numbers, at = [], 0
    for size in _SIZES:
        numbers.append(int.from_bytes(element[at : at + size]))
        at += size
    number, done, failed, waiting, ms = numbers
    waits, at = _unpack_times(element, at, done + failed)
    runs, _ = _unpack_times(element, at, done + failed)
    queued = waiting - 1 if waiting else None
    return Period(float(number * PERIOD_SECONDS), done, failed, waits, runs, ms / 1000, queued)


def _pack_times(times: Histogram) -> bytes:
    places = [place for place, count in enumerate(times.counts) if count]
    if not places:
        return b"\0"
    counts = _in_proportion(times.counts[places[0] : places[-1] + 1])
    return bytes((places[0] << 4 | len(counts), *counts))


def _in_proportion(counts: Sequence[int]) -> Sequence[int]:
    """Return the counts of times such that the largest fits into a byte. What is counted at all stays at least 1."""
    largest = max(counts)
    return (
        counts
        if largest <= _LARGEST_COUNT
        else [count and max(1, round(count * _LARGEST_COUNT / largest)) for count in counts]
    )


def _unpack_times(element: bytes, at: int, tasks: int) -> tuple[Histogram, int]:
    """Return the times of a period at a position of a day's element, and the position behind them.

    Counts in proportion are raised such that there is a time for each of the period's tasks.
    """
    first, length = element[at] >> 4, element[at] & 15
    end = at + 1 + length
    found: Sequence[int] = element[at + 1 : end]
    total = sum(found)
    if max(found, default=0) == _LARGEST_COUNT and total < tasks:
        found = [round(count * tasks / total) for count in found]
    counts = list(NO_TIMES.counts)
    counts[first : first + length] = found
    return Histogram(tuple(counts)), end
