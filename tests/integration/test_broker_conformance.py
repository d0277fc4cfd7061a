"""What every broker with leases does: one suite, for the specification (`MemoryBroker`) and for Redis.

A driver lets time pass for a broker. Nothing waits.
"""

from __future__ import annotations

import copy
import inspect
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tenant_q.brokers.loads import BOUNDS, PERIOD_SECONDS, Figures, Load, quantile
from tenant_q.brokers.protocol import (
    BATCH_LIMIT,
    CANCEL_REACH,
    MOST_DEBT_SECONDS,
    SMALL_BATCH,
    Batch,
    Broker,
    Cancelled,
    Counts,
    Lease,
    Live,
    Message,
    Policy,
    Settled,
)
from tenant_q.brokers.redis import RedisBroker
from tenant_q.conf import conf
from tenant_q.exceptions import QueueFull
from tenant_q.states import Progress, State
from tests.conftest import wait_until
from tests.memory_broker import MemoryBroker

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
        for _, name in ipairs({ 'leases', 'delayed', 'due', 'known', 'late', 'dead' }) do
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
        self.age(keys=[self.broker.tag], args=[round(seconds * 1000)])

    def advance_kept(self, seconds: float) -> None:
        """What Redis itself forgets after a time: groups and status."""
        for name in self.client.scan_iter(f"{self.broker.tag}*"):
            left = self.client.pttl(name)
            if left >= 0:
                self.client.pexpire(name, max(1, left - round(seconds * 1000)))

    def advance_figures(self, periods: int) -> None:
        """What was kept of the figures in a period was kept so many earlier."""
        for name in self.client.scan_iter(self.key("figures:*")):
            head, _, period = name.decode().rpartition(":")
            self.client.rename(name, f"{head}:{int(period) - periods}")

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
        hashes = ("messages", "vtime", "causes", "starts", "verdicts")
        scores = ("leases", "delayed", "dead", "ready")
        for name in hashes:
            pipe.hgetall(self.key(name))
        for name in scores:
            pipe.zrange(self.key(name), 0, -1, withscores=True)
        for schema in schemas:
            pipe.lrange(self.key(f"queue:{schema}"), 0, -1)
            pipe.hgetall(self.key(f"running:{schema}"))
            pipe.zrange(self.key(f"delayed:{schema}"), 0, -1)
        for worker in workers:
            pipe.zrange(self.key(f"held:{worker}"), 0, -1)
        pipe.hkeys(self.key("leased")).smembers(self.key("alone")).smembers(self.key("unready"))
        pipe.get(self.key("ring")).llen(self.key("wake")).time()
        found = iter(pipe.execute())
        read: dict[str, Any] = {name: _texts(next(found)) for name in hashes}
        for name in scores:
            unit = 1 if name == "ready" else 1000
            read[name] = {id.decode(): score / unit for id, score in next(found)}
        read |= {"queue": {}, "running": {}, "delayed_of": {}}
        for schema in schemas:
            read["queue"][schema] = _texts(next(found))
            read["running"][schema] = _texts(next(found))
            read["delayed_of"][schema] = _texts(next(found))
        read["held"] = {worker: _texts(next(found)) for worker in workers}
        read |= {name: set(_texts(list(next(found)))) for name in ("leased", "alone", "unready")}
        read |= {"ring": float(next(found) or 0), "wake": next(found)}
        seconds, micros = next(found)
        return read | {"now": seconds + micros / 1e6}


def _texts(found: Any) -> Any:
    if isinstance(found, dict):
        return {name.decode(): value.decode() for name, value in found.items()}
    return [value.decode() for value in found]


Driver = InMemory | OnRedis


@pytest.fixture(params=[InMemory, OnRedis])
def driver(request: Any, settings: Any) -> Iterator[Driver]:
    """A broker with queues of its own. Its site is its own too: that is where groups and status are."""
    driver = request.param()
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"name": driver.broker.cluster}
    yield driver
    driver.end()


@pytest.fixture
def broker(driver: Driver) -> Broker:
    return driver.broker


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


# The whole of it


@pytest.mark.parametrize("made", [MemoryBroker, RedisBroker])
def test_every_method_of_the_protocol_is_there(made):
    for name, method in inspect.getmembers(Broker, inspect.isfunction):
        if not name.startswith("_"):
            found = inspect.signature(getattr(made, name)).parameters
            assert list(found) == list(inspect.signature(method).parameters), name
            assert [one.kind for one in found.values()] == [
                one.kind for one in inspect.signature(method).parameters.values()
            ]


def test_the_server(broker):
    broker.ping()
    assert broker.info()
    assert broker.warnings() == []
    broker.close()


# Enqueueing


def test_a_package_comes_as_it_was_enqueued(broker):
    assert put(broker, "a", payload="line\nline\n\nä:b") == 1
    lease = fetch_one(broker)
    assert (lease.id, lease.schema, lease.payload) == ("a", "acme_corp", "line\nline\n\nä:b")
    assert (lease.starts, lease.give_up_reason, lease.is_redelivered) == (None, None, False)


def test_nothing_is_enqueued(broker):
    assert broker.enqueue([]) == broker.enqueue([], limited=True) == 0
    assert broker.counts() == Counts(0, 0, 0, 0)


def test_more_than_one_round_trip(broker):
    assert put(broker, *(f"{n:04}" for n in range(2500))) == 2500
    assert broker.queue_size("acme_corp") == 2500


@pytest.mark.parametrize("place", ["queued", "leased", "delayed", "dead"])
@pytest.mark.parametrize("once", [True, False])
def test_a_known_id_is_not_enqueued_again(broker, place, once):
    put(broker, "a", once=once, delay=60 if place == "delayed" else 0)
    if place in ("leased", "dead"):
        lease = fetch_one(broker)
        if place == "dead":
            broker.dead_letter("w1", lease, "a test")
    assert put(broker, "a", "b", "b", once=once, payload="other") == 1, "only b, and b once"
    assert put(broker, "a", schema="globex_inc") == 0, "whosever it is"
    assert getattr(broker.counts(), place) == 1 + (place == "queued")


def test_an_acknowledged_deterministic_id_stays_known_for_a_day(driver, broker):
    put(broker, "a", "b", once=True)
    finish(broker, fetch_one(broker))
    assert put(broker, "a", once=True) == 0
    assert put(broker, "a") == 1, "one that is not deterministic is another package"
    driver.advance(24 * 3600 + 1)
    finish(broker, fetch_one(broker))
    finish(broker, fetch_one(broker))
    assert put(broker, "a", "b", once=True) == 1, "b was acknowledged now"


def test_what_follows_a_package_is_known_as_long_as_that_is_there(driver, broker):
    """However long that is put off, dead or in a paused tenant's queue: its link is enqueued once."""
    put(broker, "first", "other")
    first = fetch_one(broker)
    assert put(broker, "link", once=True, follows="first") == 1
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    broker.dead_letter("w1", first, "a test")
    for _ in range(2):
        driver.advance(24 * 3600 + 1)
        put(broker, "another")
        finish(broker, fetch_one(broker))
    assert put(broker, "link", once=True) == 1, "by itself it is forgotten"
    finish(broker, fetch_one(broker))
    driver.advance(24 * 3600 + 1)
    broker.retry_dead({"first": ""})
    first = fetch_one(broker)
    assert put(broker, "link", once=True, follows="first") == 0
    assert put(broker, "another link", once=True, follows="gone") == 1, "nothing is kept of what is not there"
    finish(broker, first)
    finish(broker, fetch_one(broker))
    driver.advance(24 * 3600 + 1)
    put(broker, "another")
    finish(broker, fetch_one(broker))
    assert put(broker, "link", once=True, follows="first") == 1
    finish(broker, fetch_one(broker))


def test_what_follows_is_noted_though_it_is_known(driver, broker):
    """An earlier version enqueued it, or another worker did the moment before."""
    put(broker, "first")
    first = fetch_one(broker)
    put(broker, "link", once=True)
    assert put(broker, "link", once=True, follows="first") == 0
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    driver.advance(24 * 3600 + 1)
    put(broker, "another")
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    assert put(broker, "link", once=True, follows="first") == 0
    finish(broker, first)


def test_any_other_id_does_not(broker):
    put(broker, "a")
    finish(broker, fetch_one(broker))
    assert put(broker, "a") == put(broker, "b", once=True) == 1


@pytest.mark.parametrize("waits", ["queued", "delayed"])
def test_no_more_may_wait_than_the_policy_says(broker, waits):
    broker.set_policies({"acme_corp": Policy(max_queued=3)})
    delay = 60 if waits == "delayed" else 0
    assert put(broker, "a", "b", limited=True, delay=delay) == 2
    with pytest.raises(QueueFull, match=r"acme_corp.* 2 .*wait, .*max_queued is 3"):
        put(broker, "c", "d", limited=True)
    assert broker.counts().open == 2, "neither"
    assert put(broker, "c", limited=True) == 1
    assert put(broker, "b", "c", limited=True) == 0, "they have their room: an answer got lost, say"
    with pytest.raises(QueueFull):
        put(broker, "c", "d", limited=True)
    assert put(broker, "d", "e") == 2, "what a task or a schedule enqueues does not count"
    assert put(broker, "f", schema="globex_inc", limited=True) == 1
    if waits == "queued":
        broker.purge()
        put(broker, "a", "b", "c", limited=True)
        fetch_one(broker)
        assert put(broker, "d", limited=True) == 1, "what is leased does not wait"


# Fetching


def test_first_in_first_out(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    put(broker, *"de")
    assert fetch(broker) == list("abcde")


def test_the_limits_of_a_batch(broker):
    know(broker, 0.1)
    put(broker, *(f"{n:04}" for n in range(1200)))
    assert len(fetch(broker, "w1")) == BATCH_LIMIT
    assert len(fetch(broker, "w2")) == 236, "a quarter of what is queued"
    assert len(fetch(broker, "w3", limit=3)) == 3


def test_a_burst_is_shared_by_the_workers(broker):
    know(broker, 0.1)
    put(broker, *(f"{n:03}" for n in range(150)), delay=60)
    put(broker, *(f"{n:03}" for n in range(200, 350)))
    assert [len(fetch(broker, f"w{n}")) for n in range(3)] == [SMALL_BATCH, SMALL_BATCH, 150 - 2 * SMALL_BATCH]


def test_a_batch_holds_a_budget_of_expected_work(broker):
    know(broker, 10)
    put(broker, *"abcdefgh")
    assert fetch(broker, "w1") == list("abcde"), "five times 10 ms"
    assert fetch(broker, "w2", seconds=0.02) == list("fg")


def test_slices_of_the_tenants_whose_turn_it_is(broker):
    """A slice is a quarter of the batch's 50 ms."""
    know(broker, 2.5, "acme_corp", "globex_inc")
    for n in range(30):
        put(broker, f"a{n:02}")
        put(broker, f"g{n:02}", schema="globex_inc")
    taken = "".join(id[0] for id in fetch(broker))
    assert taken == "aaaaagggggaaaaaggggg"


def test_short_packages_share_a_slice(broker):
    know(broker, 0.125, "acme_corp", "globex_inc")
    for n in range(40):
        put(broker, f"a{n:02}")
        put(broker, f"g{n:02}", schema="globex_inc")
    assert "".join(id[0] for id in fetch(broker)) == "a" * 40 + "g" * 24


def test_what_is_unknown_or_long_comes_alone(broker):
    put(broker, "a", "b")
    assert fetch(broker, "w1") == ["a"]
    assert fetch(broker, "w2") == ["b"]
    know(broker, 50, func="long")
    know(broker, 1, func="short")
    put(broker, "c", "d", func="short")
    put(broker, "e", func="long")
    put(broker, "f", func="short")
    assert [fetch(broker, f"w{n}") for n in (3, 4, 5)] == [["c", "d"], ["e"], ["f"]]


def test_run_times_are_known_by_tenant(broker):
    know(broker, 1, "acme_corp")
    know(broker, 80, "globex_inc")
    put(broker, "a", "b", schema="globex_inc")
    assert fetch(broker) == ["a"], "what is short for one may be long for another"


@pytest.mark.parametrize(
    ("ms", "taken"),
    [(0.125, "g" * 34 + "i" * 30), (2, "gggiiiggg"), (16, "gi"), (20, "g")],
    ids=str,
)
def test_what_is_new_to_a_tenant_is_taken_for_three_times_as_long(broker, ms, taken):
    """It may be longer for this one; others are not to wait for a batch of it. A slice is a quarter of 50 ms."""
    know(broker, ms, "acme_corp")
    for n in range(40):
        put(broker, f"g{n:02}", schema="globex_inc")
        put(broker, f"i{n:02}", schema="initech_llc")
    assert "".join(id[0] for id in fetch(broker)) == taken


def test_what_is_new_to_a_tenant_is_judged_by_what_it_took_all_others(broker):
    know(broker, 8, "acme_corp")
    know(broker, 16, "globex_inc")
    for n, schema in enumerate(("initech_llc", "umbrella_co", "vandelay_co", "hooli_xyz")):
        put(broker, str(n), schema=schema)
    assert len(fetch(broker, seconds=0.06)) == 3, "27 ms each: three times 9"


def test_one_slow_run_changes_an_estimate_by_an_eighth(broker):
    know(broker, 8)
    know(broker, 80)
    put(broker, *"abcd")
    assert fetch(broker, seconds=0.034) == ["a", "b"], "17 ms each"


def test_what_was_given_up_without_a_run_teaches_nothing(broker):
    know(broker, 40)
    for _ in range(20):
        put(broker, "cancelled")
        finish(broker, fetch_one(broker), seconds=0.0)
    put(broker, "a", "b", "c")
    assert fetch(broker) == ["a", "b"], "40 ms each, as it was learned"


def test_nothing_to_fetch(broker):
    assert broker.fetch("w1") == Batch()


def test_the_answer_of_a_fetch_gets_lost(broker):
    """The worker fetches again, and gets the same packages, in their order."""
    know(broker, 0.1)
    put(broker, *"abcd")
    lost = broker.fetch("w1", limit=3).leases
    again = broker.fetch("w1").leases
    assert [lease.id for lease in again] == list("abcd")
    assert not any(lease.is_redelivered for lease in again)
    assert finish(broker, lost[0]) == ["a"], "a token of the lost answer fits no more"
    assert finish(broker, *again) == []


# Fairness


def test_tenants_take_turns(broker):
    know(broker, 10, *SECONDS)
    put(broker, *(f"a{n}" for n in range(30)))
    for schema in ("globex_inc", "initech_llc"):
        put(broker, *(f"{schema}{n}" for n in range(3)), schema=schema)
    turns = [run_one(broker, SECONDS) for _ in range(9)]
    assert turns == ["acme_corp", "globex_inc", "initech_llc"] * 3, "of equals the first by name"


def test_tenants_share_worker_seconds(broker):
    know(broker, 30, "acme_corp")
    know(broker, 10, "globex_inc")
    for n in range(40):
        put(broker, f"a{n}")
        put(broker, f"g{n}", schema="globex_inc")
    turns = Counter(run_one(broker, {"acme_corp": 0.03, "globex_inc": 0.01}) for _ in range(40))
    assert turns["globex_inc"] == pytest.approx(30, abs=2)


@pytest.mark.parametrize("when", ["before", "on the backlog"])
def test_a_tenant_of_three_times_the_weight(broker, when):
    know(broker, 10, "acme_corp", "globex_inc")
    if when == "before":
        broker.set_policies({"acme_corp": Policy(weight=3)})
    for n in range(40):
        put(broker, f"a{n}")
        put(broker, f"g{n}", schema="globex_inc")
    broker.set_policies({"acme_corp": Policy(weight=3)})
    turns = Counter(run_one(broker, SECONDS) for _ in range(40))
    assert turns["acme_corp"] == pytest.approx(30, abs=2)


def test_what_was_expected_is_settled_by_what_was_used(broker):
    know(broker, 1, "acme_corp", "globex_inc")
    for n in range(20):
        put(broker, f"a{n}")
        put(broker, f"g{n}", schema="globex_inc")
    turns = Counter(run_one(broker, {"acme_corp": 0.1, "globex_inc": 0.01}) for _ in range(11))
    assert turns["acme_corp"] <= 2


def test_what_is_put_off_is_charged_what_it_used(broker):
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(4)))
    put(broker, *(f"g{n}" for n in range(9)), schema="globex_inc")
    lease = fetch_one(broker)
    assert lease.schema == "acme_corp"
    pass_time(broker, 0.045)
    broker.put_off("w1", lease, delay=60, seconds=0.045)
    # Both have used as much before; acme 45 ms more, and the ring is where it started.
    assert [run_one(broker, SECONDS) for _ in range(6)] == ["globex_inc"] * 5 + ["acme_corp"]


@pytest.mark.parametrize("how", ["give_back", "reclaim", "dead_letter", "expire"])
def test_what_was_not_run_is_not_charged(driver, broker, how):
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(6)))
    put(broker, *(f"g{n}" for n in range(6)), schema="globex_inc")
    lease = fetch_one(broker)
    if how == "give_back":
        broker.give_back("w1", [lease])
    elif how == "reclaim":
        broker.reclaim("w1", running=lease.id)
    elif how == "dead_letter":
        broker.dead_letter("w1", lease, "c")
    else:
        run_out(driver)
    assert fetch_one(broker).schema == "acme_corp", "it is still its turn"


def test_idleness_is_no_credit(broker):
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(60)))
    for _ in range(40):
        run_one(broker, SECONDS)
    put(broker, *(f"g{n}" for n in range(20)), schema="globex_inc")
    turns = Counter(run_one(broker, SECONDS) for _ in range(10))
    assert turns["acme_corp"] == pytest.approx(5, abs=1), "globex does not get the 400 ms that it was idle"


def test_being_capped_is_no_credit(broker):
    """What a capped tenant did not run comes back when the ring is far ahead: it is served from there on."""
    know(broker, 400, "acme_corp")
    know(broker, 10, "globex_inc")
    broker.set_policies({"acme_corp": Policy(max_running=1)})
    put(broker, *(f"a{n}" for n in range(60)))
    held = fetch_one(broker, "w1")
    assert held.schema == "acme_corp"
    put(broker, *(f"g{n}" for n in range(90)), schema="globex_inc")
    for _ in range(60):
        assert run_one(broker, SECONDS, "w2") == "globex_inc"
    broker.give_back("w1", [held])
    turns = Counter(run_one(broker, SECONDS) for _ in range(20))
    assert turns["acme_corp"] == pytest.approx(10, abs=1)


def test_debt_is_not_forgiven(broker):
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, "long")
    put(broker, *(f"g{n}" for n in range(10)), schema="globex_inc")
    assert run_one(broker, {"acme_corp": 0.5}) == "acme_corp"
    put(broker, *(f"a{n}" for n in range(3)))
    assert [run_one(broker, SECONDS) for _ in range(10)] == ["globex_inc"] * 10


@pytest.mark.parametrize("end", ["acknowledged", "put off"])
@pytest.mark.parametrize("ms", [None, 7_200_000])
def test_what_nobody_else_wanted_costs_nothing(broker, ms, end):
    """Sixteen worker-hours of an otherwise idle night are no debt in the morning, expected or not."""
    know(broker, 0.1, "acme_corp", func="mail")
    know(broker, 10, "globex_inc")
    if ms:
        know(broker, ms)
    put(broker, *(f"a{n}" for n in range(8)))
    leases = [fetch_one(broker, f"w{n}") for n in range(8)]
    pass_time(broker, 7200)
    for n, lease in enumerate(leases):
        if end == "acknowledged":
            broker.acknowledge(f"w{n}", [Settled(lease, 7200)])
        else:
            broker.put_off(f"w{n}", lease, delay=3600, seconds=7200)
    put(broker, *(f"g{n}" for n in range(20)), schema="globex_inc")
    put(broker, "mail", func="mail")
    assert "mail" in fetch(broker, "w1") + fetch(broker, "w2")


@pytest.mark.parametrize("ms", [None, 7_200_000])
def test_a_tenant_owes_from_when_another_waits(broker, ms):
    know(broker, 1000, "globex_inc")
    if ms:
        know(broker, ms)
    put(broker, *(f"a{n}" for n in range(3)))
    leases = [fetch_one(broker, worker) for worker in ("w1", "w2")]
    pass_time(broker, 7190)
    put(broker, *(f"g{n}" for n in range(40)), schema="globex_inc")
    pass_time(broker, 10)
    for worker, lease in zip(("w1", "w2"), leases, strict=True):
        broker.acknowledge(worker, [Settled(lease, 7200)])
    turns = [run_one(broker, {"globex_inc": 1, "acme_corp": 7200}) for _ in range(22)]
    assert turns.index("acme_corp") == pytest.approx(20, abs=1), "globex has waited for 2 times 10 s"


def test_what_was_used_alone_moves_the_others_too(broker):
    """A tenant's backlog has been served all the time, so a small one has no debt for what it ran now and then."""
    know(broker, 10, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(300)))
    for n in range(20):
        for _ in range(10):
            run_one(broker, SECONDS)
        put(broker, f"g{n}", schema="globex_inc")
        assert "globex_inc" in [run_one(broker, SECONDS) for _ in range(2)]


def test_debt_is_bounded(broker):
    """Others get an hour of worker time before a tenant that has used a year of it while they waited."""
    know(broker, 10, "acme_corp")
    know(broker, 600_000, "globex_inc")
    put(broker, "long", "a")
    put(broker, *(f"g{n}" for n in range(20)), schema="globex_inc")
    run_one(broker, {"acme_corp": 365 * 86400})
    turns = [run_one(broker, {"globex_inc": 600, "acme_corp": 0.01}) for _ in range(10)]
    assert turns.index("acme_corp") == MOST_DEBT_SECONDS / 600


def test_debt_is_bounded_while_a_long_task_runs(broker):
    """What a task of two hours is expected to use keeps its tenant's others from their turns for an hour at most."""
    know(broker, 7_200_000, "acme_corp")
    know(broker, 0.1, "acme_corp", func="mail")
    know(broker, 600_000, "globex_inc")
    put(broker, "long")
    put(broker, *(f"g{n}" for n in range(20)), schema="globex_inc")
    assert fetch(broker, "w2") == ["long"]
    put(broker, "mail", func="mail")
    turns = [run_one(broker, {"globex_inc": 600, "acme_corp": 0.001}) for _ in range(10)]
    assert turns.index("acme_corp") == MOST_DEBT_SECONDS / 600


def test_debt_is_weighed_anew(broker):
    """A tenant of a tenth of the weight owes ten times as much for its time, until it weighs as much as others."""
    know(broker, 10, "acme_corp", "globex_inc")
    broker.set_policies({"acme_corp": Policy(weight=0.1)})
    put(broker, "long", "a")
    put(broker, *(f"g{n}" for n in range(40)), schema="globex_inc")
    run_one(broker, {"acme_corp": 0.1})
    broker.set_policies({"acme_corp": Policy(weight=1)})
    turns = [run_one(broker, SECONDS) for _ in range(20)]
    assert turns.index("acme_corp") == pytest.approx(10, abs=1)


# Policies


def test_policies_in_force(broker):
    assert broker.policies() == {}
    first, second = Policy(2.5, 3, 4, True), Policy(max_running=1)
    broker.set_policies({"acme_corp": first, "globex_inc": second})
    assert broker.policies() == {"acme_corp": first, "globex_inc": second}
    broker.set_policies({"globex_inc": first})
    assert broker.policies() == {"acme_corp": first, "globex_inc": first}
    broker.set_policies({"initech_llc": second}, complete=True)
    assert broker.policies() == {"initech_llc": second}


@pytest.mark.parametrize("when", ["before", "on the backlog"])
def test_nothing_of_a_paused_tenant_is_started(driver, broker, when):
    pause = {"acme_corp": Policy(paused=True)}
    if when == "before":
        broker.set_policies(pause)
    put(broker, "a")
    put(broker, "later", delay=60)
    put(broker, "g", schema="globex_inc")
    broker.set_policies(pause)
    driver.advance(61)
    assert fetch(broker) == ["g"]
    counts = broker.counts()
    assert (counts.queued, counts.paused, counts.open, counts.runnable) == (2, 2, 3, 1)
    assert fetch(broker, "w2") == []
    broker.set_policies({"acme_corp": Policy()})
    assert fetch(broker, "w2") == ["a"]
    assert broker.counts().paused == 0


def test_a_pause_ends_with_the_policy(broker):
    broker.set_policies({"acme_corp": Policy(paused=True)})
    put(broker, "a")
    assert fetch(broker) == []
    broker.set_policies({}, complete=True)
    assert fetch(broker) == ["a"]


def test_what_runs_of_a_paused_tenant_ends(broker):
    put(broker, "a", "b")
    first, second = fetch_one(broker, "w1"), fetch_one(broker, "w2")
    broker.set_policies({"acme_corp": Policy(paused=True)})
    assert finish(broker, first) == []
    assert broker.give_back("w2", [second]) == 1
    assert fetch(broker) == []


def test_a_cap_counts_workers_not_packages(broker):
    know(broker, 1)
    broker.set_policies({"acme_corp": Policy(max_running=2)})
    put(broker, *(f"{n}" for n in range(9)))
    assert [len(fetch(broker, f"w{n}", limit=3)) for n in (1, 2)] == [3, 3]
    put(broker, "g", schema="globex_inc")
    assert fetch(broker, "w3") == ["g"]
    assert fetch(broker, "w4") == []
    assert broker.counts().runnable == 10, "they need nobody but a worker"


@pytest.mark.parametrize("how", ["acknowledge", "give_back", "put_off", "dead_letter", "reclaim", "expire", "fetch"])
def test_a_worker_that_is_done_makes_room_under_the_cap(driver, broker, how):
    know(broker, 1)
    broker.set_policies({"acme_corp": Policy(max_running=1)})
    put(broker, *"abcd")
    first, second = broker.fetch("w1", limit=2).leases
    assert fetch(broker, "w2") == []
    finish(broker, first)
    assert fetch(broker, "w2") == [], "it holds another"
    if how == "acknowledge":
        finish(broker, second)
    elif how == "give_back":
        broker.give_back("w1", [second])
    elif how == "put_off":
        broker.put_off("w1", second, delay=60)
    elif how == "dead_letter":
        broker.dead_letter("w1", second, "c")
    elif how == "reclaim":
        broker.reclaim("w1", running=None)
    elif how == "expire":
        run_out(driver)
    else:
        broker.set_policies({"acme_corp": Policy(max_running=1, paused=True)})
        assert fetch(broker, "w1") == []
        broker.set_policies({"acme_corp": Policy(max_running=1)})
    assert fetch(broker, "w2", limit=1) == ["c" if how in ("acknowledge", "put_off", "dead_letter") else "b"]
    assert fetch(broker, "w3") == []


def test_a_cap_takes_effect_at_once(broker):
    put(broker, *"abcde")
    leases = [fetch_one(broker, f"w{n}") for n in (1, 2)]
    broker.set_policies({"acme_corp": Policy(max_running=1)})
    assert fetch(broker, "w3") == []
    finish(broker, leases[0])
    assert fetch(broker, "w3") == [], "there is still one"
    broker.set_policies({"acme_corp": Policy(max_running=2)})
    assert fetch(broker, "w3", limit=1) == ["c"]


# Leases and tokens


def test_no_token_is_given_twice(broker):
    put(broker, "a")
    tokens = []
    for _ in range(4):
        lease = fetch_one(broker)
        tokens.append(lease.token)
        broker.give_back("w1", [lease])
    assert len(set(tokens)) == 4


def test_an_acknowledged_package_is_gone(broker):
    know(broker, 1)
    put(broker, *"abc", once=True)
    assert finish(broker, *broker.fetch("w1").leases) == []
    assert broker.counts() == Counts(0, 0, 0, 0)
    assert broker.acknowledge("w1", []) == []


def test_a_package_is_acknowledged_once(broker):
    put(broker, "a")
    lease = fetch_one(broker)
    assert finish(broker, lease) == []
    assert finish(broker, lease, replace(lease, id="unknown")) == ["a", "unknown"]
    assert broker.statistics() == {"stale_acks": 2, "expired": 0, "broken": 0}


def act_stale(broker: Broker, how: str, worker: str, lease: Lease) -> None:
    """Do something with a lease that is over. Each answer says that nothing was done."""
    if how == "acknowledge":
        assert finish(broker, lease, worker=worker) == ["a"]
        assert broker.statistics()["stale_acks"] == 1
    elif how == "give_back":
        assert broker.give_back(worker, [lease]) == 0
    elif how == "put_off":
        broker.put_off(worker, lease, delay=1, payload="other")
    else:
        broker.dead_letter(worker, lease, "stale")


STALE = ["acknowledge", "give_back", "put_off", "dead_letter"]


@pytest.mark.parametrize("how", STALE)
def test_a_stale_worker_changes_nothing(driver, broker, how):
    """Its lease ran out, and another worker has the package now."""
    put(broker, "a")
    stale = fetch_one(broker, "stale")
    assert run_out(driver) == 1
    fresh = fetch_one(broker, "fresh")
    act_stale(broker, how, "stale", stale)
    assert broker.counts() == Counts(0, 1, 0, 0)
    assert broker.give_back("fresh", [fresh]) == 1
    assert fetch_one(broker).payload == "payload of a"


@pytest.mark.parametrize("how", STALE)
@pytest.mark.parametrize("fresh", ["another", "stale"])
def test_a_stale_worker_changes_nothing_after_a_failover(driver, broker, how, fresh):
    """The replica lacks the last lease, and gives its number again, perhaps to the same worker."""
    put(broker, "a")
    replica = driver.snapshot()
    lost = fetch_one(broker, "stale")
    driver.restore(replica)
    lease = fetch_one(broker, fresh)
    assert lease.token != lost.token
    act_stale(broker, how, "stale", lost)
    assert broker.counts() == Counts(0, 1, 0, 0)
    assert finish(broker, lease, worker=fresh) == []


@pytest.mark.parametrize("how", STALE)
def test_a_lease_is_its_workers(broker, how):
    """The token alone is not enough."""
    put(broker, "a")
    lease = fetch_one(broker, "w1")
    act_stale(broker, how, "w2", lease)
    assert broker.counts() == Counts(0, 1, 0, 0)
    assert finish(broker, lease) == []


def test_which_packages_may_come(driver, broker):
    """Those of any place, and for a while those that were acknowledged late."""
    know(broker, 0.1)
    put(broker, *"abcd")
    put(broker, "e", delay=60)
    held, done, late = broker.fetch("w1", limit=3).leases
    broker.dead_letter("w2", fetch_one(broker, "w2"), "c")
    assert broker.may_come([*"abcde", "unknown"]) == set("abcde")
    broker.note_late([late.id], seconds=60)
    broker.note_late([], seconds=60)
    finish(broker, done, late)
    assert broker.may_come([*"abcde"]) == {held.id, late.id, "d", "e"}
    driver.advance(61)
    assert broker.may_come([*"abcde"]) == {held.id, "d", "e"}
    assert broker.may_come([]) == set()
    assert len(broker.may_come([*(f"{n}" for n in range(2500)), "a"])) == 1


def test_who_renews_learns_what_is_held(driver, broker):
    know(broker, 0.1)
    put(broker, *"abc")
    leases = broker.fetch("w1", limit=2).leases
    other = fetch_one(broker, "w2")
    held = {lease.id: str(lease.token) for lease in leases}
    assert broker.renew(["w1", "w2", "w3"], 60) == {"w1": held, "w2": {"c": str(other.token)}, "w3": {}}
    finish(broker, leases[0])
    assert broker.renew(["w1"], conf().lease) == {"w1": {"b": str(leases[1].token)}}
    assert broker.renew([], 60) == {}
    assert run_out(driver, but=["w2"]) == 1
    assert broker.renew(["w1"], 60) == {"w1": {}}, "what was given back is not taken again"
    assert broker.counts() == Counts(1, 1, 0, 0)


def test_what_is_unstarted_goes_to_the_head_in_order(broker):
    know(broker, 0.1)
    put(broker, *"abcd")
    leases = broker.fetch("w1", limit=3).leases
    put(broker, "e")
    finish(broker, leases[0])
    assert broker.give_back("w1", leases[1:]) == 2
    assert broker.give_back("w1", leases[1:]) == broker.give_back("w1", []) == 0
    again = broker.fetch("w2").leases
    assert [lease.id for lease in again] == list("bcde")
    assert not any(lease.is_redelivered for lease in again), "they never started"


# Delays


def test_a_delayed_package_becomes_due(driver, broker):
    put(broker, "b", delay=100)
    put(broker, "a", delay=50)
    batch = broker.fetch("w1")
    assert batch.leases == ()
    assert batch.next_delayed == pytest.approx(50, abs=5)
    assert broker.counts() == Counts(0, 0, 2, 0)
    driver.advance(51)
    assert fetch(broker, "w1") == ["a"]
    driver.advance(51)
    assert fetch(broker, "w2") == ["b"]
    assert broker.fetch("w3").next_delayed is None


def test_the_first_due_comes_first(driver, broker):
    know(broker, 0.1)
    put(broker, "c", delay=30)
    put(broker, "b", "a", delay=20)
    put(broker, "z", delay=10)
    driver.advance(31)
    assert fetch(broker) == list("zabc"), "of equals the first by id"


@pytest.mark.parametrize("how", ["enqueued", "put off"])
def test_what_is_due_competes_by_tenant(driver, broker, how):
    """Another tenant's thousands that are due at one moment delay a tenant's one by a batch, not by all of them."""
    know(broker, 0.1, "acme_corp", "globex_inc")
    put(broker, *(f"a{n}" for n in range(5000)), delay=100)
    put(broker, "one", schema="globex_inc", delay=101 if how == "enqueued" else 0)
    if how == "put off":
        broker.put_off("w1", fetch_one(broker), delay=101)
    driver.advance(110)
    first, second = fetch(broker, "w1"), fetch(broker, "w2")
    assert "one" in first + second
    assert first[0].startswith("a"), "the work of both is taken by turns"


def test_what_is_due_of_many_tenants(driver, broker):
    """Each of them has its turn before a second batch of any."""
    names = [f"tenant_{n:03}" for n in range(300)]
    know(broker, 0.1, *names)
    put(broker, *(f"first {n}" for n in range(1000)), schema=names[0], delay=100)
    for name in names[1:]:
        put(broker, name, schema=name, delay=100)
    driver.advance(110)
    found = [id for n in range(20) for id in fetch(broker, f"w{n}")]
    assert set(names[1:]) <= set(found)


def test_what_is_due_comes_behind_what_was_queued_before(driver, broker):
    """One tenant's packages run in the order in which they could have: neither kind waits for the other's end."""
    know(broker, 0.1)
    put(broker, *"ab")
    put(broker, "due", delay=10)
    driver.advance(11)
    assert fetch(broker, limit=1) == ["a"]
    put(broker, "c")
    assert fetch(broker, "w2") == ["b", "due", "c"]


def test_put_off(driver, broker):
    put(broker, "a", once=True)
    broker.put_off("w1", fetch_one(broker), delay=60, payload="other")
    assert fetch(broker) == []
    driver.advance(61)
    lease = fetch_one(broker)
    assert (lease.id, lease.schema, lease.payload, lease.is_redelivered) == ("a", "acme_corp", "other", False)
    broker.put_off("w1", lease, delay=0)
    assert broker.counts() == Counts(0, 0, 1, 0)
    lease = fetch_one(broker)
    assert lease.payload == "other", "its own"
    finish(broker, lease)
    assert put(broker, "a", once=True) == 0, "its id is as deterministic as before"


def test_what_is_put_off_keeps_its_starts_but_no_verdict(broker):
    put(broker, "a")
    fetch_one(broker)
    broker.reclaim("w1", running="a")
    fetch_one(broker)
    broker.reclaim("w1", running="a", give_up_reason="v")
    broker.put_off("w1", fetch_one(broker), delay=0)
    lease = fetch_one(broker)
    assert (lease.starts, lease.give_up_reason) == (1, None)


def test_what_is_put_off_goes_behind_what_waits(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    broker.put_off("w1", fetch_one(broker), delay=0)
    assert fetch(broker) == list("bca")


def test_what_waits_for_its_tenant(driver, broker):
    put(broker, "a", "b", "c")
    broker.put_off("w1", fetch_one(broker), delay=60, unready=True)
    broker.put_off("w1", fetch_one(broker), delay=60)
    counts = broker.counts()
    assert (counts.delayed, counts.unready, counts.open, counts.runnable) == (2, 1, 3, 2)
    driver.advance(61)
    assert fetch(broker) == ["c"]
    assert broker.counts() == Counts(2, 1, 0, 0)


# The dead


def test_burying(broker):
    put(broker, "a", "b")
    broker.dead_letter("w1", fetch_one(broker), "Because: of\na test ä")
    (dead,) = broker.dead()
    assert (dead.id, dead.schema, dead.func, dead.cause) == ("a", "acme_corp", "f", "Because: of\na test ä")
    assert dead.payload == "payload of a"
    assert broker.counts() == Counts(1, 0, 0, 1)
    assert broker.counts().open == 1, "the dead are not run any more"
    assert fetch(broker) == ["b"]


def test_the_dead_by_tenant_and_oldest_first(driver, broker):
    for n, schema in enumerate(("acme_corp", "globex_inc", "acme_corp")):
        put(broker, f"{9 - n}", schema=schema)
        broker.dead_letter("w1", fetch_one(broker), "c")
        driver.advance(10)
    assert [dead.id for dead in broker.dead("acme_corp")] == ["9", "7"]
    assert [dead.id for dead in broker.dead(limit=2)] == ["9", "8"]
    assert [dead.id for dead in broker.dead("acme_corp", limit=1)] == ["9"]
    assert [dead.id for dead in broker.dead("acme_corp", newest_first=True)] == ["7", "9"]
    assert [dead.id for dead in broker.dead(limit=2, newest_first=True)] == ["7", "8"]
    assert [dead.id for dead in broker.dead("acme_corp", limit=1, newest_first=True)] == ["7"]
    assert [dead.id for dead in broker.dead(ids=["7", "9", "unknown", "7"])] == ["9", "7"]
    assert [dead.id for dead in broker.dead(ids={"7", "8", "9"}, limit=2, newest_first=True)] == ["7", "8"]
    assert [dead.id for dead in broker.dead("globex_inc", ids=["9", "8"])] == ["8"]
    assert broker.dead(ids=[]) == []
    assert broker.dead("initech_llc") == []
    ages = [broker.dead()[2].died - dead.died for dead in broker.dead()]
    assert ages == pytest.approx([20, 10, 0], abs=5)


def test_the_dead_are_retried_with_a_clean_slate(broker):
    put(broker, "a")
    fetch_one(broker)
    broker.reclaim("w1", running="a", give_up_reason="too long")
    broker.dead_letter("w1", fetch_one(broker), "c")
    assert broker.retry_dead({"a": "", "unknown": ""}) == 1
    lease = fetch_one(broker)
    assert (lease.starts, lease.give_up_reason, lease.payload) == (0, None, "payload of a")
    assert lease.is_redelivered, "it may have succeeded, and died of what followed"
    broker.dead_letter("w1", lease, "c")
    assert broker.retry_dead({"a": "other"}) == 1
    assert fetch_one(broker).payload == "other"
    assert broker.retry_dead({"a": ""}) == 0, "only the dead are"


def test_the_dead_are_purged(broker):
    put(broker, "a", "b", once=True)
    broker.dead_letter("w1", fetch_one(broker), "c")
    assert broker.purge_dead(["a", "b", "unknown"]) == 1
    assert broker.counts() == Counts(1, 0, 0, 0)
    assert put(broker, "a", once=True) == 1, "what was never acknowledged is not known"


# Death of workers


def test_reclaiming_charges_only_what_ran(broker):
    """And not what its sentinel killed: the give-up reason says that."""
    know(broker, 0.1)
    put(broker, *"abcd")
    broker.fetch("w1", limit=3)
    broker.fetch("other")
    assert broker.reclaim("w1", running="b", give_up_reason="it took too long") == 3
    assert broker.counts() == Counts(3, 1, 0, 0)
    leases = broker.fetch("w2").leases
    told = [(lease.id, lease.starts, lease.give_up_reason) for lease in leases]
    assert told == [("a", 0, None), ("b", 0, "it took too long"), ("c", 0, None)]
    assert all(lease.is_redelivered for lease in leases)


def test_starts_add_up(broker):
    put(broker, "a")
    for starts in (None, 1, 2, 3):
        assert fetch_one(broker).starts == starts
        broker.reclaim("w1", running="a")


def test_a_worker_that_died_while_it_ran_nothing(broker):
    """Nobody is charged the first time, but all come alone; who is alone when it happens again is charged."""
    know(broker, 0.1)
    put(broker, "a", "b")
    assert len(broker.fetch("w1").leases) == 2
    broker.reclaim("w1", running=None)
    (first,) = broker.fetch("w1").leases
    assert (first.id, first.starts) == ("a", 0)
    broker.reclaim("w1", running=None)
    (again,) = broker.fetch("w1").leases
    assert (again.id, again.starts) == ("a", 1)


def test_how_a_worker_died_is_kept_with_what_is_charged(driver, broker):
    know(broker, 0.1)
    put(broker, "a", "b")
    assert [lease.death for lease in broker.fetch("w1").leases] == [None, None]
    broker.reclaim("w1", running="b", death="was killed")
    assert {lease.id: lease.death for lease in broker.fetch("w1").leases} == {"a": None, "b": "was killed"}
    broker.reclaim("w1", running="b", charged=False, death="was stopped")
    broker.fetch("w1")
    broker.reclaim("w1", running="b", give_up_reason="v", death="was killed for its timeout")
    broker.fetch("w1")
    broker.reclaim("w1", running="b")
    leases = broker.fetch("w1").leases
    assert {lease.id: (lease.starts, lease.death) for lease in leases} == {"a": (0, None), "b": (2, "was killed")}
    broker.put_off("w1", next(lease for lease in leases if lease.id == "b"), delay=0)
    (lease,) = broker.fetch("w2").leases
    assert lease.death == "was killed", "it is tried again"
    run_out(driver, but=["w1"])
    (lease,) = broker.fetch("w2").leases
    assert (lease.starts, lease.death) == (2, "was killed"), "nobody is charged"
    run_out(driver, but=["w1"])
    lease = fetch_one(broker, "w2")
    assert (lease.starts, lease.death) == (3, None), "nobody knows how this worker died"
    broker.reclaim("w2", running="b", death="was killed again")
    broker.dead_letter("w2", fetch_one(broker, "w2"), "a cause")
    broker.retry_dead({"b": ""})
    assert fetch_one(broker, "w2").death is None


@pytest.mark.parametrize("running", ["a", None])
def test_a_worker_that_was_stopped_charges_nobody(broker, running):
    know(broker, 0.1)
    put(broker, "a", "b")
    for starts in (None, 0, 0):
        leases = broker.fetch("w1").leases
        assert [(lease.id, lease.starts) for lease in leases] == [("a", starts), ("b", starts)]
        broker.reclaim("w1", running=running, charged=False)


def test_what_paused_tenants_hold_is_not_runnable(broker):
    know(broker, 0.1, "acme_corp", "globex_inc")
    put(broker, "to wait")
    put(broker, "of another", schema="globex_inc")
    for lease in broker.fetch("w1").leases:
        broker.put_off("w1", lease, delay=60, unready=True)
    put(broker, "queued")
    assert (broker.counts().paused, broker.counts().unready) == (0, 2)
    broker.set_policies({"acme_corp": Policy(paused=True)})
    counts = broker.counts()
    assert (counts.paused, counts.unready) == (2, 1), "each is counted once"


def test_there_is_nothing_to_reclaim(broker):
    assert broker.reclaim("nobody", running=None) == broker.reclaim("nobody", running="a") == 0


# Expiry and renewal


def test_leases_that_ran_out_are_given_back(driver, broker):
    know(broker, 0.1)
    put(broker, *"abc")
    assert len(broker.fetch("w1", limit=2).leases) == 2
    assert len(broker.fetch("living").leases) == 1
    assert run_out(driver, but=["living"]) == 2
    assert broker.expire() == 0
    assert broker.statistics()["expired"] == 2
    assert broker.counts() == Counts(2, 1, 0, 0)
    (lease,) = broker.fetch("w2").leases
    assert (lease.id, lease.starts) == ("a", 0), "it comes alone, and is not charged: it may not be the cause"
    assert run_out(driver, but=["living"]) == 1
    assert fetch_one(broker).starts == 1, "it was alone"


def test_a_package_leased_alone_is_charged_when_its_lease_runs_out(driver, broker):
    put(broker, "a")
    fetch_one(broker)
    assert run_out(driver) == 1
    assert fetch_one(broker).starts == 1


def test_renewal_saves_a_lease_that_ran_out_but_was_not_taken_back(driver, broker):
    put(broker, "a")
    lease = fetch_one(broker)
    driver.advance(conf().lease + 1)
    broker.renew(["w1"], conf().lease)
    broker.renew([], conf().lease)
    assert broker.expire() == 0
    assert finish(broker, lease) == []


def test_renewal_is_for_as_long_as_it_says(driver, broker):
    put(broker, "a")
    fetch_one(broker)
    broker.renew(["w1", "without leases"], 2.5 * conf().lease)
    assert run_out(driver) == 0
    assert run_out(driver) == 1


def test_an_outage_does_not_expire_the_living(driver, broker):
    put(broker, "a")
    broker.expire()
    driver.advance(conf().lease / 3)
    fetch_one(broker)
    driver.advance(10 * conf().lease)
    assert broker.expire() == 0, "nobody looked all that time"
    driver.advance(conf().lease / 3)
    assert broker.expire() == 0, "and it has its time again"
    assert run_out(driver) == 1


def test_an_outage_lends_no_time_to_what_was_leased_after_it(driver, broker):
    put(broker, "a")
    broker.expire()
    driver.advance(24 * 3600)
    fetch_one(broker)
    assert broker.expire() == 0
    assert run_out(driver) == 1, "a lease's time later, not a day"


# Figures


def test_counts(broker):
    put(broker, *(f"a{n}" for n in range(4)))
    put(broker, "g", schema="globex_inc")
    put(broker, "later", delay=60)
    fetch_one(broker, "w1")
    broker.dead_letter("w2", fetch_one(broker, "w2"), "c")
    counts = broker.counts()
    assert counts == Counts(queued=3, leased=1, delayed=1, dead=1)
    assert (counts.open, counts.runnable) == (5, 5)
    assert broker.queue_size() == 3
    assert broker.queue_size("acme_corp") + broker.queue_size("globex_inc") == 3
    assert broker.queue_size("nobody") == 0


def test_purging_leaves_what_runs(driver, broker):
    put(broker, *"abc", once=True)
    put(broker, "g", schema="globex_inc")
    put(broker, "later", delay=60)
    broker.dead_letter("w1", fetch_one(broker), "c")
    broker.put_off("w1", fetch_one(broker), delay=60, unready=True)
    running = fetch_one(broker)
    broker.purge()
    assert broker.counts() == Counts(0, 1, 0, 0)
    assert broker.dead() == []
    assert finish(broker, running) == []
    driver.advance(61)
    assert fetch(broker) == []
    assert put(broker, "later") == 1, "what was purged is not known"


# One tenant's packages


def test_what_a_tenant_has_in_the_order_of_its_places(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    put(broker, "later", "sooner", delay=60, payload="line\nline")
    put(broker, "soonest", delay=30)
    put(broker, "g", schema="globex_inc")
    put(broker, "g later", schema="globex_inc", delay=5)
    broker.fetch("w2", limit=1)
    broker.fetch("w1", limit=1)
    found = broker.live("acme_corp")
    assert [(one.id, one.place) for one in found] == [
        ("a", "leased"),
        ("b", "queued"),
        ("c", "queued"),
        ("soonest", "delayed"),
        ("later", "delayed"),
        ("sooner", "delayed"),
    ]
    first, last = found[0], found[-1]
    assert first == Live("a", "acme_corp", "f", "leased", None, "payload of a")
    assert last.at is not None and found[3].at is not None
    assert last.at - found[3].at == pytest.approx(30, abs=1)
    assert last.payload == "line\nline"


def test_no_more_than_asked_for(broker):
    know(broker, 0.1)
    put(broker, *"abcd")
    put(broker, "later", delay=60)
    broker.fetch("w1", limit=2)
    shown = [[one.id for one in broker.live("acme_corp", limit=limit)] for limit in (0, 1, 2, 3, 4, 5)]
    assert shown == [[], ["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b", "c", "d", "later"]]


def test_what_a_worker_holds_of_others_is_not_shown(broker):
    know(broker, 0.1, "acme_corp", "globex_inc")
    put(broker, "a", "b")
    put(broker, "g", schema="globex_inc")
    assert sorted(fetch(broker)) == ["a", "b", "g"]
    assert [one.id for one in broker.live("globex_inc")] == ["g"]
    assert broker.live("initech_llc") == []


def test_where_a_package_is(driver, broker):
    put(broker, *"abc")
    put(broker, "later", delay=60)
    broker.dead_letter("w1", fetch_one(broker), "c")
    running = fetch_one(broker)
    assert [broker.place("acme_corp", id) for id in ("a", "b", "c", "later")] == ["dead", "leased", "queued", "delayed"]
    assert [broker.place("globex_inc", id) for id in ("a", "b", "c", "later", "nobody")] == [None] * 5
    finish(broker, running)
    assert broker.place("acme_corp", "b") is None
    driver.advance(61)
    broker.fetch("w2", limit=1)
    assert broker.place("acme_corp", "later") == "queued"


def test_a_package_is_found_by_its_id(broker):
    put(broker, *"abc", payload="line\nline")
    put(broker, "later", delay=60)
    broker.dead_letter("w1", fetch_one(broker), "c")
    fetch_one(broker)
    broker.cancel("acme_corp", "c", BY_ADA)
    assert {one.id: one for one in broker.live("acme_corp")} == {
        id: broker.find("acme_corp", id) for id in ("b", "c", "later")
    }
    assert broker.find("acme_corp", "c") == Live("c", "acme_corp", "f", "queued", None, "line\nline", BY_ADA)
    assert broker.find("acme_corp", "a") is None, "the dead are not live"
    assert [broker.find("globex_inc", id) for id in ("a", "b", "c", "later", "nobody")] == [None] * 5


def test_what_is_to_be_given_up_is_told(broker):
    put(broker, "a")
    fetch_one(broker)
    assert broker.live("acme_corp")[0].give_up_reason is None
    broker.reclaim("w1", running="a", give_up_reason="v")
    assert broker.live("acme_corp")[0].give_up_reason == "v"
    assert broker.state("acme_corp", "a") is State.QUEUED, "a worker saves its failed row, and gives it up"


def test_the_state_of_a_package(broker):
    put(broker, *"abc")
    put(broker, "later", delay=60)
    broker.dead_letter("w1", fetch_one(broker), "c")
    fetch_one(broker)
    assert [broker.state("acme_corp", id) for id in ("a", "b", "c", "later")] == [
        State.FAILURE,
        State.RUNNING,
        State.QUEUED,
        State.DELAYED,
    ]
    assert [broker.state("globex_inc", id) for id in ("a", "b", "c", "later", "nobody")] == [None] * 5


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_what_was_cancelled_before_a_worker_took_it_is_cancelled(broker, delay):
    """From the cancel on, and so also while that worker saves its row."""
    put(broker, "a", delay=delay)
    broker.cancel("acme_corp", "a", BY_ADA)
    assert broker.state("acme_corp", "a") is State.CANCELLED
    fetch_one(broker)
    assert broker.state("acme_corp", "a") is State.CANCELLED


def test_what_is_cancelled_while_a_worker_has_it_may_be_running(broker):
    """Until that worker has lost it: whoever takes it next does not run it."""
    put(broker, "a")
    lease = fetch_one(broker)
    broker.cancel("acme_corp", "a", BY_ADA)
    assert broker.state("acme_corp", "a") is State.RUNNING
    broker.give_back("w1", [lease])
    assert broker.state("acme_corp", "a") is State.CANCELLED
    fetch_one(broker, "w2")
    assert broker.state("acme_corp", "a") is State.CANCELLED


# Cancelling

BY_ADA = "TaskCancelled: by Ada"


def test_cancelling_what_waits(broker):
    know(broker, 0.1)
    put(broker, *"abc")
    assert broker.cancel("acme_corp", "b", BY_ADA) == "queued"
    assert broker.cancelled() == [], "the next worker gets it then"
    assert [(lease.id, lease.give_up_reason) for lease in broker.fetch("w1").leases] == [
        ("b", BY_ADA),
        ("a", None),
        ("c", None),
    ]


def test_cancelling_what_is_far_back_in_a_long_queue(broker):
    """Nobody else waits for it to be found: it stays where it is."""
    ids = [f"{n:05}" for n in range(CANCEL_REACH + 1)]
    put(broker, *ids)
    for id in (ids[-1], ids[-2]):
        assert broker.cancel("acme_corp", id, BY_ADA) == "queued"
        assert broker.state("acme_corp", id) is State.CANCELLED
    shown = [one.id for one in broker.live("acme_corp", limit=2000)]
    assert shown == [ids[-2], *ids[:-2], ids[-1]]


def test_cancelling_what_is_delayed(driver, broker):
    know(broker, 0.1)
    put(broker, "a")
    put(broker, "later", "latest", delay=60)
    assert broker.cancel("acme_corp", "later", BY_ADA) == "delayed"
    assert [(lease.id, lease.give_up_reason) for lease in broker.fetch("w1").leases] == [("later", BY_ADA), ("a", None)]
    driver.advance(61)
    assert fetch(broker, "w2") == ["latest"]
    assert broker.live("acme_corp")[-1].place == "leased"


def test_cancelling_what_is_leased(broker):
    know(broker, 0.1)
    put(broker, *"ab")
    leases = broker.fetch("w1").leases
    assert broker.cancel("acme_corp", "b", BY_ADA) == "leased"
    assert broker.cancelled() == broker.cancelled() == [Cancelled("b", "w1", BY_ADA)]
    assert finish(broker, *leases) == []
    assert broker.cancelled() == []


@pytest.mark.parametrize("how", ["give back", "its worker died", "lease ran out", "put off", "killed for its timeout"])
def test_a_cancel_stays_with_its_package(driver, broker, how):
    put(broker, "a")
    lease = fetch_one(broker)
    broker.cancel("acme_corp", "a", BY_ADA)
    match how:
        case "give back":
            broker.give_back("w1", [lease])
        case "its worker died":
            broker.reclaim("w1", running="a")
        case "killed for its timeout":
            broker.reclaim("w1", running="a", give_up_reason="another")
        case "lease ran out":
            assert run_out(driver) == 1
        case "put off":
            broker.put_off("w1", lease, delay=60)
            assert broker.place("acme_corp", "a") == "delayed"
            driver.advance(61)
    again = fetch_one(broker)
    assert again.give_up_reason == BY_ADA
    assert broker.cancelled() == [], "it came with the lease"
    finish(broker, again)
    put(broker, "a")
    assert fetch_one(broker).give_up_reason is None, "and ends with it"


def test_the_first_who_cancels(broker):
    put(broker, "a")
    assert broker.cancel("acme_corp", "a", BY_ADA) == "queued"
    assert broker.cancel("acme_corp", "a", "TaskCancelled: by Bob") == "queued"
    assert broker.live("acme_corp")[0].give_up_reason == BY_ADA


def test_what_cannot_be_cancelled(broker):
    put(broker, *"ab")
    assert broker.cancel("globex_inc", "a", BY_ADA) is None
    broker.dead_letter("w1", fetch_one(broker), "c")
    assert broker.cancel("acme_corp", "a", BY_ADA) is None
    finish(broker, fetch_one(broker))
    assert broker.cancel("acme_corp", "b", BY_ADA) is None
    broker.retry_dead({"a": ""})
    assert fetch_one(broker).give_up_reason is None


# Progress


def test_how_far_a_package_says_it_is(broker):
    put(broker, *"ab")
    broker.set_progress({"w1": ("a", Progress(0.1))})
    assert broker.get_progress("acme_corp", "a") is None, "nobody runs it"
    lease = fetch_one(broker)
    assert broker.get_progress("acme_corp", "a") is None
    broker.set_progress({"w1": ("a", Progress(0.1)), "w3": ("b", Progress(1.0))})
    broker.set_progress({})
    broker.set_progress({"w1": ("a", Progress(1 / 3, "ä\nb")), "w2": ("a", Progress(0.9))})
    assert broker.get_progress("acme_corp", "a") == Progress(1 / 3, "ä\nb")
    assert broker.get_progress("acme_corp", "b") is broker.get_progress("globex_inc", "a") is None
    broker.give_back("w1", [lease])
    assert broker.get_progress("acme_corp", "a") is None
    finish(broker, fetch_one(broker))
    assert broker.get_progress("acme_corp", "a") is None


# Groups


def test_parts_of_a_group(broker):
    assert broker.add_parts("acme_corp", "g", {"0": "first"}, seconds=None) == 1
    assert broker.add_parts("acme_corp", "g", {"1": "second"}, seconds=None) == 2
    assert broker.add_parts("acme_corp", "g", {"1": "again"}, seconds=None) == 2
    assert broker.parts("acme_corp", "g") == {"0": "first", "1": "second"}
    assert broker.count_parts("acme_corp", "g") == 2
    assert broker.drop_group("acme_corp", "g") == 2
    assert broker.parts("acme_corp", "g") == {}
    assert broker.drop_group("acme_corp", "g") == broker.count_parts("acme_corp", "g") == 0


def test_equal_groups_of_two_tenants(broker):
    for schema in ("acme_corp", "globex_inc"):
        broker.add_parts(schema, "g", {"0": schema}, seconds=None)
    broker.drop_group("acme_corp", "g")
    assert broker.parts("globex_inc", "g") == {"0": "globex_inc"}
    assert broker.parts("globex_inc;g", "") == {}


def test_how_long_a_group_is_kept(driver, broker):
    broker.add_parts("acme_corp", "kept", {"0": "x"}, seconds=None)
    broker.add_parts("acme_corp", "g", {"0": "x"}, seconds=100)
    driver.advance_kept(60)
    broker.add_parts("acme_corp", "g", {"1": "y"}, seconds=100)
    driver.advance_kept(60)
    assert broker.count_parts("acme_corp", "g") == 2, "each part starts the time anew"
    driver.advance_kept(101)
    wait_until(lambda: broker.count_parts("acme_corp", "g") == 0)
    assert broker.drop_group("acme_corp", "g") == 0
    assert broker.count_parts("acme_corp", "kept") == 1


# Status


def test_the_status_of_clusters(driver, broker):
    assert broker.get_stats("*") == []
    one, two = f"{driver.prefix}:one", f"{driver.prefix}:two"
    broker.set_stat(two, "2", 60)
    broker.set_stat(one, "0", 30)
    broker.set_stat(one, "1", 30)
    assert broker.get_stat(one) == b"1"
    assert broker.get_stat(f"{driver.prefix}:three") is None
    assert broker.get_stats("*") == [b"1", b"2"]
    driver.advance_kept(31)
    wait_until(lambda: broker.get_stat(one) is None)
    assert broker.get_stats("*") == [b"2"], "one that is not refreshed is gone"


# What operators see


def run(broker: Broker, *ids: str, schema: str = "acme_corp", func: str = "f", **settled: Any) -> None:
    """Enqueue, lease and acknowledge packages. `settled` is what the acknowledgement says of each."""
    put(broker, *ids, schema=schema, func=func)
    leases: dict[str, list[Lease]] = {}
    while (count := sum(map(len, leases.values()))) < len(ids):
        worker = f"runner {count}"
        leases[worker] = list(broker.fetch(worker, limit=len(ids)).leases)
        assert {lease.id for lease in leases[worker]} <= set(ids)
    for worker, taken in leases.items():
        for lease in taken:
            assert broker.acknowledge(worker, [Settled(lease, **({"seconds": 0.001} | settled))]) == []


def test_loads_tell_what_each_tenant_has_where(broker):
    assert broker.loads() == {}
    run(broker, "done", schema="initech_llc")
    put(broker, "a", "b", "c")
    put(broker, "later", delay=60.0)
    put(broker, "other", schema="globex_inc", func="g")
    for lease in broker.fetch("w1", limit=1).leases:
        broker.dead_letter("w1", lease, "it cannot be saved")
    broker.fetch("w2", limit=1)
    places = {name: (one.queued, one.leased, one.delayed, one.dead) for name, one in broker.loads().items()}
    held = [name for name, one in places.items() if one[1]]
    assert sum(one[0] for one in places.values()) == 2 and len(held) == 1
    assert places["initech_llc"] == (0, 0, 0, 0)
    assert sum(one[3] for one in places.values()) == 1
    assert places["acme_corp"][2] == 1
    counts = broker.counts()
    assert [sum(column) for column in zip(*places.values(), strict=True)] == [
        counts.queued, counts.leased, counts.delayed, counts.dead,
    ]  # fmt: skip


def test_loads_know_the_queue_of_a_paused_tenant(broker):
    broker.set_policies({"acme_corp": Policy(paused=True)})
    put(broker, "a", "b")
    assert broker.loads() == {"acme_corp": Load(queued=2)}
    broker.set_policies({}, complete=True)
    assert broker.loads() == {"acme_corp": Load(queued=2)}


def test_the_dead_are_counted_until_they_are_retried_or_purged(broker):
    for id in ("a", "b", "c"):
        put(broker, id)
        broker.dead_letter("w1", fetch_one(broker), "why not")
    assert broker.loads()["acme_corp"].dead == 3
    broker.retry_dead({"a": "", "unknown": ""})
    assert (broker.loads()["acme_corp"].dead, broker.loads()["acme_corp"].queued) == (2, 1)
    broker.purge_dead(["b", "unknown"])
    assert broker.loads()["acme_corp"].dead == 1
    broker.purge()
    assert broker.loads() == {}


def test_loads_tell_how_the_last_hour_was(broker, driver):
    for number in range(19):
        run(broker, f"fast {number}", seconds=0.003, waited=0.1)
    run(broker, "slow", seconds=30.0, waited=100.0, failed=True)
    run(broker, "other", schema="globex_inc", waited=None)
    loads = broker.loads()
    acme, globex = loads["acme_corp"], loads["globex_inc"]
    assert (acme.done, acme.failed, globex.done, globex.failed) == (19, 1, 1, 0)
    assert 0.002 < acme.run_p95 <= 0.004 and 0.064 < acme.wait_p95 <= 0.128
    assert globex.wait_p95 is None and globex.run_p95 <= 0.001
    driver.advance_figures(6)
    run(broker, "later", seconds=0.003)
    assert broker.loads()["acme_corp"].done == 20
    driver.advance_figures(8)
    assert broker.loads()["acme_corp"].done == 1, "the first ones are an hour old"
    assert broker.loads()["globex_inc"] == Load()
    driver.advance_figures(20)
    assert broker.loads()["acme_corp"] == Load(), "nothing was done in this hour"
    run(broker, "at last", seconds=0.003)
    assert broker.loads()["acme_corp"].done == 1


def test_totals_never_go_back(broker, driver):
    run(broker, "a", "b", func="f", seconds=0.5, waited=2.0)
    run(broker, "c", schema="globex_inc", func="g", seconds=10_000.0, waited=None, failed=True)
    driver.advance_figures(100)
    run(broker, "d", func="g", seconds=0.0005, waited=0.0)
    totals = broker.totals()
    acme, globex = totals.tenants["acme_corp"], totals.tenants["globex_inc"]
    assert (acme.done, acme.failed, acme.run_seconds, acme.wait_seconds) == (3, 0, 1.0005, 4.0)
    assert (globex.done, globex.failed, globex.run_seconds, globex.wait_seconds) == (0, 1, 10_000.0, 0.0)
    assert globex.runs == (0,) * len(BOUNDS) + (1,), "longer than the last bound"
    assert sum(globex.waits) == 0, "not known"
    assert acme.runs[0] == 1 and acme.runs[9] == 2, "up to 1 ms; from 256 to 512 ms"
    assert {func: (one.done, one.failed) for func, one in totals.functions.items()} == {"f": (2, 0), "g": (1, 1)}


def test_only_so_many_functions_have_figures_and_estimates_of_their_own(broker, driver, monkeypatch):
    """Whoever makes names in bulk does not fill the server."""
    monkeypatch.setattr("tenant_q.brokers.protocol.limits.MOST_FUNCTIONS", 3)
    for func in ("a", "b", "c", "d", "e", "a", "d"):
        run(broker, f"of {func} {uuid.uuid4()}", func=func, seconds=0.001)
    assert {func: one.done for func, one in broker.totals().functions.items()} == {"a": 2, "b": 1, "c": 1, "other": 3}
    assert broker.totals().tenants["acme_corp"].done == 7
    put(broker, "short", "shorter", func="a")
    assert len(fetch(broker)) == 2, "known as short"
    for id in ("short", "shorter"):
        broker.cancel("acme_corp", id, "TaskCancelled: no")
    put(broker, "unknown", "unknown too", func="d", schema="globex_inc")
    assert len(fetch(broker, "w2")) == 1, "nothing is learned of it, so it runs alone"


def test_names_in_bulk_do_not_fill_the_server(broker, driver):
    from tenant_q.brokers.protocol import MOST_FUNCTIONS

    ids = [f"{number}" for number in range(MOST_FUNCTIONS + 200)]
    for id in ids:
        run(broker, id, func=f"made.up.{id}", seconds=0.001)
    assert len(broker.totals().functions) == MOST_FUNCTIONS + 1


def test_what_is_refused_is_not_counted(broker):
    put(broker, "a")
    late = fetch_one(broker)
    broker.reclaim("w1", running=None)
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    assert finish(broker, late) == ["a"]
    assert broker.totals().tenants["acme_corp"].done == 1


@pytest.mark.parametrize("ms", [0.0, 0.001, 1.0, 1.001, 2.0, 2.5, 4.0, 1000.0, 2.0**23, 2.0**23 + 1, 1e12])
def test_a_time_is_counted_by_the_bound_that_it_does_not_exceed(broker, ms):
    run(broker, "a", seconds=ms / 1000, waited=ms / 1000)
    expected = sum(ms > round(1000 * bound) for bound in BOUNDS)
    assert broker.totals().tenants["acme_corp"].runs.index(1) == expected


def test_a_quantile_lies_between_the_bounds_of_what_it_falls_into():
    assert quantile(Figures().runs, 0.95) is None
    counts = [0] * (len(BOUNDS) + 1)
    counts[3] = 100
    assert quantile(counts, 0.95) == pytest.approx(0.004 + 0.95 * 0.004)
    counts[-1] = 100
    assert quantile(counts, 0.95) == BOUNDS[-1]


def test_who_has_labels_keeps_them_and_who_is_gone_makes_room_for_who_is_new(broker):
    def named(*names: str, most: int = 2) -> set[str]:
        return broker.name_labels("tenants", names, most=most)

    assert named("a") == {"a"}
    assert named("c", "a", "b") == {"a", "c"}, "those in front first"
    assert named("b", "c", "a") == {"a", "c"}
    assert named("b", "c") == {"c"}, "b was counted among the others"
    assert named("b", "c", "d", "e") == {"c", "d"}
    assert named("a", "b", "d") == {"d"}, "a is among the others since it was gone"
    assert broker.name_labels("functions", ["a", "b"], most=2) == {"a", "b"}, "others"


def test_labels_are_no_more_than_they_may_be(broker):
    def named(most: int) -> set[str]:
        return broker.name_labels("tenants", ["a", "b", "c", "d"], most=most)

    assert named(3) == {"a", "b", "c"}
    assert named(1) == {"a"}
    assert named(1) == {"a"}
    assert named(3) == {"a", "b", "c"}, "raised"


def test_the_figures_of_an_hour_are_forgotten():
    driver = OnRedis()
    try:
        run(driver.broker, "a")
        run(driver.broker, "b")
        (kept,) = driver.client.scan_iter(driver.key("figures:*"))
        assert 3900 < driver.client.ttl(kept) <= 4200
    finally:
        driver.end()
