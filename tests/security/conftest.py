"""The worker and the scheduler of the integration tests, and what attacks in a tenant's admin leave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from tests.integration.conftest import make_scheduler, make_worker, scheduler, worker

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
