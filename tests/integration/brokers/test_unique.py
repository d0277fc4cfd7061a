"""Unique keys: at most one package of a tenant that waits or runs has a key."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_q.brokers.protocol import CANCELLED, Broker, Message, Policy, Unique
from tenant_q.exceptions import QueueFull
from tests.conftest import wait_until
from tests.integration.brokers.drivers import fetch_one, finish, put, run_out

KEY = Unique("f", "k")
UNTIL_START = Unique("f", "k", until_start=True)


def add(broker: Broker, id: str, unique: Unique = KEY, schema: str = "acme_corp", **fields: Any) -> str:
    message = Message(id, schema, "f", f"payload of {id}", unique=unique, **fields)
    return broker.enqueue_unique(message, limited=True)


def test_the_first_one_has_the_key(broker):
    assert [add(broker, id) for id in ("a", "b", "a")] == ["a", "a", "a"]
    assert put(broker, "c", unique=KEY) == 0, "in bulk too"
    assert [one.id for one in broker.live("acme_corp")] == ["a"]


def test_a_key_belongs_to_a_tenant_and_a_function(broker):
    others = [Unique("f", "other"), Unique("g", "k"), Unique("f", "\nk"), Unique("f", "k\n")]
    ids = [add(broker, f"p{n}", unique) for n, unique in enumerate([KEY, *others])]
    assert [*ids, add(broker, "q", schema="globex_inc")] == ["p0", "p1", "p2", "p3", "p4", "q"]


def test_a_later_tenant_of_a_name_has_keys_of_its_own(broker):
    assert add(broker, "a", tenant="7") == "a"
    assert add(broker, "b", tenant="8") == "b"
    broker.rename_tenant("7", "acme_corp", "acme_ltd")
    assert add(broker, "c", schema="acme_ltd", tenant="7") == "a", "it keeps them under another name"


def test_it_is_kept_until_the_end(driver, broker):
    add(broker, "a")
    broker.put_off("w1", fetch_one(broker), delay=60)
    assert add(broker, "b") == "a"
    driver.advance(61)
    broker.give_back("w1", [fetch_one(broker)])
    fetch_one(broker)
    broker.reclaim("w1", running="a")
    fetch_one(broker)
    run_out(driver)
    lease = fetch_one(broker)
    broker.release_unique("w1", lease)
    assert add(broker, "b") == "a"
    finish(broker, lease)
    assert add(broker, "b") == "b"


def test_it_may_be_released_at_the_start(broker):
    add(broker, "a", UNTIL_START)
    lease = fetch_one(broker)
    assert add(broker, "b", UNTIL_START) == "a"
    broker.release_unique("w2", lease)
    assert add(broker, "b", UNTIL_START) == "a", "by the worker that has it"
    broker.release_unique("w1", lease)
    assert add(broker, "b", UNTIL_START) == "b"
    finish(broker, lease)
    assert add(broker, "c", UNTIL_START) == "b", "the end of the first one does not release it"


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_a_cancel_releases_what_waits(broker, delay):
    add(broker, "a", delay=delay)
    broker.cancel("acme_corp", "a", f"{CANCELLED}: by Ada")
    assert add(broker, "b") == "b"
    finish(broker, fetch_one(broker))
    assert add(broker, "c") == "b"


def test_a_cancelled_task_that_runs_keeps_it_until_its_end(broker):
    add(broker, "a")
    lease = fetch_one(broker)
    broker.cancel("acme_corp", "a", f"{CANCELLED}: by Ada")
    assert add(broker, "b") == "a"
    finish(broker, lease)
    assert add(broker, "b") == "b"


def test_a_dead_letter_has_no_key(broker):
    add(broker, "a")
    broker.dead_letter("w1", fetch_one(broker), "a cause")
    assert add(broker, "b") == "b"
    broker.retry_dead({"a": ""})
    assert broker.counts().queued == 2 and add(broker, "c") == "b", "another one has it meanwhile"
    for _ in range(2):
        finish(broker, fetch_one(broker))
    assert add(broker, "c") == "c"
    broker.dead_letter("w1", fetch_one(broker), "a cause")
    broker.retry_dead({"c": ""})
    assert add(broker, "d") == "c", "it is free"
    broker.dead_letter("w1", fetch_one(broker), "a cause")
    broker.purge_dead(["c"])
    assert add(broker, "d") == "d"


def test_a_purge_releases_what_is_not_leased(broker):
    other = Unique("f", "other")
    add(broker, "a")
    fetch_one(broker)
    add(broker, "b", other)
    broker.purge()
    assert (add(broker, "c"), add(broker, "d", other)) == ("a", "d")


def test_the_keys_of_a_deleted_tenant_are_gone(driver, broker):
    add(broker, "a", tenant="7")
    lease = fetch_one(broker)
    add(broker, "b", Unique("f", "other"), tenant="7", delay=60)
    broker.forget_tenant("acme_corp", "7", f"{CANCELLED}: deleted", seconds=60)
    finish(broker, lease)
    broker.forget_tenant("acme_corp", "7", f"{CANCELLED}: deleted", seconds=60)
    driver.advance_kept(61)
    assert add(broker, "c", tenant="8") == "c"
    assert add(broker, "d", Unique("f", "other"), tenant="8") == "d"


def test_it_needs_no_room_in_a_full_queue(broker):
    broker.set_policies({"acme_corp": Policy(max_queued=1)})
    assert [add(broker, "a"), add(broker, "b")] == ["a", "a"]
    with pytest.raises(QueueFull):
        add(broker, "c", Unique("f", "other"))
    broker.set_policies({}, complete=True)
    assert add(broker, "d", Unique("f", "other")) == "d", "what is refused takes no key"


def test_a_deterministic_id_that_is_done_takes_no_key(broker):
    add(broker, "a", once=True)
    finish(broker, fetch_one(broker))
    assert add(broker, "a", once=True) == "a"
    assert broker.counts().open == 0 and add(broker, "b") == "b"


def test_an_id_may_stand_for_another(driver, broker):
    aliased = Unique("f", "k", needs_alias=True)
    add(broker, "a", aliased)
    add(broker, "b", aliased)
    add(broker, "c")
    assert [broker.real_id("acme_corp", id) for id in ("a", "b", "c")] == [None, "a", None]
    assert broker.real_id("globex_inc", "b") is None
    finish(broker, fetch_one(broker))
    assert broker.real_id("acme_corp", "b") == "a", "after its end too"
    driver.advance_kept(24 * 3600 + 1)
    wait_until(lambda: broker.real_id("acme_corp", "b") is None)  # Redis forgets it a moment later
