"""The Redis broker against its specification: the same operations on both, in any order.

After every step both have answered the same, have the same packages in the same places, and what the Redis broker
keeps beside them fits. A long run: `HYPOTHESIS_EXAMPLES=3000 pytest tests/integration/brokers/test_machine.py`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tenant_q.brokers.protocol import CANCELLED, Chosen, Lease, Message, Policy, Settled, Unique
from tenant_q.exceptions import QueueFull
from tenant_q.states import Progress
from tests.integration.brokers.drivers import Driver, InMemory, OnRedis

# All that may be left when no package is.
MAY_STAY = {
    "vtime", "waited", "ring", "costs", "token", "known", "expired", "statistics", "policy", "wake", "figures",
    "figure_places", "functions", "alias", "lane_turn", "rate", "day_functions", "day_names",
}  # fmt: skip

# Times are so large that the real time that passes meanwhile on the server decides nothing: no sum of steps comes
# near a delay, a lease, the gap that is an outage (half a lease), or the day that an id stays known.
STEP = 2000.0
LEASE = 5000
DELAYS = [1000.0, 3000.0, 7000.0]
RATES = [3000.0, 7000.0]
RENEWALS = [5000.0, 9000.0]
ADVANCES = [STEP, STEP, 2 * STEP, 5 * STEP, 44 * STEP]
LONGEST_LEASE = 9000.0
SLACK = 200.0

# Run times are powers of eight and weights powers of two, so that no sum is rounded, in double or in decimal figures.
# A learned run time gets three more digits with each lesson; after so many it is set to a whole number.
RUN_TIMES = [0.064, 0.512, 4.096]
WEIGHTS = [0.5, 1.0, 1.0, 2.0]
LESSONS = 6

SCHEMAS = ["acme_corp", "globex_inc", "initech_llc"]
FUNCS = ["f", "g"]
WORKERS = ["w1", "w2", "w3"]
IDS = [f"p{n:02}" for n in range(14)]

schemas, workers, ids = st.sampled_from(SCHEMAS), st.sampled_from(WORKERS), st.sampled_from(IDS)
limits = st.sampled_from([None, 1, 1, 2])
uniques = st.builds(Unique, st.sampled_from(FUNCS), st.sampled_from(["k", "a\nkey"]), st.booleans(), st.booleans())
progresses = st.builds(Progress, st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from(["", "a\nb"]))
choices = st.builds(Chosen, st.just(True), st.booleans(), st.sampled_from(["", *FUNCS])) | st.just(Chosen(queued=False))
policies = st.builds(
    Policy,
    weight=st.sampled_from(WEIGHTS),
    max_running=limits,
    max_queued=st.sampled_from([None, None, 2, 5]),
    paused=st.sampled_from([False, False, True]),
)


class TwoBrokers(RuleBasedStateMachine):
    """Every rule does one operation on both brokers and compares the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.real = InMemory(), OnRedis()
        self.drivers: tuple[Driver, Driver] = (self.model, self.real)
        # Accepted, and not yet acknowledged or purged.
        self.alive: set[str] = set()
        # Every lease ever given, also those that fit no more: its worker, and what each broker gave.
        self.leases: list[tuple[str, Lease, Lease]] = []
        self.lessons: Counter[tuple[str, str]] = Counter()
        self.since_drained = 0

    def teardown(self) -> None:
        self.real.end()

    def both(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call both a second after the last call. They answer the same."""
        self.advance_both(1.0)
        answers = []
        for driver in self.drivers:
            try:
                answers.append(getattr(driver.broker, method)(*arguments, **options))
            except QueueFull:
                answers.append(QueueFull)
        assert answers[0] == answers[1], method
        self.since_drained += 1
        return answers[0]

    def both_with(self, method: str, worker: str, pairs: list[tuple[Any, Any]], *arguments: Any, **options: Any) -> Any:
        """As `both`, with arguments of which each broker has its own, since the tokens in them are its own."""
        self.advance_both(1.0)
        answers = [
            getattr(driver.broker, method)(worker, own, *arguments, **options)
            for driver, own in zip(self.drivers, zip(*pairs, strict=True), strict=True)
        ]
        assert answers[0] == answers[1], method
        self.since_drained += 1
        return answers[0]

    def advance_both(self, seconds: float) -> None:
        for driver in self.drivers:
            driver.advance(seconds)

    def some_leases(self, data: Any, most: int = 4) -> list[tuple[str, Lease, Lease]]:
        """Leases in the order in which they were given: in force, or another lease is for their package, or late."""
        held = self.model.broker.leased
        of_held = [one for one in self.leases if one[1].id in held][-10:]
        candidates = of_held + [one for one in self.leases[-3:] if one not in of_held]
        indexes = data.draw(st.sets(st.integers(0, len(candidates) - 1), min_size=1, max_size=most))
        return [candidates[index] for index in sorted(indexes)]

    # Packages

    @rule(
        wanted=st.lists(ids, min_size=1, max_size=4),
        schema=schemas,
        func=st.sampled_from(FUNCS),
        once=st.sampled_from([False, False, True]),
        follows=st.sampled_from(["", "", IDS[0], IDS[1]]),
        delay=st.sampled_from([0.0] * 9 + DELAYS),
        limited=st.booleans(),
        unique=st.one_of(st.none(), st.none(), uniques),
        priority=st.sampled_from([0, 0, 0, 0, 5, 5, -100, 100]),
        interval=st.sampled_from([0.0] * 5 + RATES),
        is_site_rate=st.booleans(),
    )
    def enqueue(self, wanted, schema, func, once, follows, delay, limited, unique, priority, interval, is_site_rate):
        payloads = {id: f"{id} of {schema}\n;" for id in wanted}
        lane = {"priority": priority, "interval": interval, "is_site_rate": is_site_rate}
        messages = [Message(id, schema, func, payloads[id], delay, once, "", follows, unique, **lane) for id in wanted]
        before = set(self.model.broker.messages)
        accepted = self.both("enqueue", messages, limited=limited)
        new = set(self.model.broker.messages) - before
        assert len(new) == (0 if accepted is QueueFull else accepted)
        assert not new & self.alive
        self.alive |= new

    @rule(id=ids, schema=schemas, unique=uniques, limited=st.booleans())
    def enqueue_unique(self, id, schema, unique, limited):
        message = Message(id, schema, unique.func, f"{id} of {schema}\n;", unique=unique)
        answer = self.both("enqueue_unique", message, limited=limited)
        assert answer is QueueFull or answer in self.model.broker.messages
        self.alive |= {answer} - {QueueFull}

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release_unique(self, data):
        self.each_lease(data, "release_unique")

    @rule(worker=workers, limit=st.sampled_from([1, 2, 5, 64]), seconds=st.sampled_from([0.05, 0.6, 0.6, 5.0]))
    def fetch(self, worker, limit, seconds):
        self.fetch_both(worker, limit, seconds)

    @rule(each=st.permutations(WORKERS))
    def fetch_all(self, each):
        """Every worker is busy: what each gets depends on those before."""
        for worker in each:
            self.fetch_both(worker, 3, 0.6)

    def fetch_both(self, worker: str, limit: int, seconds: float) -> list[tuple[str, Lease, Lease]]:
        self.advance_both(1.0)
        ours, theirs = (driver.broker.fetch(worker, limit=limit, seconds=seconds) for driver in self.drivers)
        assert [without_token(lease) for lease in ours.leases] == [without_token(lease) for lease in theirs.leases]
        assert ours.next_delayed == pytest.approx(theirs.next_delayed, abs=SLACK)
        taken = [(worker, *pair) for pair in zip(ours.leases, theirs.leases, strict=True)]
        self.leases += taken
        self.since_drained += 1
        assert len({lease.token for _, _, lease in self.leases}) == len(self.leases), "a token is given once"
        assert len(taken) <= limit
        for schema in {lease.schema for lease in ours.leases}:
            policy = self.real.broker.policies().get(schema, Policy())
            assert not policy.paused
            busy = self.real.client.hlen(self.real.key(f"running:{schema}"))
            assert policy.max_running is None or busy <= policy.max_running
        return taken

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), seconds=st.sampled_from(RUN_TIMES))
    def acknowledge(self, data, seconds):
        drawn = self.some_leases(data)
        worker = drawn[0][0]
        self.acknowledge_both([one for one in drawn if one[0] == worker], seconds)  # a worker has its own leases only

    def acknowledge_both(self, leases: list[tuple[str, Lease, Lease]], seconds: float) -> None:
        funcs = {lease.id: self.func_of(lease.id) for _, lease, _ in leases}
        settled = [(Settled(ours, seconds), Settled(theirs, seconds)) for _, ours, theirs in leases]
        self.run_for(len(leases))
        refused = Counter(self.both_with("acknowledge", leases[0][0], settled))
        taken = Counter(lease.id for _, lease, _ in leases) - refused
        assert set(taken.values()) <= {1}, "one outcome a package"
        assert set(taken) <= self.alive
        self.alive -= set(taken)
        self.both("statistics")
        for id in taken:
            self.learn(funcs[id])

    def run_for(self, runs: int) -> None:
        """Let as much time pass as these runs take, or more: what is charged is never the server's own time then."""
        self.advance_both(runs * (RUN_TIMES[-1] + 1.0))

    def func_of(self, id: str) -> tuple[str, str]:
        message = self.model.broker.messages.get(id)
        return (message.schema, message.func) if message else ("", "")

    def learn(self, func: tuple[str, str]) -> None:
        for field in (func, ("*", func[1])):  # what is learned of the tenant, and of all
            self.lessons[field] += 1
            if self.lessons[field] > LESSONS:
                self.lessons[field] = 1
                self.model.broker.costs[field] = 64.0
                self.real.client.hset(self.real.key("costs"), ";".join(field), 64)

    @precondition(lambda self: self.stale())
    @rule(data=st.data())
    def acknowledge_stale(self, data):
        """Its package is in another's hands."""
        lease = data.draw(st.sampled_from(self.stale()))
        self.acknowledge_both([lease], RUN_TIMES[0])
        assert lease[1].id in self.alive

    def stale(self) -> list[tuple[str, Lease, Lease]]:
        held = self.model.broker.leased
        return [one for one in self.leases if one[1].id in held and held[one[1].id].lease != one[1]]

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data):
        leases = self.some_leases(data)
        self.both_with("give_back", leases[0][0], [(ours, theirs) for _, ours, theirs in leases])

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        delay=st.sampled_from([0.0, *DELAYS]),
        payload=st.sampled_from([None, "", "another\npayload"]),
        seconds=st.sampled_from([0.0, *RUN_TIMES]),
        unready=st.booleans(),
    )
    def put_off(self, data, delay, payload, seconds, unready):
        self.run_for(1)
        self.each_lease(data, "put_off", delay=delay, payload=payload, seconds=seconds, unready=unready)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), cause=st.sampled_from(["a cause", "another\ncause"]))
    def dead_letter(self, data, cause):
        self.each_lease(data, "dead_letter", cause)

    def each_lease(self, data: Any, method: str, *arguments: Any, **options: Any) -> None:
        ((worker, *leases),) = self.some_leases(data, most=1)
        self.advance_both(1.0)
        for driver, lease in zip(self.drivers, leases, strict=True):
            getattr(driver.broker, method)(worker, lease, *arguments, **options)
        self.since_drained += 1

    # Cancelling and progress

    @precondition(lambda self: self.alive)
    @rule(id=ids, schema=schemas, who=st.sampled_from(["Ada", "Bob"]))
    def cancel(self, id, schema, who):
        self.both("cancel", schema, id, f"{CANCELLED}: by {who}")

    @precondition(lambda self: self.alive)
    @rule(wanted=st.lists(ids, unique=True, max_size=6), schema=schemas)
    def cancel_all(self, wanted, schema):
        self.both("cancel_all", schema, wanted, f"{CANCELLED}: by Eve")

    @precondition(lambda self: self.model.broker.leased)
    @rule(reported=st.dictionaries(workers, st.tuples(ids, progresses)))
    def set_progress(self, reported):
        self.both("set_progress", reported)

    # What waits

    @precondition(lambda self: len(self.alive) > 3)
    @rule(schema=schemas, chosen=choices)
    def take_waiting(self, schema, chosen):
        self.advance_both(1.0)
        taken = [
            sorted(
                dead_without_time(one) for some in driver.broker.take_waiting(schema, chosen, "purged") for one in some
            )
            for driver in self.drivers
        ]
        assert taken[0] == taken[1]
        counts = [driver.broker.count_waiting(schema) for driver in self.drivers]
        assert counts[0] == counts[1]

    # The dead

    @precondition(lambda self: self.model.broker.died)
    @rule(wanted=st.dictionaries(ids, st.sampled_from(["", "repaired"]), max_size=6))
    def retry_dead(self, wanted):
        self.both("retry_dead", wanted)

    @precondition(lambda self: self.model.broker.died)
    @rule(wanted=st.lists(ids, max_size=6))
    def purge_dead(self, wanted):
        dead = {one.id for one in self.model.broker.dead()}
        assert self.both("purge_dead", wanted) == len(dead & set(wanted))
        self.alive -= dead & set(wanted)

    @precondition(lambda self: len(self.alive) > 6)
    @rule()
    def purge(self):
        self.both("purge")
        self.alive &= set(self.model.broker.leased)

    # Leases

    @precondition(lambda self: self.model.broker.leased)
    @rule(alive=st.lists(workers, max_size=3), seconds=st.sampled_from(RENEWALS))
    def renew(self, alive, seconds):
        self.advance_both(1.0)
        held = [driver.broker.renew(alive, seconds) for driver in self.drivers]
        of_model, of_real = ({worker: sorted(ids) for worker, ids in found.items()} for found in held)
        assert of_model == of_real

    @precondition(lambda self: self.model.broker.leased)
    @rule(
        worker=workers,
        data=st.data(),
        give_up_reason=st.sampled_from([None, None, "a reason"]),
        death=st.sampled_from([None, "was killed", "ended"]),
    )
    def die(self, worker, data, give_up_reason, death):
        held = [id for id, held in self.model.broker.leased.items() if held.worker == worker]
        running = data.draw(st.sampled_from([*held, None, IDS[0]]))
        charged = data.draw(st.booleans())
        self.both("reclaim", worker, running=running, give_up_reason=give_up_reason, charged=charged, death=death)

    @rule()
    def expire(self):
        self.both("expire")
        self.both("statistics")

    @rule(seconds=st.sampled_from(ADVANCES))
    def advance(self, seconds):
        self.advance_both(seconds)

    @precondition(lambda self: self.model.broker.leased)
    @rule()
    def advance_and_expire(self):
        """Time passes and nobody is away: leases run out."""
        for _ in range(3):
            self.both("expire")
            self.advance_both(STEP)
        self.both("expire")

    # Policies

    @rule(chosen=st.dictionaries(schemas, policies, max_size=2), complete=st.sampled_from([False, False, False, True]))
    def set_policies(self, chosen, complete):
        self.both("set_policies", chosen, complete=complete)
        self.both("policies")

    # The end

    @precondition(lambda self: self.since_drained > 15)
    @rule()
    def drain(self):
        """When everything has been run, nothing is left but what is learned, and the clocks."""
        self.both("set_policies", {}, complete=True)
        self.both("reclaim", "w1", running=None)
        while self.model.broker.leased:
            self.advance_and_expire()
        self.advance_both(5 * STEP)
        while (taken := self.fetch_both("w1", 64, 5.0)) or self.model.broker.rate_due:
            if taken:
                self.acknowledge_both(taken, 0.064)
            self.advance_both(5 * STEP)
        self.both("purge_dead", [one.id for one in self.model.broker.dead()])
        self.alive -= self.alive & (self.alive - set(self.model.broker.messages))
        for driver in self.drivers:
            driver.broker.cancelled()  # which forgets those that are not leased any more
        assert self.alive == set()
        assert self.both("counts").open == 0
        assert {
            re.sub(r"^(figures|day_functions|alias|rate):.+$", r"\1", name, flags=re.DOTALL)
            for name in self.real.key_names()
        } <= MAY_STAY
        self.since_drained = 0

    # What holds at any time

    @invariant()
    def they_answer_the_same(self):
        assert self.model.broker.counts() == self.real.broker.counts()
        ours, theirs = ([dead_without_time(one) for one in driver.broker.dead()] for driver in self.drivers)
        assert ours == theirs
        for schema in SCHEMAS:
            ours, theirs = ([live_without_time(one) for one in d.broker.live(schema)] for d in self.drivers)
            assert ours == theirs
        cancelled = [sorted(driver.broker.cancelled(), key=lambda one: one.id) for driver in self.drivers]
        assert cancelled[0] == cancelled[1]
        found = [driver.broker.find(SCHEMAS[0], IDS[0]) for driver in self.drivers]
        our, their = (one and live_without_time(one) for one in found)
        assert our == their
        for id in IDS[:3]:
            for method in ("place", "state", "get_progress", "real_id"):
                ours, theirs = (getattr(driver.broker, method)(SCHEMAS[0], id) for driver in self.drivers)
                assert ours == theirs, method
        loads = [driver.broker.loads() for driver in self.drivers]
        # Of a real server's time no hour passes, so what it has done in the last one is compared elsewhere.
        assert places_of(loads[0]) == places_of(loads[1])
        assert self.model.broker.totals() == self.real.broker.totals()

    @invariant()
    def the_keys_fit(self):
        keys, model = self.real.read(SCHEMAS, WORKERS), self.model.broker
        # Each accepted id is in exactly one place, and has a message.
        places = Counter([id for queue in [*keys["queue"].values(), *keys["lane"].values()] for id in queue])
        places.update([*keys["leases"], *keys["delayed"], *keys["dead"]])
        assert set(places.values()) <= {1}, "in two places"
        assert set(places) == set(keys["messages"]) == self.alive == set(model.messages)
        # The queues and the ring are those of the model, to the last figure.
        assert keys["queue"] == {schema: model.queues[schema] for schema in SCHEMAS}
        self.the_lanes_fit(keys)
        assert set(keys["ready"]) == model.ring
        for schema in SCHEMAS:
            assert float(keys["vtime"].get(schema, 0)) == model.virtual[schema]
        assert all(keys["ready"][schema] == model.virtual[schema] for schema in model.ring)
        assert keys["ring"] == model.ring_time
        # Who is in the ring.
        for schema in SCHEMAS:
            policy = model.in_force.get(schema, Policy())
            at_cap = policy.max_running is not None and len(keys["running"][schema]) >= policy.max_running
            has_work = bool(keys["queue"][schema] or keys["open"][schema])
            assert (schema in keys["ready"]) == (has_work and not policy.paused and not at_cap)
        # Only the lease itself says what it holds.
        assert set(keys["leased"]) == set(keys["leases"])
        assert Counter(id for held in keys["held"].values() for id in held) == Counter(set(keys["leases"]))
        holders = {id: worker for worker, held in keys["held"].items() for id in held}
        schema_of = {id: message.split("\n")[0] for id, message in keys["messages"].items()}
        for schema in SCHEMAS:
            busy = Counter(worker for id, worker in holders.items() if schema_of[id] == schema)
            assert {worker: int(count) for worker, count in keys["running"][schema].items()} == busy
        # Unique keys.
        fields = {"\n".join(field): id for field, id in model.key_holders.items()}
        assert keys["unique"] == fields
        assert {id: (entry[0] == "s") for id, entry in keys["unique_of"].items()} == {
            id: unique.until_start for id, unique in model.unique_of.items()
        }
        assert set(fields.values()) <= set(keys["unique_of"]) - set(keys["dead"])
        assert set(keys["unique_of"]) <= self.alive
        # Deadlines.
        for id, deadline in keys["leases"].items():
            assert deadline - keys["now"] == pytest.approx(model.leased[id].deadline - model.clock(), abs=SLACK)
            assert deadline - keys["now"] <= LONGEST_LEASE + SLACK, "longer than any lease"
        for id, due in keys["delayed"].items():
            assert due - keys["now"] == pytest.approx(model.delayed[id] - model.clock(), abs=SLACK)
        # What is kept beside.
        for schema in SCHEMAS:
            own = {id for id in keys["delayed"] if schema_of[id] == schema}
            assert set(keys["delayed_of"][schema]) == own, "each is in its tenant's set too"
        assert keys["unready"] <= set(keys["delayed"])
        assert set(keys["causes"]) == set(keys["dead"])
        assert {*keys["starts"], *keys["alone"]} <= self.alive - set(keys["dead"])
        assert set(keys["verdicts"]) <= self.alive
        assert all(
            model.histories[id].give_up_reason.startswith(CANCELLED) for id in {*keys["verdicts"]} & {*keys["dead"]}
        )
        assert keys["wake"] <= 64

    def the_lanes_fit(self, keys: dict[str, Any]) -> None:
        model = self.model.broker
        assert keys["lane"] == {
            f"{schema};{level}{';' if rate else ''}{rate}": ids
            for schema, lanes in model.lanes.items()
            for (level, rate), ids in lanes.items()
        }
        assert set(keys["lanes"]) == set(model.lane_of)
        assert {schema: int(count) for schema, count in keys["laned"].items()} == {
            schema: sum(map(len, lanes.values())) for schema, lanes in model.lanes.items() if lanes
        }
        for schema in SCHEMAS:
            assert keys["open"][schema] == sorted(model.open[schema], key=model.open[schema].__getitem__)
        assert keys["turns"] == {rate: list(waiting) for rate, waiting in model.turns.items()}
        parked = {schema: {rate for rate, waiting in model.turns.items() if schema in waiting} for schema in SCHEMAS}
        assert keys["parked"] == {schema: rates for schema, rates in parked.items() if rates}
        assert set(keys["rate_due"]) == set(model.turns), "someone comes for it"
        for rate, due in keys["rate_due"].items():
            assert due - keys["now"] == pytest.approx(model.rate_due[rate] - model.clock(), abs=SLACK)


def places_of(loads: Any) -> dict[str, tuple[int, ...]]:
    return {schema: (one.queued, one.leased, one.delayed, one.dead) for schema, one in loads.items()}


def without_token(lease: Lease) -> tuple[Any, ...]:
    return (lease.id, lease.schema, lease.payload, lease.starts, lease.give_up_reason, lease.death)


def live_without_time(one: Any) -> tuple[Any, ...]:
    return (one.id, one.schema, one.func, one.place, one.payload, one.give_up_reason)


def dead_without_time(one: Any) -> tuple[Any, ...]:
    return (one.id, one.schema, one.func, one.cause, one.payload)


def test_redis_does_what_the_specification_says(settings):
    settings.TENANT_Q = {"lease": LEASE}
    run_state_machine_as_test(TwoBrokers, settings=PROFILE)


LONG_RUN = int(os.environ.get("HYPOTHESIS_EXAMPLES", "0"))
PROFILE = settings(
    max_examples=LONG_RUN or 40,
    stateful_step_count=40,
    derandomize=not LONG_RUN,
    database=None,
    deadline=None,
    print_blob=bool(LONG_RUN),
    suppress_health_check=list(HealthCheck),
)
