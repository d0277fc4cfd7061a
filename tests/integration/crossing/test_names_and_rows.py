"""A tenant's name and row lead to its own schema only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.exceptions import UnknownTenant
from tenant_q.utils import QUtilities
from tests import schemas
from tests.integration.conftest import know_as_short, sql, work
from tests.integration.crossing.conftest import (
    SEEN,
    add,
    clean,
    elsewhere,
    note_in_seen,
    path_of,
    result,
    seen_behind,
    smuggle,
)

pytestmark = pytest.mark.seam
FOLDS = not apps.is_installed("django_tenants")


# Names with capitals


@contextlib.contextmanager
def tenant_rows(*names: str) -> Iterator[None]:
    """Tenants without schemas of their own."""
    model = tenancy.tenant_model()
    connection.set_schema_to_public()
    model.objects.bulk_create(model(schema_name=name, name=name, **schemas.domain_of(model, name)) for name in names)
    tenancy.forget_tenants()
    try:
        yield
    finally:
        table = model._meta.db_table
        for name in names:
            sql(f"DELETE FROM {table} WHERE schema_name = %s", name)
        tenancy.forget_tenants()


@pytest.mark.skipif(not FOLDS, reason="django-tenants quotes names")
def test_a_tenant_whose_name_folds_to_anothers_is_refused(tenants, worker, scheduler):
    QUtilities.create_schedule("tests.tasks.own_schema", name="fired", schema_name="acme_corp")
    with tenant_rows("Acme_Corp"):
        for call in (
            lambda: add("Acme_Corp", path_of(note_in_seen)),
            lambda: add("Acme_Corp", path_of(note_in_seen), sync=True),
            lambda: result("a" * 32, "Acme_Corp"),
            lambda: QUtilities.create_schedule("tests.tasks.add", 1, schema_name="Acme_Corp"),
        ):
            with pytest.raises(UnknownTenant, match="Tenant 'Acme_Corp' shares the schema 'acme_corp' with another"):
                call()
        smuggle("Acme_Corp", path_of(note_in_seen))
        scheduler.tick()
        work(worker)
        assert get_broker().counts().delayed == 1
        assert SEEN == []
        assert QUtilities.get_result_group("fired", schema_name="acme_corp") == ["acme_corp"]
        assert schemas.count_tasks("acme_corp") == 1


@pytest.mark.skipif(not FOLDS, reason="django-tenants quotes names")
def test_two_tenants_whose_names_fold_to_one_schema_are_refused(newcomer, worker):
    """Neither of them is the folded name itself."""
    schemas.clone_tenants(["CamelCase"])
    try:
        with tenant_rows("Camelcase"):
            with pytest.raises(UnknownTenant):
                add("Camelcase", path_of(note_in_seen))
            smuggle("Camelcase", path_of(note_in_seen))
            work(worker)
            assert SEEN == []
    finally:
        schemas.drop_tenant("CamelCase")


@pytest.mark.parametrize(
    "hostile", ["raw_search_path", "set_role", "temporary_table", "raw_transaction", "change_the_tenant"]
)
def test_a_tenant_with_capitals_leaves_nothing(tenants, worker, hostile):
    schemas.clone_tenants(["CamelCase"])
    tenancy.forget_tenants()
    try:
        found = seen_behind(worker, f"tests.tasks_hostile.{hostile}", schema="CamelCase")
        assert found == {name: clean(name) for name in ("CamelCase", "globex_inc")}
        assert elsewhere("SELECT count(*) FROM public.customers_customer WHERE name = 'changed by a task'") == [(0,)]
    finally:
        schemas.drop_tenant("CamelCase")
        tenancy.forget_tenants()


# The tenant's row


def change_the_plan() -> Any:
    plan = connection.tenant.plan
    SEEN.append((connection.schema_name, repr(plan)))
    plan["seats"].append("stolen")
    plan["is"] = "gold"


def test_what_a_task_changes_in_its_tenants_row_is_gone(tenants, worker):
    """As a JSON field would hold it; the test project's tenant has none."""
    know_as_short(path_of(change_the_plan), "acme_corp")
    tenancy.get_tenant("acme_corp")
    tenancy.tenants._known["acme_corp"].tenant.plan = {"is": "free", "seats": [1]}
    for _ in range(3):
        add("acme_corp", path_of(change_the_plan))
    work(worker)
    assert SEEN == [("acme_corp", "{'is': 'free', 'seats': [1]}")] * 3


def test_a_tenant_that_is_gone_is_not_found_in_the_cache(newcomer, worker):
    tenancy.get_tenant(newcomer)
    know_as_short(path_of(note_in_seen), newcomer)
    asks_anew = add(newcomer, path_of(note_in_seen), q_options={"tenant_cache_seconds": 0})
    sql(f"DELETE FROM {tenancy.tenant_model()._meta.db_table} WHERE schema_name = %s", newcomer)
    worker.tick()
    assert get_broker().counts().delayed == 1, asks_anew
    smuggle(newcomer, path_of(note_in_seen))
    worker.tick()
    assert get_broker().counts().delayed == 2, "neither does the next one run, which would look into the cache"
    assert SEEN == []
    with pytest.raises(UnknownTenant):
        tenancy.get_tenant(newcomer)


def test_a_schema_that_no_tenant_has_is_not_enqueued_for(tenants, worker):
    """`set_schema()` takes any name, and makes no tenant of it."""
    connection.set_schema("acme_corp")
    id = QUtilities.add_async_task("tests.tasks.where")
    connection.set_schema("no_such")
    with pytest.raises(UnknownTenant, match="No tenant has the schema name 'no_such'"):
        QUtilities.add_async_task("tests.tasks.where")
    with pytest.raises(UnknownTenant):
        QUtilities.get_result("a" * 32)
    connection.set_schema_to_public()
    assert get_broker().counts().queued == 1
    work(worker)
    assert result(id, "acme_corp")["schema"] == "acme_corp"
