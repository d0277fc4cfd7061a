"""Attacker: somebody who can write to Redis moves the package of a tenant's step to another tenant's queue."""

from __future__ import annotations

import pytest

from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.tenancy import in_schema
from tests.flows import workflows as flows
from tests.integration.conftest import work

pytestmark = pytest.mark.seam

ACME, GLOBEX = "acme_corp", "globex_inc"


def test_a_step_does_not_run_in_another_tenants_queue(worker):
    with in_schema(GLOBEX):
        theirs = flows.line.start({"number": 1})
    with in_schema(ACME):
        own = flows.line.start({"number": 2})
    broker = get_broker()
    leases = broker.fetch("w1").leases
    moved = next(lease for lease in leases if lease.schema == ACME)
    broker.give_back("w1", [lease for lease in leases if lease is not moved])
    broker.enqueue([Message(moved.id, GLOBEX, "f", moved.payload)])
    work(worker)
    assert theirs.refresh().state == "succeeded"
    assert own.refresh().state == "running"
    assert broker.counts().dead == 1
    broker.give_back("w1", [moved])
    work(worker)
    assert own.refresh().results["second"] == 9


def test_a_steps_package_does_not_run_under_the_id_of_another_step(worker):
    with in_schema(ACME):
        run, other = flows.line.start({"number": 1}), flows.line.start({"number": 2})
    broker = get_broker()
    leases = {lease.id: lease for lease in broker.fetch("w1").leases}
    first, second = leases.values()
    broker.give_back("w1", list(leases.values()))
    broker.enqueue([Message("f" * 32, ACME, "f", first.payload)])
    work(worker)
    assert second.id != first.id
    assert {run.refresh().state, other.refresh().state} == {"succeeded"}
    assert [dead.id for dead in broker.dead()] == ["f" * 32]
