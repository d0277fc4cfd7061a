"""The Redis (or Valkey) broker: a queue per tenant, one fair ring, leases with fencing tokens.

Every operation is one Lua script in `lua/`, so it is atomic and costs one round trip. Keys share the hash tag
`{tq:<cluster>}`. The idea of fair virtual time is start-time fair queueing (Goyal, Vin, Cheng 1996); fencing tokens
are as in Kleppmann, "How to do distributed locking" (2016).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import redis

from tenant_q.brokers import loads, protocol
from tenant_q.brokers.connection import connect, missing_limits
from tenant_q.brokers.ledger import FREE, OF_ALL, Ledger
from tenant_q.brokers.loads import Figures, Load, Totals
from tenant_q.brokers.protocol import (
    BATCH_BYTES,
    BATCH_LIMIT,
    BATCH_SECONDS,
    CANCEL_REACH,
    NEW_FACTOR,
    REMEMBER_SECONDS,
    SLICES,
    SMALL_BATCH,
    UNKNOWN_COST_MS,
    Batch,
    Cancelled,
    Counts,
    Dead,
    Lease,
    Live,
    Message,
    Policy,
    Settled,
    outage_seconds,
    state_at,
)
from tenant_q.brokers.scripts import REFUSALS, Scripts
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, GroupTooLarge, QueueFull, TenantDeleted
from tenant_q.states import Progress, State
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import visible
from tenant_q.tenancy import queue_suffix

logger = get_logger("tenant_q.brokers")

# How many entries one call of a script handles, so that it does not block the server.
CHUNK = 1000
# Names of clusters that the settings do not know: how long and how many are kept, and how many one call reads.
STRAY_SECONDS = 30 * 24 * 3600
MOST_STRAYS = 1000
STRAYS_LOOKED_AT = 20
# Log messages for the broken entries that `expire` returns.
_BROKEN = {
    "package": "A package without a message, or with a broken one, is dropped",
    "lease": "A package whose lease is missing or broken is returned to its queue",
    "key": "A key of the wrong type is moved aside",
}
# How what is kept outside of a tenant's queue is noted.
_GROUP, _RESULT = "group;", "result;"

# Queued, leased, delayed, dead.
NOWHERE = (0, 0, 0, 0)


def _no_keys(schemas: Iterable[str]) -> Mapping[str, str]:
    return {}


_Item = TypeVar("_Item")


class RedisBroker:
    """The queues of one cluster in Redis.

    In tests its keys carry the name of the test database.

    Parameters: `cluster`, its name; `client`, a connection, or None for the one that `Q_CLUSTER` names; `keys_of`,
    which returns the keys of the tenants that have these schemas now, by schema.
    """

    def __init__(
        self,
        cluster: str,
        client: redis.Redis | None = None,
        keys_of: Callable[[Iterable[str]], Mapping[str, str]] = _no_keys,
    ) -> None:
        self.cluster = cluster
        self._keys_of = keys_of
        self._suffix = queue_suffix()
        self.tag = f"{{tq:{cluster}{self._suffix}}}"
        self.client = client or connect()
        self._scripts = Scripts(cluster, self.tag, self.client)

    # Server

    def ping(self) -> None:
        with self._errors:
            self.client.ping()

    def probe(self) -> None:
        with self._errors:
            self.client.set(f"{self.tag}:probe", "1", px=1000)

    def info(self) -> str:
        try:
            with self._errors:
                server: Any = self.client.info("server")
        except BrokerError as error:
            self.ping()  # the version is only displayed: a user without INFO is served too
            logger.info("The version of the broker's server is not shown: %s", error)
            return "Redis"
        if "valkey_version" in server:
            return f"Valkey {server['valkey_version']}"
        return f"Redis {server['redis_version']}"

    def warnings(self) -> list[str]:
        return [*self._missing_limits(), *self._eviction()]

    def _missing_limits(self) -> list[str]:
        if not (missing := " and ".join(missing_limits(self.client))):
            return []
        kind = type(self.client.connection_pool).__name__
        return [f"The {kind} of the client sets no {missing}, so a call may last for ever; set them in its options."]

    def _eviction(self) -> list[str]:
        try:
            with self._errors:
                memory: Any = self.client.info("memory")
        except BrokerError as error:
            self.ping()
            return [
                f"The broker's maxmemory-policy cannot be read ({error.__cause__}); make sure that it is 'noeviction'."
            ]
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            return [f"The broker's maxmemory-policy is '{policy}': it may drop queued tasks; set it to 'noeviction'."]
        return []

    # Packages

    def enqueue(self, messages: Sequence[Message], *, limited: bool = False) -> int:
        accepted = 0
        for start in range(0, len(messages), CHUNK):
            arguments: list[str | int] = [len(messages) if limited and start == 0 else 0]
            for m in messages[start : start + CHUNK]:
                delay = round(m.delay * 1000)
                arguments += [m.id, m.schema, m.tenant, m.func, int(m.once), m.follows, delay, m.payload]
            new, *refusal = self._run("enqueue", *arguments)
            if len(refusal) == 1:
                raise TenantDeleted(_text(refusal[0]) or "")
            if refusal:
                raise _queue_full(messages, *refusal)
            accepted += new
        return accepted

    def fetch(
        self, worker: str, *, wait: float = 0.0, limit: int = BATCH_LIMIT, seconds: float = BATCH_SECONDS
    ) -> Batch:
        lease_ms = round(conf().lease * 1000)
        wait = min(wait, conf().lease / 4)  # the worker's leases count from before it waited
        word = secrets.token_hex(4)
        arguments = (
            worker,
            lease_ms,
            limit,
            round(seconds * 1000),
            SLICES,
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
        """Return a lease of a fetch; None if its package is not a text, which is then forgotten."""
        try:
            schema, _, _, payload = message.decode().split("\n", 3)
            name = id.decode()
        except UnicodeDecodeError:
            self._run("dead_letter", worker, "", token, "")
            return None
        times = int(starts) if starts else None
        return Lease(name, schema, payload, token.decode(), times, _text(reason), _text(death))

    def acknowledge(self, worker: str, settled: Sequence[Settled]) -> list[str]:
        try:
            return self._acknowledge(worker, settled) if settled else []
        except REFUSALS as error:
            if len(settled) > 1:
                logger.warning("%s acknowledgements are sent one by one: %s", len(settled), error)
                return [id for one in settled for id in self.acknowledge(worker, [one])]
            self._dead_letter_by_token(worker, settled[0].lease, error)
            return []

    def _acknowledge(self, worker: str, settled: Sequence[Settled]) -> list[str]:
        arguments: list[Any] = [worker, REMEMBER_SECONDS * 1000, protocol.MOST_FUNCTIONS]
        for one in settled:
            ms, waited = round(one.seconds * 1000, 3), None if one.waited is None else round(one.waited * 1000)
            places = bytes(48 + place for place in loads.places_of(ms, waited, failed=one.failed))
            arguments += [one.lease.id, one.lease.token, ms, waited or 0, places]
        return [id.decode() for id in self._run("acknowledge", *arguments)]

    def note_late(self, ids: Sequence[str], *, seconds: float) -> None:
        if ids:
            self._run("note_late", round(seconds * 1000), *ids)

    def may_come(self, ids: Sequence[str]) -> set[str]:
        return {id.decode() for part in _chunks(ids) for id in self._run("may_come", *part)}

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
        """Dead-letter a package whose id the server refuses. The server finds it by the token of its lease.

        If the server refuses that too, the package stays leased until its worker fetches again.
        """
        extra = {"schema": lease.schema, "task_id": lease.id}
        logger.error("Package %s of %s is given up: %s", lease.id, lease.schema, error, exc_info=error, extra=extra)
        try:
            self._run("dead_letter", worker, "", lease.token, f"{type(error).__name__}: {error}")
        except REFUSALS:
            logger.exception("Package %s of %s cannot be given up", lease.id, lease.schema, extra=extra)

    # Leases

    def renew(self, workers: Sequence[str], seconds: float) -> Mapping[str, Mapping[str, str]]:
        if not workers:
            return {}
        held = self._run("renew", round(seconds * 1000), *workers)
        return {worker: _pairs(found) for worker, found in zip(workers, held, strict=True)}

    def reclaim(
        self,
        worker: str,
        *,
        running: str | None,
        give_up_reason: str | None = None,
        charged: bool = True,
        death: str | None = None,
    ) -> int:
        try:
            return int(self._run("reclaim", worker, running or "", give_up_reason or "", int(charged), death or ""))
        except REFUSALS:
            if not running:
                raise
            logger.exception("The package that worker %s was running is not charged for its death", worker)
            return int(self._run("reclaim", worker, "", "", int(charged), death or ""))

    def expire(self) -> int:
        lease = conf().lease
        expired, *broken = self._run("expire", round(outage_seconds(lease) * 1000), round(lease * 1000))
        for one in broken:
            what, _, name = _shown(one).partition(";")
            logger.error("%s in the queue of cluster %r: %s", _BROKEN.get(what, what), self.cluster, visible(name))
        return int(expired)

    # Policies

    def set_policies(self, policies: Mapping[str, Policy], *, complete: bool = False) -> None:
        keys, gone = self._keys_of(policies), self._queues_with_policies() if complete else set()
        for chunk in _chunks(list(policies.items())):
            arguments: list[Any] = [0]
            for schema, one in chunk:
                limits = one.max_running or 0, one.max_queued or 0
                arguments += [schema, keys.get(schema, ""), one.weight, *limits, int(one.paused)]
            gone -= {*self._run("set_policies", *arguments)}
        for names in _chunks(sorted(gone)):
            self._run("set_policies", len(names), *names)

    def _queues_with_policies(self) -> set[bytes]:
        with self._errors:
            found: Any = self.client.hkeys(f"{self.tag}:policy")
        return set(found)

    def policies(self) -> Mapping[str, Policy]:
        return {
            schema.decode(): Policy(float(weight), cap or None, limit or None, bool(paused))
            for schema, weight, cap, limit, paused in self._run("policies")
        }

    # Figures

    def counts(self) -> Counts:
        queued, leased, delayed, dead, paused, unready = self._run("counts")
        return Counts(queued=queued, leased=leased, delayed=delayed, dead=dead, paused=paused, unready=unready)

    def loads(self) -> Mapping[str, Load]:
        found, places, now, before, owners = self._run("loads", loads.PERIODS)
        figures = Ledger(places, now)
        hour = figures.since(before) if before is not None else {}
        own: dict[str, Sequence[int]] = {queue.decode(): counts for queue, *counts in found}
        tenants = {name for name in figures.places if not name.startswith((OF_ALL, FREE))}
        schemas = _schemas(owners)
        by_schema: dict[str, Load] = {}
        for queue in {*own, *tenants}:
            queued, leased, delayed, dead = own.get(queue, NOWHERE)
            load = Load(queued, leased, delayed, dead, hour.get(queue, loads.NOTHING))
            schema = schemas.get(queue, queue)
            by_schema[schema] = by_schema[schema] + load if schema in by_schema else load
        return by_schema

    def totals(self) -> Totals:
        places, now, owners = self._run("totals")
        found, schemas = Ledger(places, now).since(b""), _schemas(owners)
        functions = {name.removeprefix(OF_ALL): one for name, one in found.items() if name.startswith(OF_ALL)}
        tenants: dict[str, Figures] = {}
        for queue in found.keys() - {OF_ALL + name for name in functions}:
            schema = schemas.get(queue, queue)
            tenants[schema] = tenants[schema] + found[queue] if schema in tenants else found[queue]
        return Totals(tenants, functions)

    def name_labels(self, kind: str, names: Sequence[str], *, most: int) -> set[str]:
        return {name.decode() for name in self._run("name_labels", kind, most, *names)}

    def statistics(self) -> Mapping[str, int]:
        with self._errors:
            found: Any = self.client.hgetall(f"{self.tag}:statistics")
        return {name: int(found.get(name.encode(), 0)) for name in ("stale_acks", "expired", "broken")}

    def queue_size(self, schema: str | None = None) -> int:
        if schema is None:
            return self.counts().queued
        return int(self._run("queue_size", *self._owner(schema)))

    # One tenant's packages

    def live(self, schema: str, *, limit: int = 100) -> list[Live]:
        return [_live(*found) for found in self._run("live", *self._owner(schema), limit)]

    def find(self, schema: str, id: str) -> Live | None:
        match self._run("find", *self._owner(schema), id, "whole"):
            case [place, due, reason, _, message] if place != b"dead":
                return _live(id.encode(), place, due, reason, message)
        return None

    def place(self, schema: str, id: str) -> str | None:
        found = self._run("find", *self._owner(schema), id)
        return _text(found[0]) if found else None

    def state(self, schema: str, id: str) -> State | None:
        match self._run("find", *self._owner(schema), id):
            case [place, _, reason, may_run]:
                return state_at(place.decode(), _text(reason), may_run=bool(may_run))
        return None

    def cancel(self, schema: str, id: str, reason: str) -> str | None:
        return _text(self._run("cancel", *self._owner(schema), id, reason, CANCEL_REACH))

    def cancelled(self) -> list[Cancelled]:
        return [Cancelled(*map(_shown, found)) for found in self._run("cancelled")]

    def set_progress(self, told: Mapping[str, tuple[str, Progress]]) -> None:
        arguments = [part for worker, (id, one) in told.items() for part in (worker, id, one.fraction, one.text)]
        try:
            if arguments:
                self._run("set_progress", *arguments)
        except REFUSALS as error:
            if len(told) > 1:
                for worker, one in told.items():
                    self.set_progress({worker: one})
            else:
                logger.warning("The progress of %s is not kept: %s", *(id for id, _ in told.values()), error)

    def get_progress(self, schema: str, id: str) -> Progress | None:
        found = self._run("get_progress", *self._owner(schema), id)
        if found is None:
            return None
        fraction, text = found.decode().split("\n", 1)
        return Progress(float(fraction), text)

    def purge(self) -> None:
        self._run("purge")

    def dead(
        self,
        schema: str | None = None,
        *,
        limit: int = 1000,
        newest_first: bool = False,
        ids: Collection[str] | None = None,
    ) -> list[Dead]:
        if ids is not None and not ids:
            return []
        owner = self._owner(schema) if schema else ("", "")
        if ids is None:
            return list(self._dead(owner, limit, newest_first=newest_first))
        found = [
            one
            for chunk in _chunks([*dict.fromkeys(ids)])
            for one in self._dead(owner, limit, *chunk, newest_first=newest_first)
        ]
        return sorted(found, key=lambda one: (one.died, one.id), reverse=newest_first)[:limit]

    def _dead(self, owner: tuple[str, str], limit: int, *ids: str, newest_first: bool = False) -> Iterator[Dead]:
        first, last, count = 0, b"", 0
        while first >= 0 and count < limit:
            order = "newest" if newest_first else "oldest"
            first, last, *rows = self._run("list_dead", *owner, limit - count, order, first, last, *ids)
            count += len(rows)
            for id, name, func, died, cause, payload in rows:
                at = float(died) / 1000
                yield Dead(_shown(id), _shown(name), _shown(func), at, _shown(cause), _shown(payload))

    def retry_dead(self, ids_and_payloads: Mapping[str, str]) -> int:
        chunks = _chunks(list(ids_and_payloads.items()))
        return sum(int(self._run("retry_dead", *(part for pair in chunk for part in pair))) for chunk in chunks)

    def purge_dead(self, ids: Sequence[str]) -> int:
        return sum(int(self._run("purge_dead", *chunk)) for chunk in _chunks(ids))

    def close(self) -> None:
        """Everything is in Redis already."""

    # Groups

    # Groups are the site's: their tasks may have run in several of its clusters.

    def add_parts(
        self, schema: str, group: str, parts: Mapping[str, str], *, seconds: int | None, tenant: str | None = None
    ) -> int:
        owner, count = self._owner(schema, tenant), 0
        for portion in _portions(parts):
            count = int(self._run("add_parts", *owner, group, seconds or 0, *portion, tag=self._site_tag))
        return count

    def parts(
        self, schema: str, group: str, *, tenant: str | None = None, most_bytes: int | None = None
    ) -> Mapping[str, str]:
        found = self._group(schema, group, "parts", tenant, most_bytes or 0)
        if isinstance(found, int):
            raise GroupTooLarge(found)
        return {index.decode(): payload.decode() for index, payload in zip(found[::2], found[1::2], strict=True)}

    def count_parts(self, schema: str, group: str) -> int:
        return int(self._group(schema, group, "count"))

    def drop_group(self, schema: str, group: str, *, tenant: str | None = None) -> int:
        return int(self._group(schema, group, "drop", tenant))

    def _group(self, schema: str, group: str, act: str, tenant: str | None = None, most_bytes: int = 0) -> Any:
        return self._run("group", *self._owner(schema, tenant), group, act, most_bytes, tag=self._site_tag)

    # The life of a tenant

    def note_cached(self, schema: str, id: str, *, seconds: int | None, tenant: str | None = None) -> None:
        self._run("keep", *self._owner(schema, tenant), f"{_RESULT}{id}", seconds or 0, tag=self._site_tag)

    def cached_ids(self, schema: str, tenant: str) -> list[str]:
        return [what.removeprefix(_RESULT) for what in self._kept(schema, tenant) if what.startswith(_RESULT)]

    def forget_cached(self, schema: str, tenant: str, ids: Sequence[str]) -> None:
        if ids:
            self._run("forget_kept", schema, tenant, *(f"{_RESULT}{id}" for id in ids), tag=self._site_tag)

    def _kept(self, schema: str, tenant: str) -> list[str]:
        return [what.decode() for what in self._run("kept", schema, tenant, tag=self._site_tag)]

    def forget_tenant(self, schema: str, tenant: str, reason: str, *, seconds: float) -> int:
        milliseconds = round(seconds * 1000)
        arguments = schema, tenant, reason, CHUNK, milliseconds
        forgotten, held, queue = self._run("forget_tenant", *arguments)
        while forgotten:
            forgotten, held, queue = self._run("forget_tenant", *arguments)
        while dead := list(self._dead((schema, tenant), CHUNK)):
            self.purge_dead([one.id for one in dead])
        self._forget_costs(queue.decode())
        groups = [what.removeprefix(_GROUP) for what in self._kept(schema, tenant) if what.startswith(_GROUP)]
        for group in groups:
            self.drop_group(schema, group, tenant=tenant)
        for tag in {self.tag, self._site_tag}:
            self._run("release_queue", tenant, schema, loads.PERIODS + 2, milliseconds, tag=tag)
        return int(held)

    def _forget_costs(self, queue: str) -> None:
        pattern = "".join(f"\\{char}" if char in "*?[]\\^" else char for char in queue) + ";*"
        with self._errors:
            fields = [field for field, _ in self.client.hscan_iter(f"{self.tag}:costs", match=pattern, count=1000)]
            for first in range(0, len(fields), CHUNK):
                self.client.hdel(f"{self.tag}:costs", *fields[first : first + CHUNK])

    def rename_tenant(self, tenant: str, old: str, new: str) -> None:
        for tag in {self.tag, self._site_tag}:
            self._run("rename_queue", tenant, old, new, tag=tag)

    # Status of clusters; shared by all clusters of a site

    def set_stat(self, key: str, value: str, seconds: int) -> None:
        with self._errors:
            pipe = self.client.pipeline(transaction=False)
            pipe.set(self._stat(key), value, ex=seconds)
            pipe.hset(self._last_stats, key, value)
            pipe.execute()

    def get_stat(self, key: str) -> Any:
        with self._errors:
            found = self.client.get(self._stat(key))
        return self._stats_of_before([key])[0] if found is None else found

    def get_stats(self, pattern: str) -> list[Any]:
        with self._errors:
            keys: Any = self.client.hkeys(self._last_stats)
            pipe = self.client.pipeline(transaction=False)
            for key in sorted(keys):
                pipe.get(self._stat(_shown(key)))
            values: list[Any] = pipe.execute()
        found = dict(zip(sorted(keys), values, strict=True))
        missing = [key for key, value in found.items() if value is None]
        found |= dict(zip(missing, self._stats_of_before(missing), strict=True))
        return [value for value in found.values() if value is not None]

    def _stats_of_before(self, keys: Sequence[str | bytes]) -> list[Any]:
        """Return the status that clusters of an earlier version published, under keys without the site's tag.

        A value is None if there is none, or if the server refuses the key: it may be on another node, or not permitted.
        """
        if not keys:
            return []
        pipe = self.client.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        with self._errors:
            values: list[Any] = pipe.execute(raise_on_error=False)
        return [None if isinstance(value, Exception) else value for value in values]

    def _stat(self, key: str) -> str:
        """Return the key of a cluster's status, under the site's tag."""
        return f"{self._site_tag}:{key}"

    def last_stats(self) -> list[Any]:
        with self._errors:
            found: Any = self.client.hgetall(self._last_stats)
        return [found[key] for key in sorted(found)]

    def forget_stats(self, keys: Sequence[str]) -> None:
        if keys:
            with self._errors:
                self.client.hdel(self._last_stats, *keys)

    # Clusters that the settings do not name; shared by all clusters of a site

    def note_stray(self) -> None:
        """Remember for a month that a task was enqueued for this cluster. Raises `BrokerError`."""
        with self._errors:
            count: Any = self.client.scard(self._strays)
            if count >= MOST_STRAYS:
                return
            pipe = self.client.pipeline(transaction=False)
            pipe.sadd(self._strays, self.cluster)
            pipe.expire(self._strays, STRAY_SECONDS)
            pipe.execute()

    def strays(self) -> list[str]:
        """Return some names of such clusters; their queues may be empty by now. Raises `BrokerError`."""
        with self._errors:
            found: Any = self.client.srandmember(self._strays, STRAYS_LOOKED_AT)
        return sorted(name.decode() for name in found)

    def forget_strays(self, names: Sequence[str]) -> None:
        """Forget names of such clusters. Raises `BrokerError`."""
        if names:
            with self._errors:
                self.client.srem(self._strays, *names)

    @property
    def _strays(self) -> str:
        return f"{self._site_tag}:strays"

    @property
    def _last_stats(self) -> str:
        return f"{self._site_tag}:status"

    @property
    def _site_tag(self) -> str:
        return f"{{tq:{conf().site}{self._suffix}}}"

    # Plumbing

    def _owner(self, schema: str, tenant: str | None = None) -> tuple[str, str]:
        """How a script is given a tenant: its schema's name and its key."""
        return schema, self._keys_of([schema]).get(schema, "") if tenant is None else tenant

    def _run(self, name: str, *arguments: Any, tag: str | None = None) -> Any:
        return self._scripts.run(name, *arguments, tag=tag)

    @property
    def _errors(self) -> AbstractContextManager[None]:
        return self._scripts.errors


def _chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (items[first : first + CHUNK] for first in range(0, len(items), CHUNK))


def _portions(parts: Mapping[str, str]) -> Iterator[list[str]]:
    """Return index and payload of each part, in lists of about `BATCH_BYTES` bytes each."""
    portion: list[str] = []
    size = 0
    for index, payload in parts.items():
        if portion and size + len(payload) > BATCH_BYTES:
            yield portion
            portion, size = [], 0
        portion += index, payload
        size += len(payload)
    if portion:
        yield portion


def _schemas(owners: Sequence[bytes]) -> dict[str, str]:
    """The schemas of queues, by the queues' names, from a hash of their owners."""
    pairs = zip(owners[::2], owners[1::2], strict=True)
    return {queue.decode(): owner.decode().partition("\n")[2] for queue, owner in pairs}


def _pairs(found: Sequence[bytes]) -> dict[str, str]:
    return {_shown(name): _shown(value) for name, value in zip(found[::2], found[1::2], strict=True)}


def _text(found: bytes) -> str | None:
    return found.decode() or None


def _shown(text: bytes) -> str:
    return text.decode(errors="replace")


def _live(id: bytes, place: bytes, due: bytes, reason: bytes, message: bytes) -> Live:
    schema, func, _, payload = _shown(message).split("\n", 3)
    return Live(_shown(id), schema, func, place.decode(), float(due) / 1000 if due else None, payload, _text(reason))


def _queue_full(messages: Sequence[Message], limit: int, waiting: int) -> QueueFull:
    schema, count = messages[0].schema, len(messages)
    return QueueFull(
        f"{count} more cannot be enqueued for {schema}: {waiting} tasks wait, and its max_queued is {limit}; "
        f"try again later, or raise it with `python manage.py mstenant limit {schema} --max-queued N`."
    )
