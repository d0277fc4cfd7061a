"""The overview of a tenant and of all tenants, where each tenant has a role of its own."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import Schedule

from tenant_q.operations.overview import read_overview
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.isolated.site import Site

A, B = "acme_corp", "globex_inc"


@pytest.mark.parametrize("isolated_site", ["role", "login"], indirect=True)
def test_the_overview_is_read_in_each_tenant_and_in_public(isolated_site: Site) -> None:
    isolated_site.provision(A, B)
    with in_schema(A):
        QUtilities.add_async_task("tests.tasks.fail")
        QUtilities.add_async_task("tests.tasks.add", 1, 2, q_options={"delay": 600})
        tomorrow = timezone.now() + timedelta(days=1)
        Schedule.objects.create(name="nightly", func="tests.tasks.add", schedule_type="D", next_run=tomorrow)
    isolated_site.mscluster(workers=1)
    wait_until(lambda: read_overview().numbers.failed and read_overview().numbers.next_run, what="the task to fail")
    for schema, failed, delayed, name in ((A, 1, 1, "nightly"), (B, 0, 0, None)):
        with in_schema(schema):
            numbers = read_overview(schema).numbers
        assert numbers.places is not None
        assert (numbers.failed, numbers.places.delayed) == (failed, delayed), schema
        assert (numbers.next_run.name if numbers.next_run else None) == name
    every = read_overview()
    assert every.numbers.next_run is not None and every.numbers.next_run.name == "nightly"
    assert [one.schema for one in every.tenants] == [A]
    assert every.numbers.is_served and every.numbers.workers == 1
