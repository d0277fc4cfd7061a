"""Run a workflow in this process, without a queue: for tests, and for sites with `Q_CLUSTER["sync"]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenant_q import tenancy
from tenant_q.brokers.protocol import Lease
from tenant_q.exceptions import StepGone, UnknownFunction, WorkflowError
from tenant_q.lifecycle import push, step_engine
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.lifecycle.execute import execute
from tenant_q.package.envelope import open_package
from tenant_q.package.package import Package
from tenant_q.tenancy import in_schema, public_schema, verify
from tenant_q.workflows import starting
from tenant_q.workflows.admission import admit
from tenant_q.workflows.advancing import advance
from tenant_q.workflows.run import Run
from tenant_q.workflows.step_packages import packages_of

if TYPE_CHECKING:
    from tenant_q.workflows.workflow import Workflow


def run_here(workflow: Workflow, input: Any, *, key: str | None = None, schema: str | None = None) -> Run:
    """Run a workflow in this process until it has ended. See `Workflow.run_here`."""
    run, _ = starting.write(workflow, input, key=key, schema=schema)
    drive(run)
    return run.refresh()


def start_on_commit(workflow: Workflow, input: Any, *, key: str | None, schema: str | None, by: str) -> Run:
    """Start a run as `starting.start`, and run it in this process when the caller's transaction commits."""
    run, is_new = starting.write(workflow, input, key=key, schema=schema, by=by)
    if is_new:
        tenancy.on_commit(lambda: drive(run))
    return run


def drive(run: Run) -> None:
    """Run the ready steps of a run, and those that follow, until it has ended.

    Raises:
        WorkflowError: The run waits for others of its tenant, or for something outside.
        Exception: A step cannot be loaded or saved.
    """
    schema, id = run.schema, run.id
    with in_schema(schema):
        if schema != public_schema():
            verify(schema)
        ready = [*admit([schema]), *advance({schema: [id]}, again={schema: [id]}).ready]
        while ready:
            for package in packages_of(ready):
                _run_step(package)
            ready = advance({schema: [id]}, again={schema: [id]}).ready
    if not run.refresh().has_ended:
        raise WorkflowError(f"Workflow run {id} is {run.state} and no step of it is ready; it cannot go on here.")


def _run_step(package: Package) -> None:
    """Run one step, until it ends if it is tried again, and save its end."""
    engine = step_engine.engine_for(package)
    assert engine is not None
    sealed = push.sealed(package)
    delivery = Delivery(Lease(package.id, package.schema, sealed, None), open_package(sealed))
    while True:
        (delivery,) = engine.load(package.schema, [delivery])
        verdict = engine.verdict(delivery)
        if verdict is not None and isinstance(verdict.error, UnknownFunction):
            raise verdict.error
        outcome = verdict.outcome if verdict is not None else None
        try:
            outcome = outcome or execute(delivery.package, attempt=delivery.attempt)
        except StepGone:
            return
        settled = engine.settle([outcome])
        for error in settled.unsaved.values():
            raise error
        decision = settled.retried.get(package.id)
        if decision is None:
            return
        delivery = Delivery(delivery.lease, decision.counted(delivery.package))
