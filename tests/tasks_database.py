"""Tasks that use the database in ways that a test's transaction must survive."""

from __future__ import annotations

from django.db import connection, transaction
from django_q.models import Schedule

from tenant_q.utils import QUtilities


def divide_by_zero() -> None:
    Schedule.objects.create(name="it is rolled back", func="math.floor")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 / 0")


def enqueue_on_commit() -> None:
    with transaction.atomic():
        QUtilities.add_async_task("tests.tasks.add", 1, q_options={"on_commit": True})
