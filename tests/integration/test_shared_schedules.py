"""Schedules of the public schema, where `django_q` is shared as well and the scheduler excludes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from django.db import connection

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.cluster import scheduler_firing
from tenant_q.package import declarations
from tenant_q.schedules import index_upkeep
from tenant_q.utils import QUtilities
from tests import schemas
from tests.documents import DOCS, blocks, write_files
from tests.integration.conftest import sql, work
from tests.integration.planning import PAST, entries, insert


@pytest.fixture(params=[True, False], ids=["with a tenant", "without a tenant"])
def shared(tenants, settings, request) -> Iterator[None]:
    settings.SHARED_APPS = [*settings.SHARED_APPS, "django_q"]
    settings.SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER = []
    public = tenancy.tenant_model().objects.get(schema_name="public")
    for table in ("django_q_schedule", "django_q_task"):
        sql(f"CREATE TABLE public.{table} (LIKE acme_corp.{table} INCLUDING ALL)")
    if not request.param:
        sql(f"DELETE FROM {public._meta.db_table} WHERE schema_name = 'public'")
    tenancy.forget_tenants()
    assert index_upkeep.install("public")
    yield
    connection.set_schema_to_public()
    for table in ("django_q_schedule", "django_q_task"):
        sql(f"DROP TABLE public.{table}")
    if not request.param:
        public.save(force_insert=True)
    tenancy.forget_tenants()
    index_upkeep.bring_up_to_date(index_upkeep.stale_schemas())


@pytest.mark.seam
@pytest.mark.parametrize("others", [0, scheduler_firing.FEW], ids=["alone", "together"])
def test_they_fire_and_their_tasks_run(shared, scheduler, worker, others):
    names = [f"other_{n}" for n in range(others)]
    if names:
        schemas.clone_tenants(names)
    try:
        for name in ("public", *names):
            insert(name, PAST, func="tests.tasks.where", repeats=1)
        scheduler.once = True
        while scheduler.slot.done == 0:
            scheduler.tick()
        assert {held for _, _, held in entries("public").values()} == set()
        assert get_broker().queue_size("public") == 1
        work(worker)
        assert sql("SELECT success FROM public.django_q_task") == [(True,)]
    finally:
        for name in names:
            schemas.drop_tenant(name)


@pytest.mark.seam
def test_a_task_of_public_makes_a_tenant_as_the_page_says(shared, worker, tmp_path, monkeypatch):
    page = blocks(DOCS / "how-to/site-wide.md")
    write_files([block for block in page if block.file == "billing/signup.py"], tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        made = QUtilities.add_async_task("billing.signup.open_account", "brand_new", "New", schema_name="public")
        work(worker)
        welcomed = QUtilities.get_result(made, schema_name="public", raise_failure=True)
        assert QUtilities.get_result(welcomed, schema_name="brand_new") == "brand_new is welcome"
        again = QUtilities.add_async_task("billing.signup.open_account", "brand_new", "New", schema_name="public")
        work(worker)
        assert QUtilities.fetch_task(again, schema_name="public").success, "it may run twice"
    finally:
        connection.set_schema_to_public()
        schemas.drop_tenant("brand_new")
        for known in (sys.modules, declarations._registry.by_name):  # other pages have a package of this name too
            for name in [name for name in known if name.partition(".")[0] == "billing"]:
                del known[name]
