"""A day of figures: periods, functions and tenants; what it costs; and that nothing of it stays."""

from __future__ import annotations

import pytest

from tenant_q.brokers.days import BOUNDS, DAY_PERIODS, PART_PERIODS, Day, FunctionFigures, Histogram, TenantFigures
from tenant_q.brokers.loads import PERIOD_SECONDS
from tenant_q.brokers.protocol import MOST_DAY_FUNCTIONS, OTHER_FUNCTIONS, Broker
from tests.integration.brokers.drivers import fetch_one, finish, put
from tests.integration.brokers.test_monitoring import run


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
