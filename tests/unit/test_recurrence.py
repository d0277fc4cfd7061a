"""Next runs and argument texts. No database: the functions are pure."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tenant_q.exceptions import BadSchedule
from tenant_q.schedules.cron import MAX_CRON
from tenant_q.schedules.recurrence import Kind, following, missed, next_run, replanned
from tenant_q.schedules.wall_clock import MOVED

BERLIN = ZoneInfo("Europe/Berlin")  # 2026: 02:00 → 03:00 on 29 March, 03:00 → 02:00 on 25 October
NEW_YORK = ZoneInfo("America/New_York")  # 2026: 02:00 → 03:00 on 8 March, 02:00 → 01:00 on 1 November
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # 2026: 02:00 → 01:30 on 5 April, 02:00 → 02:30 on 4 October
APIA = ZoneInfo("Pacific/Apia")  # has no 30 December 2011
UTC_ZONE = ZoneInfo("UTC")

RECURRING = [kind for kind in Kind if kind is not Kind.ONCE]
CALENDAR = [kind for kind in RECURRING if kind not in (Kind.MINUTES, Kind.HOURLY, Kind.CRON)]


def at(zone: ZoneInfo | None, text: str, fold: int = 0) -> datetime:
    """The moment at which a clock in `zone` shows `text` (naive without a zone)."""
    wall = datetime.fromisoformat(text)
    return wall if zone is None else wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def shown(zone: ZoneInfo | None, moment: datetime) -> str:
    """What the clock in `zone` shows; a + says it shows that for the second time."""
    local = moment if zone is None else moment.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M}" + "+" * local.fold


def runs(kind: str, zone: ZoneInfo | None, start: datetime, count: int, **options: Any) -> list[str]:
    """What the clock shows at the `count` runs after `start`, each counted from the one before."""
    found = []
    for _ in range(count):
        later = next_run(kind, start, zone=zone, **options)
        assert later > start
        assert (later.tzinfo is None) == (zone is None)
        start = later
        found.append(shown(zone, later))
    return found


# Every type, on an ordinary day


@pytest.mark.parametrize("zone", [None, UTC_ZONE, BERLIN, LORD_HOWE])
@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("I", {"minutes": 7}, "2026-01-15 06:07"),
        ("I", {}, "2026-01-15 06:01"),
        ("I", {"minutes": 0}, "2026-01-15 06:01"),
        ("H", {}, "2026-01-15 07:00"),
        ("D", {}, "2026-01-16 06:00"),
        ("W", {}, "2026-01-22 06:00"),
        ("BW", {}, "2026-01-29 06:00"),
        ("M", {}, "2026-02-15 06:00"),
        ("BM", {}, "2026-03-15 06:00"),
        ("Q", {}, "2026-04-15 06:00"),
        ("Y", {}, "2027-01-15 06:00"),
        ("C", {"cron": "*/5 * * * *"}, "2026-01-15 06:05"),
        ("C", {"cron": "30 5 * * mon-fri"}, "2026-01-16 05:30"),
        ("C", {"cron": "@monthly"}, "2026-02-01 00:00"),
        ("C", {"cron": "0 0 29 2 *"}, "2028-02-29 00:00"),
        ("C", {"cron": "0 0 1 1 * 0 2099"}, "2099-01-01 00:00"),
    ],
)
def test_next_run_of_every_type(zone, kind, options, expected):
    assert runs(kind, zone, at(zone, "2026-01-15 06:00"), 1, **options) == [expected]


def test_now_may_be_in_any_zone():
    first, second = (datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=fold) for fold in (0, 1))
    found = following("I", first, second, catch_up=False, zone=BERLIN, minutes=10)
    assert found == at(BERLIN, "2026-10-25 02:40", fold=1)
    found = following("I", second, first, catch_up=False, zone=BERLIN, minutes=10)
    assert found == at(BERLIN, "2026-10-25 02:40", fold=1)


def test_type_codes_are_those_of_django_q2():
    assert [str(kind) for kind in Kind] == ["O", "I", "H", "D", "W", "BW", "M", "BM", "Q", "Y", "C"]


def test_result_is_in_utc_whatever_zone_planned_has():
    planned = datetime(2026, 1, 15, 6, tzinfo=NEW_YORK)
    for kind in RECURRING:
        assert next_run(kind, planned, zone=BERLIN, cron="0 6 * * *").tzinfo is UTC


def test_seconds_and_microseconds_are_kept():
    planned = at(BERLIN, "2026-03-28 06:00:12.345678")
    for kind in (*CALENDAR, Kind.MINUTES, Kind.HOURLY):
        later = next_run(kind, planned, zone=BERLIN)
        assert (later.second, later.microsecond) == (12, 345678)


def test_cron_with_seconds():
    planned = at(BERLIN, "2026-03-29 01:59:50")
    moments = [planned]
    for _ in range(3):
        moments.append(next_run("C", moments[-1], zone=BERLIN, cron="* * * * * */20"))
    assert [(m - planned).total_seconds() for m in moments] == [0, 10, 30, 50]


# Ends of months, leap days


@pytest.mark.parametrize("zone", [None, BERLIN])
@pytest.mark.parametrize(
    ("kind", "start", "expected"),
    [
        ("M", "2026-01-31 06:00", ["2026-02-28 06:00", "2026-03-28 06:00", "2026-04-28 06:00"]),
        ("M", "2028-01-31 06:00", ["2028-02-29 06:00", "2028-03-29 06:00"]),
        ("M", "2026-12-31 06:00", ["2027-01-31 06:00"]),
        ("M", "2026-05-31 06:00", ["2026-06-30 06:00", "2026-07-30 06:00"]),
        ("BM", "2025-12-31 06:00", ["2026-02-28 06:00", "2026-04-28 06:00"]),
        ("Q", "2026-01-31 06:00", ["2026-04-30 06:00", "2026-07-30 06:00"]),
        ("Q", "2025-11-30 06:00", ["2026-02-28 06:00", "2026-05-28 06:00"]),
        ("Y", "2028-02-29 06:00", ["2029-02-28 06:00", "2030-02-28 06:00"]),
        ("D", "2028-02-28 06:00", ["2028-02-29 06:00", "2028-03-01 06:00"]),
        ("D", "2026-02-28 06:00", ["2026-03-01 06:00"]),
        ("W", "2026-12-28 06:00", ["2027-01-04 06:00"]),
    ],
)
def test_months_end_and_leap_days(zone, kind, start, expected):
    assert runs(kind, zone, at(zone, start), len(expected)) == expected


# Daylight saving time, types that follow the calendar


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        (BERLIN, "2026-03-27 06:00"),
        (BERLIN, "2026-10-23 06:00"),
        (NEW_YORK, "2026-03-06 06:00"),
        (NEW_YORK, "2026-10-30 06:00"),
        (LORD_HOWE, "2026-04-03 06:00"),
        (LORD_HOWE, "2026-10-02 06:00"),
    ],
)
def test_six_o_clock_stays_six_o_clock(zone, start):
    planned = at(zone, start)
    days = [(datetime.fromisoformat(start) + timedelta(days=n)).strftime("%Y-%m-%d %H:%M") for n in range(1, 5)]
    assert runs("D", zone, planned, 4) == days
    assert runs("C", zone, planned, 4, cron="0 6 * * *") == days
    for kind in CALENDAR:
        assert all(run.endswith("06:00") for run in runs(kind, zone, planned, 12)), kind


def test_yearly_keeps_the_wall_clock_when_the_offset_differs():
    # At 06:00 on 28 March it is winter time in 2026 (until the 29th) and summer time in 2027 (from the 28th on).
    assert runs("Y", BERLIN, at(BERLIN, "2026-03-28 06:00"), 2) == ["2027-03-28 06:00", "2028-03-28 06:00"]


@pytest.mark.parametrize(
    ("zone", "start", "expected"),
    [
        (BERLIN, "2026-03-28 02:30", ["2026-03-29 03:30", "2026-03-30 02:30", "2026-03-31 02:30"]),
        (BERLIN, "2026-03-28 02:00", ["2026-03-29 03:00", "2026-03-30 02:00"]),
        (BERLIN, "2026-03-28 03:30", ["2026-03-29 03:30", "2026-03-30 03:30"]),
        (NEW_YORK, "2026-03-07 02:30", ["2026-03-08 03:30", "2026-03-09 02:30"]),
        (LORD_HOWE, "2026-10-03 02:15", ["2026-10-04 02:45", "2026-10-05 02:15"]),
        (LORD_HOWE, "2026-10-03 02:45", ["2026-10-04 02:45", "2026-10-05 02:45"]),
        (BERLIN, "2026-10-24 02:30", ["2026-10-25 02:30", "2026-10-26 02:30"]),
        (NEW_YORK, "2026-10-31 01:30", ["2026-11-01 01:30", "2026-11-02 01:30"]),
        (LORD_HOWE, "2026-04-04 01:45", ["2026-04-05 01:45", "2026-04-06 01:45"]),
        (APIA, "2011-12-28 06:00", ["2011-12-29 06:00", "2011-12-31 06:00", "2012-01-01 06:00"]),
    ],
)
def test_daily_where_the_clock_jumps(zone, start, expected):
    assert runs("D", zone, at(zone, start), len(expected)) == expected


def test_a_run_moved_out_of_a_gap_is_24_hours_later_and_marked():
    before = at(BERLIN, "2026-03-28 02:30")
    moved = next_run("D", before, zone=BERLIN)
    assert moved == before + timedelta(days=1, microseconds=MOVED)
    assert next_run("D", moved, zone=BERLIN) == at(BERLIN, "2026-03-30 02:30")


@pytest.mark.parametrize(
    ("kind", "start", "then"),
    [
        ("W", "2026-03-22 02:30", "2026-04-05 02:30"),
        ("BW", "2026-03-15 02:30", "2026-04-12 02:30"),
        ("M", "2026-02-28 02:30", "2026-04-28 02:30"),
        ("BM", "2026-01-29 02:30", "2026-05-29 02:30"),
        ("Q", "2025-12-29 02:30", "2026-06-29 02:30"),
        ("Y", "2025-03-29 02:30", "2027-03-29 02:30"),
    ],
)
def test_other_types_also_find_back_from_a_gap(kind, start, then):
    assert runs(kind, BERLIN, at(BERLIN, start), 2)[1] == then


def test_a_mark_where_no_clock_jumped_means_nothing():
    planned = at(BERLIN, "2026-03-30 03:30:00.000001")
    assert next_run("D", planned, zone=BERLIN) == planned + timedelta(days=1)


def test_a_run_the_second_time_a_clock_shows_it_is_not_taken_for_the_first():
    second = at(BERLIN, "2026-10-25 02:30", fold=1)
    assert runs("D", BERLIN, second, 1) == ["2026-10-26 02:30"]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, LORD_HOWE])
def test_minutes_and_hours_are_durations(zone):
    for month in range(1, 13):
        planned = at(zone, f"2026-{month:02}-01 00:10")
        for _ in range(24 * 31):
            later = next_run("H", planned, zone=zone)
            assert later - planned == timedelta(hours=1)
            assert next_run("I", planned, zone=zone, minutes=45) - planned == timedelta(minutes=45)
            planned = later


# Daylight saving time, cron


@pytest.mark.parametrize(
    ("zone", "cron", "start", "expected"),
    [
        # a gap: once, when it ends
        (BERLIN, "30 2 * * *", "2026-03-28 12:00", ["2026-03-29 03:00", "2026-03-30 02:30", "2026-03-31 02:30"]),
        (BERLIN, "*/20 2 * * *", "2026-03-28 12:00", ["2026-03-29 03:00", "2026-03-30 02:00", "2026-03-30 02:20"]),
        (BERLIN, "0,30 2,3 * * *", "2026-03-28 12:00", ["2026-03-29 03:00", "2026-03-29 03:30", "2026-03-30 02:00"]),
        (NEW_YORK, "30 2 * * *", "2026-03-07 12:00", ["2026-03-08 03:00", "2026-03-09 02:30"]),
        (LORD_HOWE, "15 2 * * *", "2026-10-03 12:00", ["2026-10-04 02:30", "2026-10-05 02:15"]),
        (APIA, "0 6 * * *", "2011-12-29 06:00", ["2011-12-31 00:00", "2011-12-31 06:00", "2012-01-01 06:00"]),
        # an overlap: once, the first time
        (BERLIN, "30 2 * * *", "2026-10-24 12:00", ["2026-10-25 02:30", "2026-10-26 02:30"]),
        (BERLIN, "*/30 2 * * *", "2026-10-24 12:00", ["2026-10-25 02:00", "2026-10-25 02:30", "2026-10-26 02:00"]),
        (NEW_YORK, "30 1 * * *", "2026-10-31 12:00", ["2026-11-01 01:30", "2026-11-02 01:30"]),
        (LORD_HOWE, "45 1 * * *", "2026-04-04 12:00", ["2026-04-05 01:45", "2026-04-06 01:45"]),
        # every hour: by real time
        (BERLIN, "*/20 * * * *", "2026-03-29 01:30", ["2026-03-29 01:40", "2026-03-29 03:00", "2026-03-29 03:20"]),
        (
            BERLIN,
            "*/30 * * * *",
            "2026-10-25 02:00",
            ["2026-10-25 02:30", "2026-10-25 02:00+", "2026-10-25 02:30+", "2026-10-25 03:00"],
        ),
        (NEW_YORK, "0 * * * *", "2026-11-01 00:00", ["2026-11-01 01:00", "2026-11-01 01:00+", "2026-11-01 02:00"]),
        (
            LORD_HOWE,
            "*/15 * * * *",
            "2026-04-05 01:30",
            ["2026-04-05 01:45", "2026-04-05 01:30+", "2026-04-05 01:45+", "2026-04-05 02:00"],
        ),
        (LORD_HOWE, "*/15 * * * *", "2026-10-04 01:45", ["2026-10-04 02:30", "2026-10-04 02:45"]),
    ],
)
def test_cron_where_the_clock_jumps(zone, cron, start, expected):
    assert runs("C", zone, at(zone, start), len(expected), cron=cron) == expected


def test_cron_with_hours_does_not_run_again_in_the_second_pass():
    second = at(BERLIN, "2026-10-25 02:10", fold=1)
    assert runs("C", BERLIN, second, 1, cron="30 2 * * *") == ["2026-10-26 02:30"]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, LORD_HOWE, APIA])
@pytest.mark.parametrize("step", [5, 30])
def test_cron_every_hour_is_what_a_watcher_of_the_clock_would_do(zone, step):
    """All moments whose local minute fits, found by looking at every minute around each jump of a year."""
    year = 2011 if zone is APIA else 2026
    moment, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    jumps, offset = [], moment.astimezone(zone).utcoffset()
    while moment < end:
        moment += timedelta(minutes=15)
        if (now := moment.astimezone(zone).utcoffset()) != offset:
            jumps.append(moment)
            offset = now
    assert len(jumps) >= 2
    for jump in jumps:
        minutes = [jump + timedelta(minutes=n) for n in range(-180, 180)]
        watched = [m for m in minutes if m.astimezone(zone).minute % step == 0]
        told, moment = [], minutes[0] - timedelta(seconds=1)
        while (moment := next_run("C", moment, zone=zone, cron=f"*/{step} * * * *")) <= minutes[-1]:
            told.append(moment)
        assert told == watched


# following


@pytest.mark.parametrize("zone", [None, BERLIN])
@pytest.mark.parametrize(
    ("kind", "options", "caught_up", "skipped"),
    [
        ("I", {"minutes": 7}, "2026-01-05 06:07", "2026-07-01 12:01"),
        ("H", {}, "2026-01-05 07:00", "2026-07-01 13:00"),
        ("D", {}, "2026-01-06 06:00", "2026-07-02 06:00"),
        ("W", {}, "2026-01-12 06:00", "2026-07-06 06:00"),
        ("BW", {}, "2026-01-19 06:00", "2026-07-06 06:00"),
        ("M", {}, "2026-02-05 06:00", "2026-07-05 06:00"),
        ("BM", {}, "2026-03-05 06:00", "2026-07-05 06:00"),
        ("Q", {}, "2026-04-05 06:00", "2026-07-05 06:00"),
        ("Y", {}, "2027-01-05 06:00", "2027-01-05 06:00"),
        ("C", {"cron": "15 */4 * * *"}, "2026-01-05 08:15", "2026-07-01 12:15"),
        ("C", {"cron": "*/5 * * * *"}, "2026-01-05 06:05", "2026-07-01 12:05"),
    ],
)
def test_following_with_and_without_catching_up(zone, kind, options, caught_up, skipped):
    if zone is not None and kind == "I":
        skipped = "2026-07-01 12:05"  # the hour that summer time took is no multiple of 7 minutes
    planned, now = at(zone, "2026-01-05 06:00"), at(zone, "2026-07-01 12:00")
    for catch_up, expected in ((True, caught_up), (False, skipped)):
        found = following(kind, planned, now, catch_up=catch_up, zone=zone, **options)
        assert shown(zone, found) == expected


@pytest.mark.parametrize("kind", RECURRING)
def test_following_when_fired_on_the_dot_or_early_is_the_next_run(kind):
    planned = at(BERLIN, "2026-03-28 06:00")
    expected = next_run(kind, planned, zone=BERLIN, cron="0 6 * * *")
    for early in (timedelta(0), timedelta(seconds=2), timedelta(days=400)):
        for catch_up in (True, False):
            found = following(kind, planned, planned - early, catch_up=catch_up, zone=BERLIN, cron="0 6 * * *")
            assert found == expected


@pytest.mark.parametrize("kind", RECURRING)
def test_following_is_strictly_after_now(kind):
    planned = at(BERLIN, "2026-03-20 06:00")
    now = next_run(kind, planned, zone=BERLIN, cron="0 6 * * *")
    found = following(kind, planned, now, catch_up=False, zone=BERLIN, cron="0 6 * * *")
    assert found == next_run(kind, now, zone=BERLIN, cron="0 6 * * *")


@pytest.mark.parametrize("kind", RECURRING)
@pytest.mark.parametrize("year", [1, 1900, 2016])
def test_long_past_costs_no_more_than_yesterday(kind, year):
    planned = datetime(year, 1, 31, 2, 30, tzinfo=UTC)
    now = at(BERLIN, "2026-03-31 12:00")
    options: dict[str, Any] = {"catch_up": False, "zone": BERLIN, "minutes": 1, "cron": "*/5 * * * *"}
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        found = following(kind, planned, now, **options)
        taken.append(time.perf_counter() - begun)
    assert found > now
    assert min(taken) < 0.002


def test_the_phase_is_kept_over_ten_years():
    planned = datetime(2016, 1, 1, 0, 3, 17, tzinfo=UTC)
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    found = following("I", planned, now, catch_up=False, zone=BERLIN, minutes=1)
    assert found == datetime(2026, 1, 1, 12, 0, 17, tzinfo=UTC)


# Properties

zones = st.sampled_from([None, UTC_ZONE, BERLIN, NEW_YORK, LORD_HOWE, APIA])
walls = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)).map(lambda d: d.replace(microsecond=0))
near_jumps = st.builds(
    lambda day, seconds: datetime.fromisoformat(day) + timedelta(seconds=seconds),
    st.sampled_from(["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-10-04", "2011-12-30"]),
    st.integers(-40 * 86_400, 2 * 86_400),
)
crons = st.sampled_from(
    [
        "*/5 * * * *",
        "0 6 * * *",
        "30 2 * * *",
        "*/10 1-3 * * *",
        "15 */6 * * *",
        "0 0 l * *",
        "45 1 * * sun",
        "0 2 13 * 5",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(RECURRING), zones, walls | near_jumps, st.integers(0, 50_000), crons)
def test_next_run_is_later(kind, zone, wall, minutes, cron):
    planned = wall if zone is None else wall.replace(tzinfo=UTC)
    assert next_run(kind, planned, zone=zone, minutes=minutes, cron=cron) > planned


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(RECURRING), zones, walls | near_jumps, st.integers(1, 300), crons, st.integers(0, 14), st.data())
def test_following_equals_stepping(kind, zone, wall, minutes, cron, steps, data):
    """Without catching up it is where one gets by taking next runs until one is later than now."""
    planned = wall if zone is None else wall.replace(tzinfo=UTC)
    options = {"zone": zone, "minutes": minutes, "cron": cron}
    reached = planned
    for _ in range(steps):
        reached = next_run(kind, reached, **options)
    now = reached + data.draw(st.timedeltas(timedelta(0), timedelta(days=2)))
    while reached <= now:
        reached = next_run(kind, reached, **options)
    assert following(kind, planned, now, catch_up=False, **options) == reached
    assert following(kind, planned, now, catch_up=True, **options) == next_run(kind, planned, **options)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(CALENDAR), st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE]), walls | near_jumps, st.integers(1, 40)
)
def test_wall_clock_is_kept_wherever_it_exists(kind, zone, wall, steps):
    planned = at(zone, wall.isoformat())
    assume(planned.astimezone(zone).replace(tzinfo=None) == wall)
    moment = planned
    for _ in range(steps):
        moment = next_run(kind, moment, zone=zone)
        if moment.microsecond != MOVED:
            assert moment.astimezone(zone).time() == wall.time()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE]), near_jumps, st.integers(0, 23), st.integers(0, 59))
def test_cron_with_an_hour_runs_once_each_local_day(zone, wall, hour, minute):
    moment = at(zone, wall.replace(hour=12, minute=0, second=0).isoformat())
    for _ in range(60):
        day = moment.astimezone(zone).date()
        moment = next_run("C", moment, zone=zone, cron=f"{minute} {hour} * * *")
        assert moment.astimezone(zone).date() in (day, day + timedelta(days=1))
        assert moment.astimezone(zone).date() != day or hour >= 12


# Bad schedules


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("O", {}, "no next run"),
        ("X", {}, "'X'"),
        ("", {}, "''"),
        (None, {}, "None"),
        ("I", {"minutes": -5}, "-5"),
        ("I", {"minutes": "5"}, "'5'"),
        ("I", {"minutes": 10**12}, "date"),
        ("I", {"minutes": 10**40}, "date"),
        ("C", {}, "''"),
        ("C", {"cron": None}, "''"),
        ("C", {"cron": "* * * *"}, "'* * * *' does not parse: Exactly 5, 6 or 7"),
        ("C", {"cron": "61 * * * *"}, "'61 * * * *' does not parse"),
        ("C", {"cron": "a b c d e"}, "'a b c d e' does not parse"),
        ("C", {"cron": "h h * * *"}, "hash_id"),
        ("C", {"cron": "@reboot"}, "'@reboot'"),
        ("C", {"cron": "0 0 31 2 *"}, "'0 0 31 2 *' has no moment after 2026-01-15"),
        ("C", {"cron": "0 0 1 1 * 0 2020"}, "has no moment after"),
        ("C", {"cron": "1," * MAX_CRON}, f"longer than {MAX_CRON}"),
    ],
)
@pytest.mark.parametrize("zone", [None, BERLIN])
def test_bad_schedules(zone, kind, options, words):
    planned = at(zone, "2026-01-15 06:00")
    with pytest.raises(BadSchedule) as caught:
        next_run(kind, planned, zone=zone, **options)
    assert words in str(caught.value)
    for catch_up in (True, False):
        with pytest.raises(BadSchedule):
            following(kind, planned, planned, catch_up=catch_up, zone=zone, **options)


@pytest.mark.parametrize("zone", [None, UTC_ZONE, BERLIN])
@pytest.mark.parametrize("kind", RECURRING)
def test_the_end_of_the_calendar(zone, kind):
    last = datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC if zone else None)
    with pytest.raises(BadSchedule):
        next_run(kind, last, zone=zone, cron="0 6 * * *")


def test_the_start_of_the_calendar():
    first = datetime.min.replace(tzinfo=UTC, microsecond=MOVED)
    for zone in (BERLIN, NEW_YORK):
        for kind in RECURRING:
            try:
                assert next_run(kind, first, zone=zone, cron="0 6 * * *") > first
            except BadSchedule:
                pass


def test_awareness_must_fit_the_zone():
    aware, naive = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1)
    with pytest.raises(ValueError, match="planned"):
        next_run("D", naive, zone=BERLIN)
    with pytest.raises(ValueError, match="planned"):
        next_run("D", aware, zone=None)
    with pytest.raises(ValueError, match="now"):
        following("D", aware, naive, catch_up=True, zone=BERLIN)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="0123456789*/-,#?lwLWhHrR @adfmnosu()", max_size=40) | st.text(max_size=20))
def test_any_cron_text_is_understood_or_bad(text):
    planned = datetime(2026, 3, 28, 12, tzinfo=UTC)
    try:
        assert next_run("C", planned, zone=BERLIN, cron=text) > planned
    except BadSchedule as error:
        assert repr(text) in str(error)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("61 * * * *", " at '61', the minute"),
        ("0 0 * 13 *", " at '13', the month"),
        ("0 0 * * mo", " at 'mo', the day of the week"),
        ("0 0 * * * 99", " at '99', the second"),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_an_error_in_a_cron_text_names_the_part(text, place):
    with pytest.raises(BadSchedule) as raised:
        next_run("C", datetime(2026, 1, 1, tzinfo=UTC), zone=ZoneInfo("UTC"), cron=text)
    assert f"cron text {text!r} does not parse{place}: " in str(raised.value)


# A recurrence that takes the place of another


@pytest.mark.parametrize(
    ("kind", "zone", "planned", "now", "minutes", "expected"),
    [
        (Kind.DAILY, BERLIN, "2026-03-30 06:00", "2026-03-26 07:00", None, "2026-03-27 06:00"),
        (Kind.DAILY, BERLIN, "2026-03-30 06:00", "2026-03-26 05:00", None, "2026-03-26 06:00"),
        (Kind.DAILY, BERLIN, "2026-03-30 02:30", "2026-03-28 12:00", None, "2026-03-29 03:30"),
        (Kind.HOURLY, BERLIN, "2026-03-30 06:17", "2026-03-29 01:20", None, "2026-03-29 03:17"),
        (Kind.HOURLY, BERLIN, "2026-03-30 06:17", "2026-03-30 05:17", None, "2026-03-30 06:17"),
        (Kind.MINUTES, None, "2026-03-30 06:17", "2026-03-30 05:58", 5, "2026-03-30 06:02"),
        (Kind.WEEKLY, None, "2026-03-30 06:00", "2026-03-29 06:00", None, "2026-03-30 06:00"),
        (Kind.WEEKLY, None, "2026-12-31 06:00", "2026-03-29 06:00", None, "2026-04-02 06:00"),
        (Kind.MONTHLY, None, "2026-12-31 06:00", "2026-02-01 06:00", None, "2026-02-28 06:00"),
        (Kind.YEARLY, None, "2028-02-29 06:00", "2026-02-01 06:00", None, "2026-02-28 06:00"),
        (Kind.DAILY, None, "2020-01-01 06:00", "2026-02-01 07:00", None, "2026-02-02 06:00"),
        (Kind.ONCE, None, "2027-01-01 06:00", "2026-02-01 07:00", None, "2027-01-01 06:00"),
    ],
)
def test_replanned(kind, zone, planned, now, minutes, expected):
    found = replanned(kind, at(zone, planned), at(zone, now), zone=zone, minutes=minutes)
    assert shown(zone, found) == expected


@given(
    kind=st.sampled_from([Kind.MINUTES, Kind.HOURLY, *CALENDAR]),
    zone=st.sampled_from([None, BERLIN, LORD_HOWE, APIA]),
    planned=st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)),
    now=st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)),
    minutes=st.integers(1, 100_000),
)
@settings(deadline=None)
def test_what_is_planned_anew_is_the_first_later_than_now(kind, zone, planned, now, minutes):
    planned, now = (
        moment if zone is None else moment.replace(tzinfo=zone).astimezone(UTC) for moment in (planned, now)
    )
    found = replanned(kind, planned, now, zone=zone, minutes=minutes)
    assert found > now
    longest = timedelta(minutes=minutes) if kind == Kind.MINUTES else LONGEST_STEP[kind]
    assert found - now <= longest + timedelta(days=1), "no occurrence is passed over"
    if planned > now:
        assert found <= planned


LONGEST_STEP = {
    Kind.HOURLY: timedelta(hours=1),
    Kind.DAILY: timedelta(days=1),
    Kind.WEEKLY: timedelta(days=7),
    Kind.BIWEEKLY: timedelta(days=14),
    Kind.MONTHLY: timedelta(days=31),
    Kind.BIMONTHLY: timedelta(days=62),
    Kind.QUARTERLY: timedelta(days=92),
    Kind.YEARLY: timedelta(days=366),
}


@pytest.mark.parametrize("planned", ["2020-01-01 06:00", "2027-01-01 06:00"])
def test_a_cron_text_is_planned_anew_from_now(planned):
    found = replanned(Kind.CRON, at(None, planned), at(None, "2026-02-01 07:00"), zone=None, cron="30 6 * * *")
    assert shown(None, found) == "2026-02-02 06:30"


@pytest.mark.parametrize(("kind", "minutes"), [("?", None), (Kind.MINUTES, -1)])
@pytest.mark.parametrize("planned", ["2020-01-01 06:00", "2027-01-01 06:00"])
def test_what_cannot_be_replanned(kind, minutes, planned):
    with pytest.raises(BadSchedule):
        replanned(kind, at(None, planned), at(None, "2026-02-01 07:00"), zone=None, minutes=minutes)


# What was missed


@pytest.mark.parametrize(
    ("kind", "planned", "now", "minutes", "cron", "count"),
    [
        (Kind.DAILY, "2020-01-01 06:00", "2026-11-25 05:00", None, None, 2519),
        (Kind.DAILY, "2026-03-28 02:30", "2026-03-30 02:30", None, None, 2),
        (Kind.HOURLY, "2026-03-28 02:30", "2026-03-28 05:29", None, None, 2),
        (Kind.MINUTES, "2026-03-28 02:30", "2026-03-28 03:00", 5, None, 6),
        (Kind.MONTHLY, "2026-01-31 06:00", "2026-04-28 06:00", None, None, 3),
        (Kind.YEARLY, "2020-02-29 06:00", "2026-02-28 05:59", None, None, 5),
        (Kind.CRON, "2026-03-28 06:00", "2026-03-31 05:59", None, "0 6 * * *", 2),
        (Kind.CRON, "2026-03-28 06:00", "2027-03-28 06:00", None, "* * * * *", 50),
        (Kind.ONCE, "2020-01-01 06:00", "2026-11-25 05:00", None, None, 0),
        (Kind.DAILY, "2026-11-26 06:00", "2026-11-25 05:00", None, None, 0),
    ],
)
@pytest.mark.parametrize("zone", [None, BERLIN])
def test_missed(kind, planned, now, minutes, cron, count, zone):
    assert missed(kind, at(zone, planned), at(zone, now), most=50, zone=zone, minutes=minutes, cron=cron) == count


@given(
    kind=st.sampled_from([Kind.MINUTES, Kind.HOURLY, *CALENDAR]),
    zone=st.sampled_from([None, BERLIN, LORD_HOWE]),
    planned=st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1)),
    days=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_missed_counts_what_catching_up_fires(kind, zone, planned, days):
    planned = planned if zone is None else planned.replace(tzinfo=zone).astimezone(UTC)
    now = planned + timedelta(days=days, minutes=7)
    count, moment = -1, planned
    while moment <= now:
        count, moment = count + 1, next_run(kind, moment, zone=zone, minutes=60)
    found = missed(kind, planned, now, most=0, zone=zone, minutes=60)
    assert abs(found - count) <= (1 if kind in CALENDAR else 0), "a day that a month lacks may move what follows"
