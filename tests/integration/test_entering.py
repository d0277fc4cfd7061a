"""What a process remembers of one tenant is not what another one is answered."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.db.models.signals import post_save
from django_q.models import Task

from tenant_q.brokers import get_broker
from tenant_q.scrubbing import shared_caches
from tenant_q.signals import tenant_entered
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import know_as_short, make_due, redis_key, work

pytestmark = pytest.mark.seam

CACHE: dict[str, str] = {}


def ask_cache() -> str:
    """As an app does that keeps a tenant's row in a module."""
    return CACHE.setdefault("row", connection.schema_name)


def ask_cache_elsewhere() -> str:
    with in_schema("initech_llc"):
        return ask_cache()


def seen_by(worker: Any, func: str = "ask_cache") -> dict[str, str]:
    names = ("acme_corp", "globex_inc")
    know_as_short(f"{__name__}.{func}", *names)
    tasks.client().delete(redis_key("vtime"), redis_key("ring"))
    ids = {name: QUtilities.add_async_task(f"{__name__}.{func}", schema_name=name) for name in names}
    work(worker)
    return {name: QUtilities.get_result(id, schema_name=name) for name, id in ids.items()}


@pytest.fixture(autouse=True)
def empty():
    CACHE.clear()
    yield
    CACHE.clear()


@pytest.fixture
def clear():
    """A project's receiver."""

    def receiver(schema: str, **_: Any) -> None:
        assert connection.schema_name == schema
        CACHE.clear()

    tenant_entered.connect(receiver)
    yield
    tenant_entered.disconnect(receiver)


def test_a_project_clears_its_own_caches(tenants, worker, clear):
    assert seen_by(worker) == {"acme_corp": "acme_corp", "globex_inc": "globex_inc"}


def test_without_a_receiver_a_projects_cache_crosses_tenants(tenants, worker):
    """So that the test above says something."""
    assert len(set(seen_by(worker).values())) == 1


def test_known_caches_are_cleared_before_and_after_each_task(tenants, worker, monkeypatch):
    """As that of `django.contrib.sites` is, where it is installed."""
    monkeypatch.setattr(shared_caches, "_cache_clearers", lambda: (CACHE.clear,))
    assert seen_by(worker) == {"acme_corp": "acme_corp", "globex_inc": "globex_inc"}
    with in_schema("acme_corp"):
        QUtilities.add_async_task(f"{__name__}.ask_cache_elsewhere")
        id = QUtilities.add_async_task(f"{__name__}.ask_cache")
    work(worker)
    assert QUtilities.get_result(id, schema_name="acme_corp") == "acme_corp"


def test_known_caches_are_cleared_before_receivers_of_post_save(tenants, worker, monkeypatch):
    monkeypatch.setattr(shared_caches, "_cache_clearers", lambda: (CACHE.clear,))
    asked = []

    def receiver(**_: Any) -> None:
        asked.append((connection.schema_name, ask_cache()))

    post_save.connect(receiver, sender=Task)
    try:
        seen_by(worker)
    finally:
        post_save.disconnect(receiver, sender=Task)
    assert asked == [("acme_corp", "acme_corp"), ("globex_inc", "globex_inc")]


def test_the_cache_of_sites_is_cleared(tenants, settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.sites"]
    shared_caches._cache_clearers.cache_clear()
    try:
        from django.contrib.sites import models

        models.SITE_CACHE[1] = models.Site(domain="acme")
        shared_caches.clear_known_caches()
        assert not models.SITE_CACHE
    finally:
        shared_caches._cache_clearers.cache_clear()
        if admin.site.is_registered(models.Site):  # an app that comes registers its pages, and is gone after this test
            admin.site.unregister(models.Site)


def test_a_receiver_that_fails_puts_off_its_tenants_tasks(tenants, worker):
    def receiver(schema: str, **_: Any) -> None:
        if schema == "acme_corp" and not CACHE.get("repaired"):
            raise ValueError("the cache is away")

    tenant_entered.connect(receiver)
    try:
        ids = {name: QUtilities.add_async_task("tests.tasks.add", 1, schema_name=name) for name in tenants}
        work(worker)
        assert QUtilities.get_result(ids["globex_inc"], schema_name="globex_inc") == 1
        assert QUtilities.get_result(ids["acme_corp"], schema_name="acme_corp") is None
        CACHE["repaired"] = "yes"
        make_due()
        work(worker)
        assert QUtilities.get_result(ids["acme_corp"], schema_name="acme_corp") == 1
        assert get_broker().counts().open == 0
    finally:
        tenant_entered.disconnect(receiver)


def test_what_a_receiver_leaves_in_the_session_ends_with_it(tenants, worker):
    def receiver(schema: str, **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 54321")
            cursor.execute("SET search_path TO initech_llc")

    tenant_entered.connect(receiver)
    try:
        id = QUtilities.add_async_task("tests.tasks_hostile.look_around", schema_name="acme_corp")
        work(worker)
        seen = QUtilities.get_result(id, schema_name="acme_corp")
        assert (seen["schema"], seen["statement_timeout"]) == ("acme_corp", "0")
    finally:
        tenant_entered.disconnect(receiver)


def test_what_a_receiver_leaves_in_the_session_reaches_no_hook(tenants, worker):
    def receiver(schema: str, **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET search_path TO initech_llc")

    tenant_entered.connect(receiver)
    try:
        QUtilities.add_async_task("tests.tasks.nothing", hook=f"{__name__}.note_schema", schema_name="acme_corp")
        work(worker)
    finally:
        tenant_entered.disconnect(receiver)
    assert CACHE == {"hook": "acme_corp"}


def note_schema(task: Task) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        CACHE["hook"] = cursor.fetchone()[0]
