"""Cancel, resume, skip and delete runs. Each is one transaction under the lock of the run's row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.db import transaction as django_transaction

from tenant_q import audit, tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import CANCELLED
from tenant_q.exceptions import BrokerError, WorkflowError
from tenant_q.support.hints import did_you_mean
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line
from tenant_q.workflows import resuming, run_rows
from tenant_q.workflows.admission import admit, is_limited
from tenant_q.workflows.advancing import advance, plan_looks
from tenant_q.workflows.locked_runs import Advancing, read
from tenant_q.workflows.pushing import push_or_leave, push_steps
from tenant_q.workflows.states import OPEN_RUN, RunState, StepState
from tenant_q.workflows.step_packages import package_id
from tenant_q.workflows.transactions import Transaction, on, transaction

logger = get_logger("tenant_q.workflows")


@contextmanager
def _locked(schema: str, id: str, act: str, by: str) -> Iterator[tuple[Transaction, Advancing]]:
    """Run a block with a run whose row is locked, in one transaction with an audit record if `by` is given."""
    tenancy.require_authorized(schema)
    by = one_line(by)[:150]
    with run_rows.explained(schema), _atomic():
        if by:
            audit.record(by, act, schema=schema, target=id[:100])
        with transaction([schema]) as open_one:
            found = read(open_one, {schema: [id]}) if "\0" not in id else []
            if not found:
                raise run_rows.unknown_run(schema, id)
            yield open_one, found[0]


@contextmanager
def _atomic() -> Iterator[None]:
    with tenancy.detect_outages(), django_transaction.atomic(using=tenancy.database_alias()):
        yield


# Cancel


def cancel(schema: str, id: str, *, by: str = "") -> bool:
    """Cancel a run. See `Run.cancel`."""
    with _locked(schema, id, "cancel workflow", by) as (open_one, one):
        if one.facts.state not in OPEN_RUN:
            return False
        begin_cancel(open_one, one)
        tenancy.on_commit(lambda: _finish_or_leave(schema, id, by))
    return True


def begin_cancel(open_one: Transaction, one: Advancing, error: str = "") -> None:
    """Begin to cancel a run whose row is locked: no step becomes ready any more.

    Args:
        open_one: The transaction.
        one: The run.
        error: Why it fails; empty for a run that a person cancels.
    """
    change = {
        "id": one.facts.id,
        "state": RunState.CANCELLING,
        "error": error,
        "has_ended": False,
        "is_now": True,
    }
    open_one.run(
        [
            on(one.schema, "workflow_cancel_steps", one.facts.id),
            on(one.schema, "workflow_set_runs", json.dumps([change])),
        ]
    )


def _finish_or_leave(schema: str, id: str, by: str) -> None:
    """Finish a cancel, or leave that to the scheduler if the broker is away: the run is due for a look."""
    try:
        finish_cancel(schema, id, by=by)
    except BrokerError as error:
        logger.warning(
            "Could not cancel the steps of workflow run %s yet, which the scheduler will do: %s",
            id,
            one_line(error),
            event="workflow.cancel_delayed",
            extra={"schema": schema, "task_id": id},
        )


def finish_cancel(schema: str, id: str, *, by: str = "") -> None:
    """Finish the cancel of a run: interrupt the steps that a worker has, and cancel the other ready ones.

    Raises:
        BrokerError: The broker does not answer.
        DatabaseAway: The database does not answer.
    """
    with transaction([schema]) as open_one:
        (answer,) = open_one.run([on(schema, "workflow_ready", [id])], last=True)
    row = run_rows.get(schema, id)
    if row is None or row.state != RunState.CANCELLING:
        return
    broker = get_broker(row.cluster)
    reason = f"{CANCELLED}: cancelled" + (f" by {one_line(by)[:150]}" if by else "")
    left = []
    for run, name, index, generation, _, _ in answer.rows:
        if broker.cancel(schema, package_id(schema, run, name, index, generation), reason) != "leased":
            left.append({"run": run, "name": name, "index": index, "was": "ready", "state": "cancelled", "error": ""})
    if left:
        with transaction([schema]) as open_one:
            open_one.run([on(schema, "workflow_set_steps", json.dumps(left))], last=True)
    _advance_and_push(schema, id)


def _advance_and_push(schema: str, id: str) -> None:
    advanced = advance({schema: [id]}, again={schema: [id]}, keeps_looks=True)
    push_steps([*advanced.ready, *admit(advanced.ended)])
    plan_looks(advanced)


# Resume


def preview_resume(schema: str, id: str, steps: Sequence[str] | None = None) -> list[str]:
    """Return the steps that a resume would run again. See `Run.preview_resume`."""
    tenancy.require_authorized(schema)
    with transaction([schema]) as open_one:
        found = read(open_one, {schema: [id]})
        if not found:
            raise run_rows.unknown_run(schema, id)
        return resuming.plan_resume(found[0].facts, steps).names


def resume(schema: str, id: str, steps: Sequence[str] | None = None, *, by: str = "") -> None:
    """Resume a run. See `Run.resume`."""
    with _locked(schema, id, "resume workflow", by) as (open_one, one):
        wanted = resuming.plan_resume(one.facts, steps)
        resuming.write(open_one, schema, one.facts, wanted, is_limited=is_limited(schema))
        tenancy.on_commit(lambda: push_or_leave(schema, id, lambda: _begin_again(schema, id)))


def _begin_again(schema: str, id: str) -> None:
    admitted = admit([schema]) if is_limited(schema) else []
    advanced = advance({schema: [id]}, again={schema: [id]}, keeps_looks=True)
    push_steps([*admitted, *advanced.ready], for_caller=True)
    plan_looks(advanced)


# Skip and delete


def skip(schema: str, id: str, step: str, *, by: str = "", why: str = "") -> None:
    """Skip a step of a run. See `Run.skip`."""
    with _locked(schema, id, "skip workflow step", by) as (open_one, one):
        facts = one.facts
        state = facts.steps.get(step)
        if state is None or step not in facts.plan.by_name:
            raise WorkflowError(
                f"Workflow run {id} has no step {step!r}: {did_you_mean(step, [one.name for one in facts.plan.steps])}"
            )
        is_open = facts.state in (RunState.PENDING, RunState.RUNNING) and state in (StepState.WAITING, StepState.PARKED)
        if not is_open and not (facts.has_ended and state in (StepState.FAILED, StepState.CANCELLED)):
            raise WorkflowError(
                f"Step {step!r} of workflow run {id} is {state} and the run is {facts.state}; only a step that "
                "waits, or a failed one of an ended run, can be skipped."
            )
        who, reason = one_line(by)[:150], one_line(why)[:500]
        reason = resuming.BY_HAND + (f" by {who}" if who else "") + (f": {reason}" if reason else "")
        change = {"run": id, "name": step, "index": -1, "was": state, "state": "skipped", "error": reason}
        open_one.run([on(schema, "workflow_set_steps", json.dumps([change]))])
        if is_open:
            tenancy.on_commit(lambda: push_or_leave(schema, id, lambda: _advance_and_push(schema, id)))


def delete(schema: str, ids: Sequence[str], *, by: str = "") -> int:
    """Delete ended runs of a tenant with their steps.

    Args:
        schema: The schema name of the tenant.
        ids: The ids of the runs. Those that have not ended stay.
        by: Who deletes them, for the audit trail.

    Returns:
        The number of deleted runs.
    """
    tenancy.require_authorized(schema)
    with run_rows.explained(schema), _atomic():
        with transaction([schema]) as open_one:
            (answer,) = open_one.run([on(schema, "workflow_delete", list(ids))])
        deleted = [id for (id,) in answer.rows]
        if by and deleted:
            audit.record(one_line(by)[:150], "delete workflows", schema=schema, target=" ".join(deleted))
    return len(deleted)
