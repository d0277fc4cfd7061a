"""One tenant's packages: list, find, cancel, progress."""

from __future__ import annotations

import pytest

from tenant_q.brokers.protocol import CANCEL_REACH, Cancelled, Live
from tenant_q.states import Progress, State
from tests.integration.brokers.drivers import fetch, fetch_one, finish, know, put, run_out

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


def test_the_packages_of_one_place(broker):
    know(broker, 0.1)
    put(broker, *"abcd")
    put(broker, "later", delay=60)
    broker.fetch("w1", limit=2)

    def found(place: str, limit: int = 100) -> list[str]:
        return [one.id for one in broker.live("acme_corp", place=place, limit=limit)]

    assert (found("leased"), found("queued"), found("delayed")) == (["a", "b"], ["c", "d"], ["later"])
    assert (found("queued", 1), found("delayed", 1)) == (["c"], ["later"]), "the limit is for what is listed"


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


def test_a_give_up_reason_is_shown(broker):
    put(broker, "a")
    fetch_one(broker)
    assert broker.live("acme_corp")[0].give_up_reason is None
    broker.reclaim("w1", running="a", give_up_reason="v")
    assert broker.live("acme_corp")[0].give_up_reason == "v"
    assert broker.state("acme_corp", "a") is State.QUEUED, "a worker saves its failed row, and gives it up"


def test_starts_that_ended_with_a_death_are_counted(broker):
    put(broker, "a")
    for deaths in (0, 1, 2):
        (shown,) = broker.live("acme_corp")
        assert shown.deaths == deaths
        assert broker.find("acme_corp", "a") == shown
        fetch_one(broker)
        broker.reclaim("w1", running="a")


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
