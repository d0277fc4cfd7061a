"""The fence of a step: its end is written only while its row is ready and of the same generation."""

from __future__ import annotations

import os

import psycopg
import pytest
from django.utils import timezone
from django_q.models import Task

from tenant_q.tenancy import in_schema
from tenant_q.workflows import Context
from tests.integration.conftest import sql, work

A = "acme_corp"
NOW = timezone.now()


def change(ctx: Context, what: str) -> None:
    """Change the row of the step that runs, in another session."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
        other.execute(
            f"UPDATE {A}.tenant_q_workflows_step SET {what} WHERE run = %s AND name = %s", [ctx.run_id, ctx.step]
        )


# What is done to the row of a step while it runs, and what its row is in the end.
@pytest.mark.parametrize(
    ("what", "row"), [("state = 'skipped'", ("skipped", 1, None)), ("generation = 2", ("succeeded", 2, "2"))]
)
@pytest.mark.parametrize("transactional", [True, False])
def test_the_end_of_a_step_whose_row_has_changed_is_dropped(tenants, define, worker, transactional, what, row):
    flow = define()

    @flow.step(transactional=transactional)
    def only(ctx):
        Task.objects.create(id=f"{ctx.generation}" * 32, name="n", func="f", started=NOW, stopped=NOW)
        if ctx.generation == 1:
            change(ctx, what)
        return ctx.generation

    run = flow.start({}, schema_name=A)
    work(worker)
    found = sql(f"SELECT state, generation, output::text FROM {A}.tenant_q_workflows_step WHERE run = %s", run.id)
    assert found == [row]
    with in_schema(A):
        effects = set(Task.objects.values_list("id", flat=True))
    first, second = "1" * 32, "2" * 32
    assert (first in effects) is not transactional
    assert (second in effects) is (row[1] == 2)
