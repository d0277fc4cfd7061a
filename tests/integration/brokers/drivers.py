"""The two brokers with leases, each with a driver that lets time pass for it, and the steps that tests repeat.

Nothing waits.
"""

from __future__ import annotations

import copy
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tenant_q.brokers.days import PART_PERIODS
from tenant_q.brokers.loads import PERIOD_SECONDS
from tenant_q.brokers.protocol import Broker, Lease, Message, Settled
from tenant_q.brokers.redis import RedisBroker
from tenant_q.conf import conf
from tenant_q.testing.memory_broker import MemoryBroker

# How time passes for a broker, by its cluster's name.
CLOCKS: dict[str, Callable[[float], None]] = {}


class InMemory:
    """The specification, with a clock that stands still."""

    def __init__(self) -> None:
        self.now = 1e9
        self.broker = MemoryBroker(f"c{uuid.uuid4().hex[:8]}", lambda: self.now)
        self.prefix = "stat"
        CLOCKS[self.broker.cluster] = self.advance

    def advance(self, seconds: float) -> None:
        self.now += seconds

    advance_kept = advance

    def advance_figures(self, periods: int) -> None:
        self.now += periods * PERIOD_SECONDS

    def snapshot(self) -> Any:
        return copy.deepcopy({name: value for name, value in vars(self.broker).items() if name not in self.OWN})

    def restore(self, snapshot: Any) -> None:
        vars(self.broker).update(copy.deepcopy(snapshot))

    OWN = ("cluster", "clock", "keys_of")

    def end(self) -> None:
        del CLOCKS[self.broker.cluster]


class OnRedis:
    """A real server. Its time cannot be set, so what it keeps gets older instead."""

    AGE = """
        for _, name in ipairs({ 'leases', 'delayed', 'due', 'known', 'late', 'dead', 'rate_due' }) do
          for _, id in ipairs(redis.call('ZRANGE', KEYS[1] .. ':' .. name, 0, -1)) do
            redis.call('ZINCRBY', KEYS[1] .. ':' .. name, -ARGV[1], id)
          end
        end
        for _, id in ipairs(redis.call('ZRANGE', KEYS[1] .. ':delayed', 0, -1)) do
          local message = redis.call('HGET', KEYS[1] .. ':messages', id)
          local own = KEYS[1] .. ':delayed:' .. string.match(message, '^[^\\n]*')
          redis.call('ZINCRBY', own, -ARGV[1], id)
        end
        for _, field in ipairs(redis.call('HKEYS', KEYS[1] .. ':waited')) do
          redis.call('HINCRBY', KEYS[1] .. ':waited', field, -ARGV[1])
        end
        for i = 2, #KEYS do
          redis.call('HINCRBYFLOAT', KEYS[i], 'next', -ARGV[1])
        end
        if redis.call('EXISTS', KEYS[1] .. ':expired') == 1 then
          redis.call('DECRBY', KEYS[1] .. ':expired', ARGV[1])
        end
        """

    def __init__(self) -> None:
        self.broker = RedisBroker(f"c{uuid.uuid4().hex[:8]}")
        self.client: Any = self.broker.client
        self.age = self.client.register_script(self.AGE)
        self.prefix = f"{self.broker.tag}:stat"
        CLOCKS[self.broker.cluster] = self.advance

    def advance(self, seconds: float) -> None:
        rates = list(self.client.scan_iter(self.key("rate:*")))
        self.age(keys=[self.broker.tag, *rates], args=[round(seconds * 1000)])

    def advance_kept(self, seconds: float) -> None:
        """What Redis itself forgets after a time: groups and status."""
        for name in self.client.scan_iter(f"{self.broker.tag}*"):
            left = self.client.pttl(name)
            if left >= 0:
                self.client.pexpire(name, max(1, left - round(seconds * 1000)))

    def advance_figures(self, periods: int) -> None:
        """Move every figure into a period that is `periods` earlier."""
        # A SCAN may return a key that was renamed meanwhile; it would move twice. The oldest first, to make room.
        for name in sorted(self.client.scan_iter(self.key("figures:*"))):
            head, _, period = name.decode().rpartition(":")
            self.client.rename(name, f"{head}:{int(period) - periods}")
        self._advance_day(periods)

    def _advance_day(self, periods: int) -> None:
        """Move the day into the past, and forget what has expired by then."""
        if self.client.exists(self.key("day_recorded")):
            self.client.decrby(self.key("day_recorded"), periods)
        for name in self.client.scan_iter(self.key("day*")):
            if (left := self.client.pttl(name)) >= 0:
                self.client.pexpire(name, max(1, left - 1000 * periods * PERIOD_SECONDS))
        time.sleep(0.002)
        for name in [name for kind in ("day", "day:*") for name in self.client.scan_iter(self.key(kind))]:
            for at, element in enumerate(self.client.lrange(name, 0, -1)):
                number = int.from_bytes(element[:3]) - periods
                self.client.lset(name, at, number.to_bytes(3) + element[3:])
        now = int(self.client.time()[0]) // PERIOD_SECONDS
        parts = now // PART_PERIODS - (now - periods) // PART_PERIODS
        for name in sorted(self.client.scan_iter(self.key("day_*:*"))):
            head, then, tail = re.fullmatch(r"(.+:)(\d+)(;.+)?", name.decode()).groups()
            if less := periods if "day_busy" in head else parts:
                self.client.rename(name, f"{head}{int(then) - less}{tail or ''}")

    def snapshot(self) -> dict[bytes, bytes]:
        """What a replica has at this moment."""
        return {name: self.client.dump(name) for name in self.client.scan_iter(f"{self.broker.tag}*")}

    def restore(self, snapshot: dict[bytes, bytes]) -> None:
        """The replica takes over: what was written since is gone."""
        self.clear()
        for name, value in snapshot.items():
            self.client.restore(name, 0, value)

    def end(self) -> None:
        del CLOCKS[self.broker.cluster]
        self.clear()

    def clear(self) -> None:
        for name in self.client.scan_iter(f"{self.broker.tag}*"):
            self.client.delete(name)

    def key(self, name: str) -> str:
        return f"{self.broker.tag}:{name}"

    def key_names(self) -> set[str]:
        return {name.decode().removeprefix(f"{self.broker.tag}:") for name in self.client.scan_iter(self.key("*"))}

    def read(self, schemas: list[str], workers: list[str]) -> dict[str, Any]:
        """All keys, decoded, in one round trip. Times are in seconds."""
        pipe = self.client.pipeline(transaction=False)
        hashes = ("messages", "vtime", "causes", "starts", "verdicts", "unique", "unique_of", "lanes", "laned")
        scores = ("leases", "delayed", "dead", "ready", "rate_due")
        lanes = sorted(name for name in self.key_names() if name.startswith(("lane:", "turns:", "parked:")))
        for name in hashes:
            pipe.hgetall(self.key(name))
        for name in scores:
            pipe.zrange(self.key(name), 0, -1, withscores=True)
        for schema in schemas:
            pipe.lrange(self.key(f"queue:{schema}"), 0, -1)
            pipe.hgetall(self.key(f"running:{schema}"))
            pipe.zrange(self.key(f"delayed:{schema}"), 0, -1)
            pipe.zrange(self.key(f"open:{schema}"), 0, -1)
        for worker in workers:
            pipe.zrange(self.key(f"held:{worker}"), 0, -1)
        for name in lanes:
            own = self.key(name)
            {"lane": pipe.lrange, "turns": pipe.zrange, "parked": lambda key, *_: pipe.smembers(key)}[
                name.partition(":")[0]
            ](own, 0, -1)
        pipe.hkeys(self.key("leased")).smembers(self.key("alone")).smembers(self.key("unready"))
        pipe.get(self.key("ring")).llen(self.key("wake")).time()
        found = iter(pipe.execute())
        read: dict[str, Any] = {name: _texts(next(found)) for name in hashes}
        for name in scores:
            unit = 1 if name == "ready" else 1000
            read[name] = {id.decode(): score / unit for id, score in next(found)}
        read |= {"queue": {}, "running": {}, "delayed_of": {}, "open": {}, "lane": {}, "turns": {}, "parked": {}}
        for schema in schemas:
            read["queue"][schema] = _texts(next(found))
            read["running"][schema] = _texts(next(found))
            read["delayed_of"][schema] = _texts(next(found))
            read["open"][schema] = _texts(next(found))
        read["held"] = {worker: _texts(next(found)) for worker in workers}
        for name in lanes:
            kind, _, own = name.partition(":")
            texts = _texts(list(next(found)))
            read[kind][own] = set(texts) if kind == "parked" else texts
        read |= {name: set(_texts(list(next(found)))) for name in ("leased", "alone", "unready")}
        read |= {"ring": float(next(found) or 0), "wake": next(found)}
        seconds, micros = next(found)
        return read | {"now": seconds + micros / 1e6}


def _texts(found: Any) -> Any:
    if isinstance(found, dict):
        return {name.decode(): value.decode() for name, value in found.items()}
    return [value.decode() for value in found]


Driver = InMemory | OnRedis


# Steps


def put(broker: Broker, *ids: str, schema: str = "acme_corp", limited: bool = False, **fields: Any) -> int:
    messages = [
        Message(**({"id": id, "schema": schema, "func": "f", "payload": f"payload of {id}"} | fields)) for id in ids
    ]
    return broker.enqueue(messages, limited=limited)


def know(broker: Broker, ms: float, *schemas: str, func: str = "f") -> None:
    """Have the broker learn a function's run time, as it does by an acknowledgement."""
    for schema in schemas or ("acme_corp",):
        put(broker, f"learn {schema} {func}", schema=schema, func=func)
        finish(broker, fetch_one(broker, "learner"), seconds=ms / 1000, worker="learner")


def pass_time(broker: Broker, seconds: float) -> None:
    """Let a task run so long."""
    CLOCKS[broker.cluster](seconds)


def finish(broker: Broker, *leases: Lease, seconds: float = 0.001, worker: str = "w1") -> list[str]:
    """Acknowledge packages that ran so long, one after the other."""
    pass_time(broker, len(leases) * seconds)
    return broker.acknowledge(worker, [Settled(lease, seconds) for lease in leases])


def fetch(broker: Broker, worker: str = "w1", **limits: Any) -> list[str]:
    return [lease.id for lease in broker.fetch(worker, **limits).leases]


def fetch_one(broker: Broker, worker: str = "w1") -> Lease:
    (lease,) = broker.fetch(worker, limit=1).leases
    return lease


def run_out(driver: Driver, but: Sequence[str] = ()) -> int:
    """A lease's time passes, and somebody looks all along: nobody was away. `but` are the workers that live."""
    given = driver.broker.expire()
    for _ in range(4):
        driver.advance(conf().lease / 3)
        driver.broker.renew(but, conf().lease)
        given += driver.broker.expire()
    return given


def run_one(broker: Broker, seconds: Mapping[str, float], worker: str = "w1") -> str:
    """Run one package, for as long as its tenant's take. Returns the tenant."""
    lease = fetch_one(broker, worker)
    finish(broker, lease, seconds=seconds[lease.schema], worker=worker)
    return lease.schema


SECONDS = {"acme_corp": 0.01, "globex_inc": 0.01, "initech_llc": 0.01}
