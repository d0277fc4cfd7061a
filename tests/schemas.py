"""Tenants for the tests: three made as users make them, more by cloning tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.core.management import call_command
from django.db import connection

TENANTS = ("acme_corp", "globex_inc", "initech_llc")
_TABLES = (
    "django_q_task",
    "django_q_schedule",
    "tenant_q_workflows_run",
    "tenant_q_workflows_step",
    "tenant_q_workflows_signal",
)


def make_base_tenants() -> None:
    call_command("migrate_schemas", "--shared", interactive=False, verbosity=0)
    make_tenant("public")
    for name in TENANTS:
        make_tenant(name)


def make_tenant(name: str, **fields: Any) -> Any:
    """A tenant with its schema and all its tables, through the tenancy package."""
    from tenant_q import tenancy

    connection.set_schema_to_public()
    model = tenancy.tenant_model()
    tenant = model(schema_name=name, name=name.replace("_", " ").title(), **domain_of(model, name), **fields)
    tenant.save(verbosity=0)
    return tenant


def domain_of(model: Any, name: str) -> dict[str, str]:
    """`django-tenant-schemas` keeps the domain in the tenant's row, `django-tenants` in a table of its own."""
    has_one = any(field.name == "domain_url" for field in model._meta.fields)
    return {"domain_url": f"{name}.localhost"} if has_one else {}


@contextmanager
def served_at(name: str, host: str) -> Iterator[None]:
    """The tenant has this host name meanwhile."""
    from tenant_q import tenancy

    connection.set_schema_to_public()
    model = tenancy.tenant_model()
    tenant = model.objects.get(schema_name=name)
    old = domain_of(model, name)
    if old:
        model.objects.filter(pk=tenant.pk).update(domain_url=host)
    else:
        tenant.domains.create(domain=host)
    yield
    connection.set_schema_to_public()
    if old:
        model.objects.filter(pk=tenant.pk).update(**old)
    else:
        tenant.domains.filter(domain=host).delete()


def drop_tenant(name: str) -> None:
    from tenant_q import tenancy

    connection.set_schema_to_public()
    tenancy.tenant_model().objects.filter(schema_name=name).delete()
    with connection.cursor() as cursor:
        cursor.execute(f'DROP SCHEMA IF EXISTS "{tenancy.physical_schema(name)}" CASCADE')


def clone_tenants(names: Sequence[str], template: str = TENANTS[0], tables: Sequence[str] = ()) -> None:
    """Tenants whose schemas have the template's tables, empty, without the time migrations take.

    Parameters: `tables`, those that they have; all when there are none.
    """
    from tenant_q import tenancy
    from tenant_q.schedules import index_upkeep
    from tenant_q.schedules.schema_indexes import all_indexes

    connection.set_schema_to_public()
    model = tenancy.tenant_model()
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [template])
        tables = tables or [row[0] for row in cursor.fetchall()]
        for name in names:
            schema = tenancy.physical_schema(name)
            cursor.execute(f'CREATE SCHEMA "{schema}"')
            for table in tables:
                cursor.execute(f'CREATE TABLE "{schema}"."{table}" (LIKE "{template}"."{table}" INCLUDING ALL)')
    model.objects.bulk_create(model(schema_name=name, name=name, **domain_of(model, name)) for name in names)
    for name in names:
        for index in all_indexes():
            index_upkeep.install(tenancy.physical_schema(name), index)


def make_dead(name: str) -> None:
    """Move a package of the tenant to the dead."""
    from tenant_q.brokers import get_broker
    from tenant_q.tenancy import in_schema
    from tenant_q.utils import QUtilities

    with in_schema(name):
        QUtilities.add_async_task("tests.tasks.nothing")
    first, *others = get_broker().fetch("w", limit=1000).leases
    get_broker().dead_letter("w", first, "for the test")
    get_broker().give_back("w", others)


def truncate(names: Sequence[str]) -> None:
    """Take all tasks, schedules and runs of workflows away."""
    with connection.cursor() as cursor:
        tables = ", ".join(f'"{name}"."{table}"' for name in names for table in _TABLES)
        cursor.execute(f"TRUNCATE {tables}")


def forget_code() -> None:
    """Forget all releases, and which schedules the tenants have from code."""
    from tenant_q import tenancy
    from tenant_q.models import CodeSchedule, ScheduleRelease, SyncedTenant

    with tenancy.in_public():
        for model in (ScheduleRelease, CodeSchedule, SyncedTenant):
            model.objects.all().delete()


def count_tasks(schema: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT count(*) FROM "{schema}".django_q_task')
        return int(cursor.fetchone()[0])


def terminate(pid: int) -> None:
    """End a backend, from a connection of its own."""
    raw = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    with raw:
        raw.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
