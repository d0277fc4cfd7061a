"""Attacker: somebody who can write to Redis and to the cache, and does not have the SECRET_KEY.

They may destroy and delay, and put back what was signed for the same id and tenant. They must not make a task run, or a
result be read, under another id, as another tenant's, or as what it is not.
"""

from __future__ import annotations

import logging

import pytest
from django.core.cache import cache
from django_q.signing import SignedPackage

from tenant_q import tenancy
from tenant_q.admin.live import as_row
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tenant_q.lifecycle import cached_results, push
from tenant_q.package.build import build
from tenant_q.package.envelope import seal
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import redis_key, work

pytestmark = pytest.mark.seam

ACME, GLOBEX = "acme_corp", "globex_inc"


@pytest.fixture
def key(tenants) -> str:
    return f"writer-{get_broker().cluster}"


def captured(schema: str, key: str) -> str:
    """A package of this tenant, as it is on its way."""
    with in_schema(schema):
        return push.sealed(build("tests.tasks.note_where", (key,), {}, schema=schema))


def put(payload: str, *, id: str, schema: str, tenant: str = "") -> None:
    """What a writer to Redis can do: put any text under any id in any queue."""
    get_broker().enqueue([Message(id, schema, "tests.tasks.note_where", payload, tenant=tenant)])


def test_a_package_under_another_id_does_not_run(worker, key, caplog):
    put(captured(ACME, key), id="f" * 32, schema=ACME)
    with caplog.at_level(logging.ERROR):
        work(worker)
    assert tasks.notes(key) == []
    assert "was found under the id" in caplog.text
    assert [dead.id for dead in get_broker().dead()] == ["f" * 32]


@pytest.mark.parametrize("queue", [GLOBEX, "initech_llc", f"{ACME}#999999", "nobody"])
def test_a_package_in_another_queue_does_not_run(worker, key, queue):
    with in_schema(ACME):
        package = build("tests.tasks.note_where", (key,), {}, schema=ACME)
        payload = push.sealed(package)
    put(payload, id=package.id, schema=queue)
    work(worker)
    assert tasks.notes(key) == []
    assert len(get_broker().dead()) == 1


def test_a_forged_package_does_not_run(worker, key):
    payload = captured(ACME, key)
    for forged in (payload[:-1] + ("A" if payload[-1] != "A" else "B"), payload.swapcase(), "x", "", "a:b:c"):
        put(forged, id=f"{abs(hash(forged)):032x}"[-32:], schema=ACME)
    work(worker)
    assert tasks.notes(key) == []


def test_a_result_is_no_package(worker, key):
    """Both are signed with the same key, since Django-Q2 reads cached results."""
    with in_schema(ACME):
        id = QUtilities.add_async_task("tests.tasks.note_where", key, cached=60)
    work(worker)
    with in_schema(ACME):
        signed = cache.get(cache_key(id, ACME))
    assert signed
    put(signed, id=id, schema=ACME)
    work(worker)
    assert len(tasks.notes(key)) == 1
    assert [dead.id for dead in get_broker().dead()] == [id]


def test_a_package_is_no_result(worker, key):
    with in_schema(ACME):
        package = build("tests.tasks.note_where", (key,), {}, schema=ACME)
        cache.set(cache_key(package.id, ACME), push.sealed(package))
        assert QUtilities.fetch_task(package.id, cached=True) is None


def cache_key(id: str, schema: str) -> str:
    return f"tq:{schema}:{cached_results._key(id)}"


def cached_of(worker, schema: str, value: int, **options) -> tuple[str, str]:
    """A cached result of a tenant: its id, and the text as it is in the cache."""
    with in_schema(schema):
        id = QUtilities.add_async_task("tests.tasks.add", value, cached=60, **options)
    work(worker)
    with in_schema(schema):
        return id, cache.get(cache_key(id, schema))


def test_a_cached_result_under_another_tenants_key_is_not_read(worker, key):
    id, signed = cached_of(worker, GLOBEX, 41)
    with in_schema(ACME):
        cache.set(cache_key(id, ACME), signed)
        assert QUtilities.get_result(id, cached=True) is None
        assert QUtilities.get_status(id) == "unknown"


def test_a_cached_result_under_another_id_is_not_read(worker, key):
    _, signed = cached_of(worker, ACME, 41)
    with in_schema(ACME):
        cache.set(cache_key("e" * 32, ACME), signed)
        assert QUtilities.get_result("e" * 32, cached=True) is None


def test_a_part_of_another_group_or_tenant_is_not_read(worker, key):
    id, signed = cached_of(worker, GLOBEX, 41, group="June")
    get_broker().add_parts(ACME, "June", {id: signed}, seconds=60)
    own, other = cached_of(worker, ACME, 42, group="May")
    get_broker().add_parts(ACME, "June", {own: other}, seconds=60)
    assert QUtilities.get_result_group("June", cached=True, schema_name=ACME) is None
    assert QUtilities.get_result_group("May", cached=True, schema_name=ACME) == [42]


def test_an_iter_does_not_take_parts_of_another_tenant(worker, key):
    with in_schema(GLOBEX):
        theirs = QUtilities.add_async_task("tests.tasks.add", 41, cached=60, group="theirs")
    work(worker)
    part = get_broker().parts(GLOBEX, "theirs")[theirs]
    with in_schema(ACME):
        iter_id = QUtilities.add_async_tasks_from_iter("tests.tasks.add", [1, 2])
    get_broker().add_parts(ACME, iter_id, {"0": part}, seconds=60)
    work(worker)
    assert QUtilities.get_result(iter_id, schema_name=ACME) is None


def test_the_page_of_live_tasks_shows_no_package_of_another_tenant(tenants, key):
    with in_schema(GLOBEX):
        package = build("tests.tasks.note_where", ("DE02120300000000202051",), {}, schema=GLOBEX)
        payload = push.sealed(package)
    put(payload, id=package.id, schema=ACME)
    with in_schema(ACME):
        [live] = get_broker().live(ACME)
        row = as_row(live)
    assert "DE0212" not in repr(row)
    assert "belongs to tenant" in row.problem


def test_a_dead_package_of_another_tenant_is_not_retried_as_ones_own(worker, key):
    """`msdead retry` opens a dead package; one that was moved goes back as it is, and is refused again."""
    from tenant_q.operations import dead_letters

    with in_schema(GLOBEX):
        package = build("tests.tasks.note_where", (key,), {}, schema=GLOBEX)
        payload = seal(package)
    put(payload, id=package.id, schema=ACME)
    work(worker)
    [dead] = get_broker().dead()
    dead_letters.retry(get_broker(), [dead], actor="test")
    work(worker)
    assert tasks.notes(key) == []


def test_a_status_that_is_not_signed_is_not_shown(tenants, key):
    from tenant_q.operations import status

    tasks.client().hset(redis_key("status"), "x", "garbage")
    tasks.client().hset(redis_key("status"), "y", SignedPackage.dumps({"id": "1"}))
    assert status.clusters(get_broker()) == []


def test_a_package_of_a_tenant_that_was_renamed_stays_its_own(tenants, key):
    """Names that a tenant had are compared with its key."""
    assert tenancy.names_of("999999") == []
