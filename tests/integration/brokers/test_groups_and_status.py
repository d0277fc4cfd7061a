"""The parts of groups, and the status of clusters."""

from __future__ import annotations

from tests.conftest import wait_until

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


def test_clusters_that_the_settings_do_not_name(broker):
    assert broker.strays() == []
    broker.note_stray()
    assert broker.strays() == [broker.cluster]
    broker.forget_strays([])
    broker.forget_strays([broker.cluster])
    assert broker.strays() == []
