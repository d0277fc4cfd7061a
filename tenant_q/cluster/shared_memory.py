"""The memory that a child shares with the sentinel, without a lock: the child reports what it runs, and how far it is.

A `kill -9` leaves it readable. Each value has one writer.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from mmap import mmap

from tenant_q.brokers.protocol import BATCH_LIMIT, Lease
from tenant_q.states import LONGEST_TEXT, Progress

_RUNNING = struct.Struct("<dd32s63s256s")  # started (monotonic), timeout (0: none), package id, schema, function
_NUMBER = struct.Struct("<Q")
_TIME = struct.Struct("<d")
_LEASE = struct.Struct("<32s24s")  # id, token
_CANCEL = struct.Struct("<32s224s")  # id, reason
_PROGRESS = struct.Struct(f"<32sd{LONGEST_TEXT}s")  # id, fraction, text

_BUSY, _LEFT = 0, 1
_FREE, _TASK, _HOOK = 0, 1, 2  # what the child does
_AT_RUNNING = 8
_DONE, _BATCH, _COUNT, _NEXT, _RECALLED, _PLANNED, _BEAT, _LATE = 512, 520, 528, 536, 544, 552, 560, 568
_RENEWED_SINCE, _RENEWED_UNTIL = 576, 584
_LEASES = 592
_CANCELLED = _LEASES + BATCH_LIMIT * _LEASE.size  # how many
_CANCELS = _CANCELLED + _NUMBER.size
_REPORTS = _CANCELS + BATCH_LIMIT * _CANCEL.size  # twice the number of progress reports; odd while one is being written
_AT_PROGRESS = _REPORTS + _NUMBER.size
_SIZE = _AT_PROGRESS + _PROGRESS.size
_LABELS = ("task_id", "schema", "func")


class Slot:
    """The shared memory of one child."""

    def __init__(self) -> None:
        self._memory = mmap(-1, _SIZE)
        self.beat()

    def detach(self) -> None:
        """Detach from the shared memory: write to a private copy. Call it in a process that a task forked."""
        shared, self._memory = self._memory, mmap(-1, _SIZE)
        self._memory[:] = shared[:]

    # What the child writes

    def plan(self, leases: Sequence[Lease]) -> None:
        """Write to the shared memory that the child begins a batch.

        Args:
            leases: The leases of its packages, in the order in which they run.
        """
        self._put(_COUNT, 0)
        self._put_seconds(_PLANNED, time.monotonic())
        self._put(_BATCH, self._get(_BATCH) + 1)
        self._put(_NEXT, 0)
        shown = leases[:BATCH_LIMIT]
        packed = b"".join(_LEASE.pack(lease.id.encode(), str(lease.token).encode()) for lease in shown)
        self._memory[_LEASES : _LEASES + len(packed)] = packed
        self._put(_COUNT, len(shown))

    def start(self, log_labels: Mapping[str, str], timeout: float | None) -> bool:
        """Write to the shared memory that the child starts the next package of its batch.

        The child first writes what it starts, and then checks whether the batch was recalled. The sentinel first
        recalls the batch, and then reads what was started. So the second of them always sees the first.

        Args:
            log_labels: The schema, the task's id and the function.
            timeout: The seconds that the task may run; None without a limit.

        Returns:
            Whether the package may run; False if the rest of the batch was recalled.
        """
        self._occupy(_TASK, log_labels, timeout)
        self.skip()
        if self._get(_RECALLED) == self._get(_BATCH) and self._get(_COUNT):
            self.leave()
            return False
        return True

    def occupy(self, log_labels: Mapping[str, str], timeout: float | None) -> None:
        """Write to the shared memory that the child starts what follows a task, such as its hook.

        Args:
            log_labels: The schema, the task's id and the function.
            timeout: The seconds that the work may take; None without a limit.
        """
        self._occupy(_HOOK, log_labels, timeout)

    def _occupy(self, what: int, log_labels: Mapping[str, str], timeout: float | None) -> None:
        texts = (log_labels[name].encode() for name in _LABELS)
        packed = _RUNNING.pack(time.monotonic(), timeout or 0.0, *texts)
        self._memory[_AT_RUNNING : _AT_RUNNING + len(packed)] = packed
        self._memory[_BUSY] = what

    def leave(self) -> None:
        """Write to the shared memory that the child works for no package."""
        self.beat()  # first: the last beat is as old as this work, and a child that is not busy must not look silent
        self._memory[_BUSY] = _FREE

    def skip(self, count: int = 1) -> None:
        """Mark in the shared memory that the next packages are passed over, so that a recall begins after them."""
        self._put(_NEXT, self._get(_NEXT) + count)

    def finish(self) -> None:
        """Write to the shared memory that the child has ended a task, and count it."""
        self.leave()
        self.count()

    def leave_for_good(self) -> None:
        """Mark in the shared memory that the child ends in order; else it died, whatever its exit code."""
        self._memory[_LEFT] = 1

    def count(self) -> None:
        """Count a completed task or tick in the shared memory."""
        self._put(_DONE, self.done + 1)

    def cancellation(self, id: str) -> str | None:
        """Read from the shared memory why a package of the child was cancelled; None if it was not."""
        for place in range(self._get(_CANCELLED)):
            at = _CANCELS + place * _CANCEL.size
            cancelled, reason = _CANCEL.unpack(self._memory[at : at + _CANCEL.size])
            if _text(cancelled) == id:
                return _text(reason)
        return None

    def report_progress(self, id: str, progress: Progress) -> None:
        """Write a task's progress to the shared memory. The text is cut to `LONGEST_TEXT` bytes."""
        reports = self._get(_REPORTS) & ~1  # odd if an exception interrupted the last report
        self._put(_REPORTS, reports + 1)
        packed = _PROGRESS.pack(id.encode(), progress.fraction, progress.text.encode())
        self._memory[_AT_PROGRESS : _AT_PROGRESS + len(packed)] = packed
        self._put(_REPORTS, reports + 2)

    def beat(self) -> None:
        """Show in the shared memory that the child lives and is not stuck."""
        self._put_seconds(_BEAT, time.monotonic())

    def report_lateness(self, seconds: float) -> None:
        """Write to the shared memory by how many seconds the oldest due schedule is late."""
        self._put_seconds(_LATE, seconds)

    # What the sentinel writes

    def cancel(self, reasons: Mapping[str, str]) -> None:
        """Write to the shared memory which packages of the child are cancelled.

        Args:
            reasons: The reasons by package id.
        """
        self._put(_CANCELLED, 0)
        shown = list(reasons.items())[:BATCH_LIMIT]
        packed = b"".join(_CANCEL.pack(id.encode(), reason.encode()) for id, reason in shown)
        self._memory[_CANCELS : _CANCELS + len(packed)] = packed
        self._put(_CANCELLED, len(shown))

    def renew(self, sent: float, answered: float, seconds: float, *, is_unbroken: bool = True) -> None:
        """Write to the shared memory that the child's leases were renewed.

        Those that it held all the time are valid until `seconds` after `sent`.

        If the answer came after the previous renewal had run out, it may have come too late for some lease. Then all
        earlier leases are in doubt.

        Args:
            sent: The value of `clock.now()` before the renewal.
            answered: The value of `clock.now()` after it.
            seconds: The duration of a lease.
            is_unbroken: Whether the broker had no outage since the previous renewal.
        """
        if not is_unbroken or answered >= self._get_seconds(_RENEWED_UNTIL):
            self._put_seconds(_RENEWED_UNTIL, 0.0)  # first, so that no lease counts as valid in between
            self._put_seconds(_RENEWED_SINCE, answered)
        self._put_seconds(_RENEWED_UNTIL, sent + seconds)

    def begin_renewing(self, now: float, seconds: float) -> None:
        """Prepare the shared memory of a new child: a first renewal within `seconds` is in time."""
        self._put_seconds(_RENEWED_UNTIL, now + seconds)

    # What the child reads

    @property
    def renewed(self) -> tuple[float, float]:
        """The time since which the leases in shared memory were renewed without a gap, and their deadline."""
        until = self._get_seconds(_RENEWED_UNTIL)
        since = self._get_seconds(_RENEWED_SINCE)
        return since, until if until == self._get_seconds(_RENEWED_UNTIL) else 0.0

    # What the sentinel reads

    @property
    def silent(self) -> float:
        """The seconds since the child last showed in the shared memory that it lives."""
        return time.monotonic() - self._get_seconds(_BEAT)

    @property
    def late(self) -> float:
        """The lateness of the oldest due schedule that the scheduler last wrote to the shared memory."""
        return self._get_seconds(_LATE)

    @property
    def has_left(self) -> bool:
        """Whether the shared memory has the mark that the child ended in order."""
        return bool(self._memory[_LEFT])

    @property
    def done(self) -> int:
        """The number of completed ticks or tasks in the shared memory."""
        return self._get(_DONE)

    @property
    def batch(self) -> int:
        """The number of the batch in the shared memory, counted from 1."""
        return self._get(_BATCH)

    @property
    def waiting_seconds(self) -> float:
        """The seconds that packages of the batch in the shared memory have waited for a turn; 0 if none waits.

        It is also 0 before the first package is started, so that each batch runs at least one.
        """
        planned = self._get_seconds(_PLANNED)
        return time.monotonic() - planned if 0 < self._get(_NEXT) < self._get(_COUNT) else 0.0

    @property
    def running(self) -> str | None:
        """The id in the shared memory of the package that the child works for, or None."""
        return self.log_labels.get("task_id")

    @property
    def task(self) -> str | None:
        """The id in the shared memory of the package whose task runs; None while its hook runs."""
        return self.running if self._memory[_BUSY] == _TASK else None

    @property
    def progress(self) -> tuple[int, str, Progress] | None:
        """The number of reports in the shared memory, the package's id, and the last report.

        None without one, or while one is written.
        """
        reports = self._get(_REPORTS)
        id, fraction, text = _PROGRESS.unpack(self._memory[_AT_PROGRESS : _AT_PROGRESS + _PROGRESS.size])
        is_whole = reports and reports % 2 == 0 and reports == self._get(_REPORTS)
        return (reports, _text(id), Progress(fraction, _text(text))) if is_whole else None

    @property
    def log_labels(self) -> dict[str, str]:
        """The log labels in the shared memory of the package that the child works for; empty if there is none."""
        busy = self._memory[_BUSY]
        _, _, *texts = self._read()
        values = (text.rstrip(b"\0").decode(errors="replace") for text in texts)
        return dict(zip(_LABELS, values, strict=True)) if busy else {}

    @property
    def seconds(self) -> float:
        """The seconds since the child began with the package in the shared memory; 0 if there is none."""
        busy = self._memory[_BUSY]  # first: a package that starts in between must not look as old as the one before
        started, *_ = self._read()
        return time.monotonic() - started if busy else 0.0

    def overdue(self, margin: float) -> bool:
        """Return whether the package in the shared memory is past its timeout by more than `margin` seconds."""
        _, timeout, *_ = self._read()
        return bool(timeout) and self.seconds > timeout + margin

    def recall(self) -> list[Lease]:
        """Mark in the shared memory that the child is to start no more packages of its batch.

        Returns:
            The leases of the packages that were not started.
        """
        batch = self._get(_BATCH)
        self._put(_RECALLED, batch)
        first, count = self._get(_NEXT), self._get(_COUNT)
        leases = [self._lease(place) for place in range(first, count)]
        # A batch that began in the meantime is not recalled.
        return leases if self._get(_BATCH) == batch else []

    def _lease(self, place: int) -> Lease:
        at = _LEASES + place * _LEASE.size
        id, token = _LEASE.unpack(self._memory[at : at + _LEASE.size])
        return Lease(id=id.rstrip(b"\0").decode(), schema="", payload="", token=token.rstrip(b"\0").decode())

    def _read(self) -> tuple[float, float, bytes, bytes, bytes]:
        return _RUNNING.unpack(self._memory[_AT_RUNNING : _AT_RUNNING + _RUNNING.size])

    def _get_seconds(self, at: int) -> float:
        return float(_TIME.unpack(self._memory[at : at + _TIME.size])[0])

    def _put_seconds(self, at: int, seconds: float) -> None:
        self._memory[at : at + _TIME.size] = _TIME.pack(seconds)

    def _get(self, at: int) -> int:
        return int(_NUMBER.unpack(self._memory[at : at + 8])[0])

    def _put(self, at: int, number: int) -> None:
        self._memory[at : at + 8] = _NUMBER.pack(number)


def _text(packed: bytes) -> str:
    # A text that is too long was cut, perhaps within a character.
    return packed.rstrip(b"\0").decode(errors="ignore")
