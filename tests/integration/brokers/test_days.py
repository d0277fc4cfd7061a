"""A day of figures: periods, functions and tenants; what it costs; and that nothing of it stays."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence

import pytest

from tenant_q.brokers.days import (
    BOUNDS,
    DAY_PARTS,
    DAY_PERIODS,
    PART_PERIODS,
    SAMPLE_SECONDS,
    Day,
    FunctionFigures,
    Histogram,
    Period,
    TenantFigures,
)
from tenant_q.brokers.loads import PERIOD_SECONDS, Figures
from tenant_q.brokers.protocol import MOST_DAY_FUNCTIONS, OTHER_FUNCTIONS, Broker, Settled
from tenant_q.brokers.redis import RedisBroker, day_elements, days
from tests.conftest import wait_until
from tests.integration.brokers.drivers import OnRedis, fetch_one, finish, put
from tests.integration.brokers.test_monitoring import run


@pytest.fixture(autouse=True)
def _no_period_ends_within_a_test() -> None:
    """The clock of a real server cannot be set."""
    wait_until(lambda: time.time() % PERIOD_SECONDS < PERIOD_SECONDS - 5)


def shown(broker: Broker, schema: str | None = None) -> list[tuple[int, int, int | None]]:
    """Done, failed and queued, by period."""
    return [(one.done, one.failed, one.queued) for one in broker.day(schema).periods]


def by_name(day: Day) -> dict[str, FunctionFigures]:
    return {one.func: one for one in day.functions}


def test_nothing_was_done(broker):
    day = broker.day()
    assert (day.periods, day.functions) == ((), ())
    assert broker.day("acme_corp") == day
    assert broker.top_tenants() == broker.top_tenants(day=True) == []


def test_the_present_period_is_shown_at_once(broker):
    run(broker, "a", "b", seconds=0.5, waited=2.0)
    run(broker, "c", schema="globex_inc", seconds=0.02, waited=0.001, failed=True)
    put(broker, "left")
    assert shown(broker, "acme_corp") == [(2, 0, 1)]
    assert shown(broker, "globex_inc") == [(0, 1, 0)]
    assert shown(broker) == [(2, 1, 1)]
    assert broker.day("nobody").periods == ()
    (period,) = broker.day("acme_corp").periods
    assert period.start % PERIOD_SECONDS == 0
    assert period.busy_seconds == 1.0
    assert 0.256 < period.runs.quantile(0.95) <= 1.024 and 1.024 < period.waits.quantile(0.5) <= 4.096


@pytest.mark.parametrize("is_recorded", [True, False])
def test_each_period_is_kept_for_itself(broker, driver, is_recorded):
    run(broker, "a", "b", seconds=0.5)
    for number, schema in enumerate(("acme_corp", "globex_inc", "acme_corp")):
        driver.advance_figures(2)
        if is_recorded:
            assert broker.record_periods() == 2
        run(broker, f"later {number}", schema=schema, seconds=0.01)
    acme, every = broker.day("acme_corp").periods, broker.day().periods
    assert [one.done for one in acme] == [2, 1, 1] and [one.done for one in every] == [2, 1, 1, 1]
    starts = [(one.start - every[0].start) / PERIOD_SECONDS for one in every]
    assert starts == [0, 2, 4, 6]
    assert [one.start for one in acme] == [every[at].start for at in (0, 1, 3)]


def test_a_period_is_recorded_once(broker, driver):
    run(broker, "a", seconds=0.5, waited=0.3)
    put(broker, "b", "c")
    before = broker.day("acme_corp").periods[0]
    driver.advance_figures(1)
    assert shown(broker, "acme_corp")[0] == (1, 0, None), "nobody has counted what was queued at its end"
    assert broker.record_periods() == 1
    assert broker.record_periods() == 0
    after = broker.day("acme_corp").periods[0]
    assert (after.done, after.waits, after.runs, after.busy_seconds) == (1, before.waits, before.runs, 0.5)
    assert shown(broker, "acme_corp") == shown(broker) == [(1, 0, 2), (0, 0, 2)]


def test_what_is_queued_is_recorded_while_nothing_is_done(broker, driver):
    """As on a bad day, when all workers hang."""
    put(broker, "a", "b")
    driver.advance_figures(1)
    broker.record_periods()
    assert shown(broker, "acme_corp") == [(0, 0, 2), (0, 0, 2)]


def busy(broker: Broker, schema: str | None = None) -> list[float]:
    return [one.busy_seconds for one in broker.day(schema).periods]


def test_what_runs_keeps_workers_busy_in_each_period(broker, driver):
    """Also if it does not end, and an hour of run time does not count in the period in which it ends."""
    put(broker, "long")
    put(broker, "other", schema="globex_inc")
    (long,), (other,) = (broker.fetch(worker, limit=1).leases for worker in ("w1", "w2"))
    for seconds in (10.0, 5.0):
        broker.note_busy([long.id, other.id, "unknown"], seconds)
    assert (busy(broker, long.schema), busy(broker)) == ([15.0], [30.0])
    for _ in range(2):
        driver.advance_figures(1)
        broker.note_busy([long.id], 300.0)
    assert busy(broker, long.schema) == [15.0, 300.0, 300.0]
    assert broker.record_periods() == 2
    assert (busy(broker, long.schema), busy(broker, other.schema)) == ([15.0, 300.0, 300.0], [15.0])
    driver.advance_figures(1)
    broker.note_busy([], 10.0)
    assert broker.acknowledge("w1", [Settled(long, 3600.0)]) == []
    assert broker.record_periods() == 1
    driver.advance_figures(1)
    assert busy(broker) == [30.0, 300.0, 300.0, SAMPLE_SECONDS]
    broker.record_periods()
    assert busy(broker) == [30.0, 300.0, 300.0, SAMPLE_SECONDS]
    assert [one.done for one in broker.day().periods] == [0, 0, 0, 1]


def test_without_samples_the_run_times_count(broker, driver):
    run(broker, "a", seconds=40.0)
    assert busy(broker) == [40.0]
    driver.advance_figures(1)
    broker.record_periods()
    assert busy(broker) == busy(broker, "acme_corp") == [40.0]


def test_an_outage_of_an_hour_costs_no_period(broker, driver):
    run(broker, "a")
    driver.advance_figures(1)
    run(broker, "b")
    driver.advance_figures(12)
    broker.record_periods()
    assert shown(broker, "acme_corp") == shown(broker) == [(1, 0, None), (1, 0, None)]


def test_a_period_leaves_the_day_after_a_day(broker, driver):
    run(broker, "a", seconds=0.5)
    driver.advance_figures(1)
    broker.record_periods()
    driver.advance_figures(DAY_PERIODS - 2)
    run(broker, "b", schema="globex_inc")
    assert shown(broker) == [(1, 0, 0), (1, 0, 0)]
    driver.advance_figures(1)
    assert shown(broker) == [(1, 0, None)]
    assert shown(broker, "acme_corp") == []


def test_functions_of_a_tenant_and_of_all(broker, driver):
    run(broker, "a", "b", func="f", seconds=0.5)
    run(broker, "c", func="g", seconds=0.002, failed=True)
    run(broker, "d", func="g", schema="globex_inc", seconds=0.002)
    for _ in range(2):  # before and after it is recorded
        acme, every = by_name(broker.day("acme_corp")), by_name(broker.day())
        assert (acme["f"].done, acme["f"].failed, acme["f"].run_seconds) == (2, 0, 1.0)
        assert (acme["g"].done, acme["g"].failed, sum(acme["g"].runs.counts)) == (0, 1, 1)
        assert (every["g"].done, every["g"].failed, every["f"]) == (1, 1, acme["f"])
        assert 0.256 < every["f"].runs.quantile(0.95) <= 1.024
        driver.advance_figures(1)
        broker.record_periods()


def test_functions_are_counted_for_a_day(broker, driver):
    run(broker, "a", func="f")
    broker.record_periods()
    driver.advance_figures(PART_PERIODS)
    broker.record_periods()
    run(broker, "b", func="f")
    assert by_name(broker.day("acme_corp"))["f"].done == 2
    driver.advance_figures(5 * PART_PERIODS)
    assert by_name(broker.day("acme_corp"))["f"].done == 1
    driver.advance_figures(PART_PERIODS)
    assert broker.day("acme_corp").functions == ()


def test_a_tenant_has_only_so_many_functions_in_its_day(broker):
    for number in range(MOST_DAY_FUNCTIONS + 3):
        run(broker, f"{number}", func=f"f{number}")
    run(broker, "again", func="f0")
    acme = by_name(broker.day("acme_corp"))
    assert len(acme) == MOST_DAY_FUNCTIONS + 1
    assert (acme["f0"].done, acme[OTHER_FUNCTIONS].done) == (2, 3)
    assert len(broker.day().functions) == MOST_DAY_FUNCTIONS + 3


def test_top_tenants(broker, driver):
    run(broker, "a", "b", "c", seconds=0.001)
    run(broker, "d", schema="globex_inc", seconds=0.001, failed=True)
    run(broker, "e", schema="initech_llc", seconds=9.0)
    run(broker, "f", schema="neither", seconds=0.001)

    def top(**options: int) -> dict[str, TenantFigures]:
        return {one.schema: one for one in broker.top_tenants(most=1, **options)}

    for _ in range(2):
        assert set(top()) == set(top(day=True)) == {"acme_corp", "globex_inc", "initech_llc"}
        assert top(day=True)["initech_llc"] == TenantFigures("initech_llc", 1, 0, 9.0)
        assert top()["acme_corp"] == top(day=True)["acme_corp"] == TenantFigures("acme_corp", 3, 0, 0.003)
        driver.advance_figures(1)
        broker.record_periods()
    driver.advance_figures(13)
    assert top() == {} and len(top(day=True)) == 3
    driver.advance_figures(6 * PART_PERIODS)
    assert top(day=True) == {}


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.004, 0.005, 0.016, 1.0, 1048.576, 1048.6, 1e6])
def test_a_time_is_counted_by_the_bound_that_it_does_not_exceed(broker, driver, seconds):
    run(broker, "a", seconds=seconds, waited=seconds)
    expected = [0] * (len(BOUNDS) + 1)
    expected[sum(seconds > bound for bound in BOUNDS)] = 1
    driver.advance_figures(1)
    broker.record_periods()
    day = broker.day("acme_corp")
    assert day.periods[0].runs == day.periods[0].waits == day.functions[0].runs == Histogram(tuple(expected))


def test_a_quantile_lies_between_the_bounds_of_what_it_falls_into():
    assert Histogram().quantile(0.95) is None
    counts = [0] * (len(BOUNDS) + 1)
    counts[1] = 100
    assert Histogram(tuple(counts)).quantile(0.5) == pytest.approx(0.01)
    counts[-1] = 100
    assert Histogram(tuple(counts)).quantile(0.95) == BOUNDS[-1]


def test_what_is_refused_is_in_no_day(broker):
    put(broker, "a")
    late = fetch_one(broker)
    broker.reclaim("w1", running=None)
    finish(broker, fetch_one(broker, "w2"), worker="w2")
    assert finish(broker, late) == ["a"]
    assert shown(broker) == [(1, 0, 0)]
    assert broker.day("acme_corp").functions[0].done == 1


def test_the_days_of_several_clusters_are_added():
    times = Histogram((1,) * (len(BOUNDS) + 1))
    one = Day((Period(300.0, 1, 0, times, times, 0.5, 3), Period(600.0, 2)), (FunctionFigures("f", 1),), 100.0)
    other = Day((Period(0.0, 4), Period(300.0, 1, 2, times, times, 0.25)), (FunctionFigures("f", 2, 1),), 200.0)
    both = one + other
    assert [period.start for period in both.periods] == [0.0, 300.0, 600.0]
    assert both.periods[1] == Period(300.0, 2, 2, times + times, times + times, 0.75, 3)
    assert (both.functions, both.functions_since) == ((FunctionFigures("f", 3, 1),), 200.0)
    assert Day() + one == one


# In Redis


@pytest.fixture
def on_redis() -> Iterator[OnRedis]:
    driver = OnRedis()
    yield driver
    driver.end()


def keys_of_days(driver: OnRedis) -> list[bytes]:
    return sorted(driver.client.scan_iter(driver.key("day*")))


def work_hard(driver: OnRedis, schema: str, number: int) -> None:
    """Have the broker keep a period of a tenant with a hundred thousand tasks of all durations."""
    counts = [100_000, 20_000, *[70_000 + place for place in range(25)], *[70_000 + place for place in range(25)]]
    figures = Figures.of(counts, 10**11, 10**9)
    rows = days._tenant_rows(number, {schema: figures}, {schema: 16_000_000}, None)
    driver.broker._run("keep_day", number, len(rows), *(part for row in rows for part in row))


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """Numbers as `cmsgpack` packs them."""
    found = [bytes([0x90 + len(numbers)])]
    for number in numbers:
        bits = max(number.bit_length(), 8)
        found.append(
            struct.pack(
                ">BH" if bits <= 16 else ">BI" if bits <= 32 else ">BQ", 0xCD + (bits > 16) + (bits > 32), number
            )
        )
    return b"".join(found)


def know_as_short(driver: OnRedis) -> None:
    run(driver.broker, "short", seconds=0.0001)


def commands(driver: OnRedis) -> int:
    """How many commands scripts have run on the server."""
    stats = driver.client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name not in ("cmdstat_evalsha", "cmdstat_info"))


def test_the_day_of_a_tenant_is_at_most_20_kilobytes(on_redis):
    """A day of all periods, with any durations, and of more functions than have figures of their own."""
    schema = "s" * 63
    run(on_redis.broker, "first", schema=schema)
    on_redis.broker.client.delete(*keys_of_days(on_redis))
    period = int(on_redis.client.time()[0]) // PERIOD_SECONDS
    for number in range(period - 2 * DAY_PERIODS, period):
        work_hard(on_redis, schema, number)
    part = period // PART_PERIODS
    for number in range(MOST_DAY_FUNCTIONS + 3):
        run(on_redis.broker, f"{number}", schema=schema, func=f"{number:03}{'f' * 253}", seconds=0.5)
    full = [70_000, 10**11, *[65_535] * 7, *[100_000] * 4]
    (functions,) = on_redis.client.scan_iter(on_redis.key("day_functions:*;*"))
    for place, packed in on_redis.client.hgetall(functions).items():
        assert on_redis.client.hset(functions, place, pack_numbers(full)) == 0 and len(packed) < 64
    for ago in range(1, DAY_PARTS):
        on_redis.client.copy(functions, on_redis.key(f"day_functions:{part - ago};{schema}"), replace=True)
    own = [name for name in keys_of_days(on_redis) if schema.encode() in name]
    sizes = {name.decode().split(":", 3)[-1][:20]: on_redis.client.memory_usage(name, samples=0) for name in own}
    in_tenants = on_redis.client.memory_usage(on_redis.key(f"day_tenants:{part}"), samples=0)
    print(f"\n{sizes}, {DAY_PARTS} times {in_tenants} in the table of tenants", end="")
    assert len(on_redis.broker.day(schema).periods) >= DAY_PERIODS - 1
    assert sum(sizes.values()) + DAY_PARTS * in_tenants <= 20_000


def test_an_acknowledgement_costs_no_more_commands_than_before_but_two(on_redis):
    """Of a tenant and a function. Without the day it was 43, for any number of packages."""
    know_as_short(on_redis)
    put(on_redis.broker, *(f"{number}" for number in range(64)))
    leases = on_redis.broker.fetch("w1").leases
    before = commands(on_redis)
    assert on_redis.broker.acknowledge("w1", [Settled(lease, 0.001, 0.1) for lease in leases]) == []
    counted = commands(on_redis) - before
    print(f"\n{len(leases)} packages: {counted} commands", end="")
    assert len(leases) == 64 and counted <= 45


def test_a_quiet_tenant_costs_little(on_redis):
    run(on_redis.broker, "a", "b", "c")
    on_redis.advance_figures(1)
    on_redis.broker.record_periods()
    own = [name for name in keys_of_days(on_redis) if b"acme_corp" in name]
    assert sum(on_redis.client.memory_usage(name) for name in own) <= 500


def test_nothing_is_left_a_day_after_the_last_task(on_redis):
    run(on_redis.broker, "a")
    on_redis.advance_figures(1)
    on_redis.broker.record_periods()
    left = [on_redis.client.ttl(name) for name in keys_of_days(on_redis)]
    assert left and all(0 < seconds <= 24 * 3600 for seconds in left)
    on_redis.advance_figures(DAY_PERIODS - 1)
    assert keys_of_days(on_redis) == []


def test_two_sentinels_record_a_period_once(on_redis):
    other = RedisBroker(on_redis.broker.cluster)
    for number in range(2):
        run(on_redis.broker, f"{number}")
        on_redis.advance_figures(1)
    assert (other.record_periods(), on_redis.broker.record_periods()) == (2, 0)
    assert shown(on_redis.broker) == [(1, 0, None), (1, 0, 0)]


def test_a_broken_day_is_moved_aside(on_redis):
    part = int(on_redis.client.time()[0]) // PERIOD_SECONDS // PART_PERIODS
    on_redis.client.set(on_redis.key(f"day_functions:{part};acme_corp"), "nonsense")
    run(on_redis.broker, "a")
    assert by_name(on_redis.broker.day("acme_corp"))["f"].done == 1
    on_redis.advance_figures(1)
    on_redis.client.set(on_redis.key("day:acme_corp"), "nonsense")
    on_redis.broker.record_periods()
    assert shown(on_redis.broker, "acme_corp") == [(1, 0, 0)]


@pytest.mark.parametrize("scale", [1, 255, 256, 10**5])
def test_large_counts_keep_their_proportions(scale):
    figures = Figures.of([90 * scale, 10 * scale, *[0] * 5, 95 * scale, *[0] * 9, 5 * scale, *[0] * 34], 0, 0)
    exact = Period.of(5_900_000, figures, None)
    packed = day_elements.pack(exact)
    assert len(packed) == 16 + 1 + 1 + 6
    period = day_elements.unpack(packed)
    assert (period.start, period.done, period.failed, period.queued) == (exact.start, 90 * scale, 10 * scale, None)
    assert sum(period.runs.counts) == pytest.approx(100 * scale, rel=0.01)
    for part in (0.5, 0.9, 0.99):
        assert period.runs.quantile(part) == pytest.approx(exact.runs.quantile(part), rel=0.1)


def test_a_number_that_does_not_fit_is_the_largest_that_does():
    figures = Figures.of([2**31, 2**31, *[2**31] * 50], 10**18, 0)
    period = day_elements.unpack(day_elements.pack(Period.of(5_900_000, figures, 2**40)))
    assert (period.done, period.failed, period.queued) == (2**24 - 1, 2**24 - 1, 2**24 - 2)
