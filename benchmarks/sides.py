"""What each contender does in a process of its own besides running tasks: it makes its tables, and enqueues.

`single()` gives blocks of which each is for the same number of calls of `enqueue()`: the schemas of tenants.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

from benchmarks import harness

# So many are made and then sent, where the speed of that is not measured.
CHUNK = 1000

# Each saved row has its time, and the sequence tells without a look at the tables how many there are: for all alike.
SEQUENCE = "CREATE SEQUENCE public.saved"
COLUMNS = (
    "ADD COLUMN saved_at timestamptz DEFAULT clock_timestamp(), "
    "ADD COLUMN saved_no bigint DEFAULT nextval('public.saved')"
)
# The rows of dramatiq are there before the task runs.
ON_DONE = """
CREATE FUNCTION public.note_saved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.saved_at = clock_timestamp(); NEW.saved_no = nextval('public.saved'); RETURN NEW; END $$;
CREATE TRIGGER note_saved BEFORE UPDATE ON public.django_dramatiq_task
FOR EACH ROW WHEN (NEW.status = 'done') EXECUTE FUNCTION public.note_saved()
"""


def path(job: str) -> str:
    return f"benchmarks.jobs.{job}"


def tenants() -> list[str]:
    return harness.tenant_names(int(os.environ["TENANTS"]))


def execute(statement: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement)


def migrate(command: str, **options: Any) -> None:
    from django.core.management import call_command

    call_command(command, interactive=False, verbosity=0, **options)


class Side:
    """A contender."""

    def prepare(self) -> None:
        raise NotImplementedError

    def queue(self, job: str, count: int, *args: Any) -> None:
        """Enqueue tasks in whatever way is fast."""
        raise NotImplementedError

    def single(self) -> Sequence[AbstractContextManager[Any]]:
        return [nullcontext()]

    def enqueue(self) -> None:
        """Enqueue one no-op task as a user does."""
        raise NotImplementedError

    def bulk(self, count: int) -> None:
        """Enqueue no-op tasks in the fastest way that is offered."""
        self.queue("nothing", count)

    def send(self, planned: Sequence[float]) -> None:
        """Enqueue a task for each of these moments."""
        raise NotImplementedError


class TenantQ(Side):
    """tenant_q, with its tasks spread evenly over the tenants."""

    def prepare(self) -> None:
        execute(f"{SEQUENCE}; ALTER TABLE {harness.TEMPLATE}.django_q_task {COLUMNS}")
        harness.clone_tenants(tenants())
        harness.analyze()

    def queue(self, job: str, count: int, *args: Any) -> None:
        from tenant_q.lifecycle import push
        from tenant_q.package.build import build

        names = tenants()
        for first in range(0, count, CHUNK):
            some = range(first, min(first + CHUNK, count))
            push.push([build(path(job), args, {}, schema=names[n % len(names)]) for n in some])

    def single(self) -> Sequence[AbstractContextManager[Any]]:
        from tenant_q.tenancy import in_schema

        return [in_schema(name) for name in tenants()[:100]]

    def enqueue(self) -> None:
        from tenant_q.utils import QUtilities

        QUtilities.add_async_task(path("nothing"))

    def bulk(self, count: int) -> None:
        from tenant_q.tenancy import in_schema
        from tenant_q.utils import QUtilities

        with in_schema(tenants()[0]):
            QUtilities.add_async_tasks_from_iter(path("nothing"), [()] * count)

    def send(self, planned: Sequence[float]) -> None:
        from tenant_q.lifecycle import push
        from tenant_q.package.build import build

        push.push([build(path("start"), (at,), {}, schema=random.choice(tenants())) for at in planned])


class DjangoQ2(Side):
    """Django-Q2 on one schema."""

    def prepare(self) -> None:
        migrate("migrate")
        execute(f"{SEQUENCE}; ALTER TABLE public.django_q_task {COLUMNS}")

    @cached_property
    def broker(self) -> Any:
        """Made once: `async_task()` makes one, with a connection of its own, for each task."""
        from django_q.brokers import get_broker

        return get_broker()

    def queue(self, job: str, count: int, *args: Any) -> None:
        from django_q.tasks import async_task

        for _ in range(count):
            async_task(path(job), *args, broker=self.broker)

    def enqueue(self) -> None:
        from django_q.tasks import async_task

        async_task(path("nothing"))

    def bulk(self, count: int) -> None:
        """It knows no bulk: `async_iter()` is this loop."""
        for _ in range(count):
            self.enqueue()

    def send(self, planned: Sequence[float]) -> None:
        for at in planned:
            self.queue("start", 1, at)


class Celery(Side):
    """Celery with tenant-schemas-celery and django-celery-results."""

    def prepare(self) -> None:
        template, table = harness.TEMPLATE, "django_celery_results_taskresult"
        migrate("migrate_schemas", schema_name=template)
        execute(f"{SEQUENCE}; ALTER TABLE {template}.{table} {COLUMNS}")
        like = f"LIKE {template}.{table} INCLUDING ALL"
        harness.clone_tenants(tenants(), f"EXECUTE format('CREATE TABLE %I.{table} ({like})', name);")

    def queue(self, job: str, count: int, *args: Any) -> None:
        from benchmarks.celery_app import TASKS

        names = tenants()
        for n in range(count):
            self._enter(names[n % len(names)])
            TASKS[job].delay(*args)

    def single(self) -> Sequence[AbstractContextManager[Any]]:
        self._enter(tenants()[0])
        return super().single()

    def enqueue(self) -> None:
        from benchmarks.celery_app import TASKS

        TASKS["nothing"].delay()

    def _enter(self, schema: str) -> None:
        from django.db import connections

        connection: Any = connections["default"]
        connection.set_schema(schema)


class Dramatiq(Side):
    """dramatiq with django-dramatiq, which keeps a task's state in PostgreSQL; results it keeps in Redis only."""

    def prepare(self) -> None:
        migrate("migrate")
        execute(f"{SEQUENCE}; ALTER TABLE public.django_dramatiq_task ADD saved_at timestamptz, ADD saved_no bigint")
        execute(ON_DONE)

    def queue(self, job: str, count: int, *args: Any) -> None:
        from benchmarks.dramatiq_actors import TASKS

        for _ in range(count):
            TASKS[job].send(*args)

    def enqueue(self) -> None:
        self.queue("nothing", 1)


SIDES = {"tenant_q": TenantQ, "django_q2": DjangoQ2, "celery": Celery, "dramatiq": Dramatiq}
