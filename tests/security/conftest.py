"""The worker and the scheduler of the integration tests, and what attacks in a tenant's admin leave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from tenant_q import tenancy
from tenant_q.schedules import index_upkeep
from tenant_q.schedules.schema_indexes import all_indexes
from tests import schemas
from tests.integration.conftest import make_scheduler, make_worker, scheduler, sql, worker
from tests.security.roles import OWNER, STRANGER, own

__all__ = ["make_scheduler", "make_worker", "scheduler", "worker"]


@pytest.fixture
def clean_admin(tenants: tuple[str, ...]) -> Iterator[None]:
    """Afterwards there are no audit records, and acme_corp has no users."""
    from tenant_q.models import AuditRecord
    from tenant_q.tenancy import in_schema

    yield
    connection.set_schema_to_public()
    AuditRecord.objects.all().delete()
    with in_schema("acme_corp"):
        get_user_model().objects.all().delete()


@pytest.fixture
def roles(tenants) -> Iterator[None]:
    for role in (OWNER, STRANGER):
        sql(f"CREATE ROLE {role} LOGIN")
    sql("CREATE TABLE public.tq_test_prize (winner text)")
    yield
    connection.set_schema_to_public()
    sql("DROP TABLE public.tq_test_prize")
    for role in (OWNER, STRANGER):
        sql(f"DROP OWNED BY {role} CASCADE")
        sql(f"DROP ROLE {role}")
    tenancy.forget_tenants()
    for index in all_indexes():
        index_upkeep.bring_up_to_date(index_upkeep.stale_schemas(index=index), index)


@pytest.fixture
def spare(roles) -> Iterator[str]:
    """A tenant whose schema and tables belong to the role OWNER."""
    schemas.clone_tenants(["spare"])
    own("spare")
    yield "spare"
    connection.set_schema_to_public()
    sql("DROP SCHEMA IF EXISTS spare CASCADE")
    schemas.drop_tenant("spare")
