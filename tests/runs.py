"""Rows of workflow runs as the engine writes them, for tests of what shows them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from tenant_q.conf import conf
from tenant_q.tenancy import in_schema
from tenant_q.workflows.models import WorkflowRun, WorkflowStep
from tenant_q.workflows.plan import Plan, PlanStep
from tenant_q.workflows.states import ENDED_STEP

ORDER = Plan(
    "shop.workflows.order",
    (
        PlanStep("reserve"),
        PlanStep("charge", after=("reserve",)),
        PlanStep("pick", after=("reserve",), each=("reserve", "lines"), at_once=10),
        PlanStep("ship", after=("charge", "pick")),
        PlanStep("refund", after=("charge",), when="any_failed"),
    ),
    on_end={},
)
RUNNING: Mapping[str, Any] = {"reserve": "succeeded", "charge": "ready", "pick": "mapping"}
FAILED: Mapping[str, Any] = {"reserve": "succeeded", "charge": "failed", "pick": "succeeded", "refund": "succeeded"}


def make_run(
    schema: str,
    plan: Plan = ORDER,
    states: Mapping[str, str] = RUNNING,
    *,
    items: Mapping[str, Sequence[str]] | None = None,
    values: Mapping[str, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> WorkflowRun:
    """A run of a tenant. Steps that are not named wait, or are skipped if the run has ended.

    Parameters: `states` of steps; `items`, the states of the items of steps; `values`, further columns of steps.
    """
    now = timezone.now()
    state = fields.get("state", "running")
    ended = now if state in ("succeeded", "failed", "cancelled") else None
    started = None if state == "pending" else now - timedelta(seconds=90)
    given = {"id": uuid.uuid4().hex, "workflow": plan.workflow, "version": plan.version, "state": state}
    given["cluster"] = conf().cluster
    given |= {"plan": json.loads(plan.text), "input": {"order": 17}, "config": {}, "created": now, "started": started}
    with in_schema(schema):
        run = WorkflowRun.objects.create(**{**given, "ended": ended, **fields})
        rows = []
        for name in plan.by_name:
            own = states.get(name, "skipped" if ended else "waiting")
            rows.append(_row(run, name, -1, own, **(values or {}).get(name, {})))
            for index, item in enumerate((items or {}).get(name, ())):
                rows.append(_row(run, name, index, item, item={"line": index}))
        WorkflowStep.objects.bulk_create(rows)
    return run


def _row(run: WorkflowRun, name: str, index: int, state: str, **values: Any) -> WorkflowStep:
    has_run, has_ended = state not in ("waiting", "skipped"), state in ENDED_STEP
    moments = {"started": run.started if has_run else None, "ended": run.created if has_ended else None}
    return WorkflowStep(
        run=run.pk, name=name, index=index, state=state, **{**moments, "attempts": int(has_run), **values}
    )


def delete_runs(*schemas: str) -> None:
    for schema in schemas:
        with in_schema(schema):
            WorkflowStep.objects.all().delete()
            WorkflowRun.objects.all().delete()
