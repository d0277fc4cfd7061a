"""The queues: one list per tenant, leased in batches through one fair ring."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

from tenant_q.brokers import loads
from tenant_q.brokers.messages import leaving_of
from tenant_q.brokers.protocol import limits
from tenant_q.brokers.protocol.leases import Lease
from tenant_q.brokers.protocol.limits import (
    BATCH_BYTES,
    BATCH_LIMIT,
    BATCH_SECONDS,
    NEW_FACTOR,
    REMEMBER_SECONDS,
    SMALL_BATCH,
    UNKNOWN_COST_MS,
)
from tenant_q.brokers.protocol.queue import Batch, Message, Settled, Unique
from tenant_q.brokers.redis.decoding import pairs, text
from tenant_q.brokers.redis.part import CHUNK, Part
from tenant_q.brokers.redis.scripts import REFUSALS
from tenant_q.conf import conf
from tenant_q.exceptions import QueueFull, TenantDeleted
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.brokers")


class RedisQueue(Part):
    """The queues, see `protocol.queue`."""

    def enqueue(self, messages: Sequence[Message], *, limited: bool = False) -> int:
        accepted, _ = self._enqueue(messages, limited)
        return accepted

    def enqueue_unique(self, message: Message, *, limited: bool = False) -> str:
        _, joined = self._enqueue([message], limited)
        return joined.get(message.id, message.id)

    def _enqueue(self, messages: Sequence[Message], limited: bool) -> tuple[int, dict[str, str]]:
        """Put packages on their queues in Redis.

        Returns:
            How many were not known before; and the ids of those that were not enqueued, because another package has
            their unique key, with the id of that package.
        """
        accepted = 0
        joined: dict[str, str] = {}
        for start in range(0, len(messages), CHUNK):
            arguments: list[str | int] = [len(messages) if limited and start == 0 else 0]
            for m in messages[start : start + CHUNK]:
                delay = round(m.delay * 1000)
                arguments += (m.id, m.schema, m.tenant, m.func, int(m.once), delay, m.payload, _terms(m))
            new, *refusal = self._run("enqueue", *arguments)
            if refusal and isinstance(refusal[0], list):
                joined |= pairs(refusal.pop())
            if refusal and refusal[-1] == b"leaving":
                raise leaving_of(messages, text(refusal[0]))
            if len(refusal) == 1:
                raise TenantDeleted(text(refusal[0]) or "")
            if refusal:
                raise _queue_full(messages, *refusal)
            accepted += new
        return accepted, joined

    def fetch(
        self, worker: str, *, wait: float = 0.0, limit: int = BATCH_LIMIT, seconds: float = BATCH_SECONDS
    ) -> Batch:
        lease_ms = round(conf().lease * 1000)
        wait = min(wait, conf().lease / 4)  # the leases count from before the wait
        word = secrets.token_hex(4)
        arguments = (
            worker,
            lease_ms,
            limit,
            round(seconds * 1000),
            limits.slices(),
            UNKNOWN_COST_MS,
            NEW_FACTOR,
            word,
            BATCH_BYTES,
            SMALL_BATCH,
        )
        run = partial(self._scripts.run_when_woken, "fetch", wait) if wait > 0 else partial(self._run, "fetch")
        due, *rows = run(*arguments)
        leases = tuple(lease for row in rows if (lease := self._readable(worker, *row)))
        return Batch(leases, next_delayed=None if due < 0 else due / 1000)

    def _readable(
        self, worker: str, id: bytes, token: bytes, starts: bytes, reason: bytes, message: bytes, death: bytes
    ) -> Lease | None:
        """Return a lease fetched from a queue in Redis; None if its package is not a text, which is then forgotten."""
        try:
            schema, _, _, payload = message.decode().split("\n", 3)
            name = id.decode()
        except UnicodeDecodeError:
            self._run("dead_letter", worker, "", token, "")
            return None
        times = int(starts) if starts else None
        return Lease(name, schema, payload, token.decode(), times, text(reason), text(death))

    def acknowledge(self, worker: str, settled: Sequence[Settled]) -> list[str]:
        try:
            return self._acknowledge(worker, settled) if settled else []
        except REFUSALS as error:
            if len(settled) > 1:
                logger.warning(
                    "%s acknowledgements are sent one by one: %s",
                    len(settled),
                    error,
                    event="package.acknowledged_one_by_one",
                )
                return [id for one in settled for id in self.acknowledge(worker, [one])]
            self._dead_letter_by_token(worker, settled[0].lease, error)
            return []

    def _acknowledge(self, worker: str, settled: Sequence[Settled]) -> list[str]:
        arguments: list[Any] = [worker, REMEMBER_SECONDS * 1000, limits.MOST_FUNCTIONS]
        for one in settled:
            ms, waited = round(one.seconds * 1000, 3), None if one.waited is None else round(one.waited * 1000)
            places = bytes(48 + place for place in loads.places_of(ms, waited, failed=one.failed))
            arguments += [one.lease.id, one.lease.token, ms, waited or 0, places]
        return [id.decode() for id in self._run("acknowledge", *arguments)]

    def give_back(self, worker: str, leases: Sequence[Lease]) -> int:
        pairs = [part for lease in leases for part in (lease.id, lease.token)]
        try:
            return int(self._run("give_back", worker, *pairs)) if pairs else 0
        except REFUSALS as error:
            if len(leases) > 1:
                return sum(self.give_back(worker, [lease]) for lease in leases)
            self._dead_letter_by_token(worker, leases[0], error)
            return 0

    def put_off(
        self,
        worker: str,
        lease: Lease,
        *,
        delay: float,
        payload: str | None = None,
        seconds: float = 0.0,
        unready: bool = False,
    ) -> None:
        used = round(seconds * 1000, 3)
        self._run("put_off", worker, lease.id, lease.token, round(delay * 1000), payload or "", used, int(unready))

    def dead_letter(self, worker: str, lease: Lease, cause: str) -> None:
        try:
            self._run("dead_letter", worker, lease.id, lease.token, cause)
        except REFUSALS as error:
            self._dead_letter_by_token(worker, lease, error)

    def _dead_letter_by_token(self, worker: str, lease: Lease, error: Exception) -> None:
        """Dead-letter a package whose id Redis refuses. The server finds it by the token of its lease.

        If the server refuses that too, the package stays leased until its worker fetches again.
        """
        extra = {"schema": lease.schema, "task_id": lease.id}
        logger.error(
            "Package %s of %s is given up: %s",
            lease.id,
            lease.schema,
            error,
            event="package.given_up",
            exc_info=error,
            extra=extra,
        )
        try:
            self._run("dead_letter", worker, "", lease.token, f"{type(error).__name__}: {error}")
        except REFUSALS:
            logger.exception(
                "Package %s of %s cannot be given up",
                lease.id,
                lease.schema,
                event="package.give_up_failed",
                extra=extra,
            )

    def purge(self) -> None:
        self._run("purge")


def _terms(message: Message) -> str:
    """Return what few packages have for `enqueue.lua`: the package that it follows, its lane and its unique key."""
    if not (message.follows or message.priority or message.interval or message.unique):
        return ""
    lane = _lane(message) if message.priority or message.interval else ""
    unique = "" if message.unique is None else _unique_argument(message.unique)
    return f"{message.follows}\n{lane}\n{unique}"


def _unique_argument(unique: Unique) -> str:
    """Return a unique key as the script that enqueues gets it."""
    return f"{'s' if unique.until_start else 'e'}{int(unique.needs_alias)}{unique.func}\n{unique.key}"


def _lane(message: Message) -> str:
    """Return the lane of a message for `enqueue.lua`."""
    interval = format(message.interval * 1000, ".6f") if message.interval else ""
    return f"{message.priority};{interval};{'site' if message.is_site_rate else ''}"


def _queue_full(messages: Sequence[Message], limit: int, waiting: int) -> QueueFull:
    schema, count, tasks = messages[0].schema, len(messages), counted(waiting, "task waits", "tasks wait")
    return QueueFull(
        f"{count} more cannot be enqueued for {schema}: {tasks}, and its max_queued is {limit}; "
        f"try again later, or raise it with `python manage.py mstenant limit {schema} --max-queued N`."
    )
