"""Start runs: write their rows in the caller's transaction, and push their first steps on commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db.models import BooleanField, ExpressionWrapper, Q
from django_q.humanhash import uuid
from django_q.models import Schedule

from tenant_q import policies, tenancy
from tenant_q.brokers import get_broker
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError, KeyReused, NoTenant, QueueFull, TenantLeaving, WorkflowError
from tenant_q.package.functions import LONGEST_NAME
from tenant_q.package.running import running
from tenant_q.schedules import schedule_rows
from tenant_q.support.call_checks import shown
from tenant_q.support.json_values import json_problem
from tenant_q.support.log_labels import get_logger
from tenant_q.support.moments import at
from tenant_q.support.plurals import counted
from tenant_q.support.visible import one_line
from tenant_q.workflows import admission, run_rows, step_options
from tenant_q.workflows.models import WorkflowRun
from tenant_q.workflows.plan import Plan
from tenant_q.workflows.pushing import push_or_leave, push_steps
from tenant_q.workflows.run import Run
from tenant_q.workflows.states import RunState, StepState
from tenant_q.workflows.step_packages import ReadyStep
from tenant_q.workflows.transactions import on
from tenant_q.workflows.values import json_of

if TYPE_CHECKING:
    from tenant_q.workflows.workflow import Workflow

logger = get_logger("tenant_q.workflows")

FIRST_LOOK_SECONDS = 10.0
"""The scheduler looks at a new run after this time, if its first steps were not pushed."""
LONGEST_KEY = 500


def start(workflow: Workflow, input: Any, *, key: str | None = None, schema: str | None = None, by: str = "") -> Run:
    """Start a run of a workflow. See `Workflow.start`."""
    if conf().sync:
        from tenant_q.workflows import here

        return here.start_on_commit(workflow, input, key=key, schema=schema, by=by)
    run, is_new = write(workflow, input, key=key, schema=schema, by=by)
    if is_new:
        tenancy.on_commit(lambda: _begin(run))
    return run


def _begin(run: Run) -> None:
    """Push the first steps of a new run. If its tenant is being decommissioned, delete it and raise `TenantLeaving`."""
    try:
        push_or_leave(run.schema, run.id, lambda: push_steps(first_steps(run), for_caller=True))
    except TenantLeaving:
        run_rows.forget(run.schema, run.id)
        raise


def write(
    workflow: Workflow, input: Any, *, key: str | None = None, schema: str | None = None, by: str = ""
) -> tuple[Run, bool]:
    """Write the rows of a run, in the caller's transaction if one is open. Arguments and errors are those of `start`.

    Returns:
        The run, and whether it is new.
    """
    plan, text = workflow.plan, input_text(workflow, input)
    _check_key(workflow.path, key)
    name, _ = tenancy.task_address(schema)
    _refuse_public(name)
    _refuse_other_brokers()
    _refuse_full(name)
    config, limit = tenancy.config(name), admission.limit_of(name)
    row = WorkflowRun(
        id=uuid()[1],
        workflow=workflow.path,
        version=plan.version,
        key=key,
        cluster=conf().cluster,
        state=RunState.RUNNING if limit is None else RunState.PENDING,
        plan=json.loads(plan.text),
        input=json.loads(text),
        config=config.as_json(),
        by=one_line(by)[:150],
    )
    if _insert(name, row, plan, text):
        logger.debug(
            "Started workflow %s", workflow.path, event="workflow.started", extra={"schema": name, "task_id": row.id}
        )
        return Run(row, name), True
    return _with_key(name, workflow, key, row.input), False


def input_text(workflow: Workflow, input: Any) -> str:
    """Return the input of a run as JSON. Raises `WorkflowError` if it does not fit the workflow."""
    found = step_options.check_input(workflow.path, workflow.input, input)
    try:
        return json_of(found)
    except Exception as error:
        raise WorkflowError(f"The input of workflow {workflow.path} cannot be kept: {error}") from error


def _check_key(path: str, key: Any) -> None:
    if len(path) > LONGEST_NAME:
        raise WorkflowError(f"The path of workflow {path[:100]}... has {len(path)} characters; use {LONGEST_NAME}.")
    if key is None:
        return
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or json_problem(key):
        raise WorkflowError(
            f"The key of a run of workflow {path} is {shown(key)}; it must be a text of 1 to {LONGEST_KEY} characters."
        )


def _refuse_public(schema: str) -> None:
    """Raise `NoTenant` for the public schema: no scheduler would look at its runs."""
    if schema == tenancy.public_schema():
        raise NoTenant(
            f"Workflows run for tenants, and {schema!r} is the public schema: choose a tenant with "
            "schema_name='<schema>', or with in_schema('<schema>')."
        )


def _refuse_other_brokers() -> None:
    if not getattr(get_broker(), "supports_tenant_queues", False):
        raise ConfigurationError("Workflows need a broker on Redis; set Q_CLUSTER['redis'].")


def _refuse_full(schema: str) -> None:
    """Raise `QueueFull` if the tenant's queue is full. Steps do not count against its limit, but new runs must wait."""
    limit = policies.policy_of(schema).max_queued
    if not limit:
        return
    waiting = get_broker().queue_size(schema)
    if waiting >= limit:
        tasks = counted(waiting, "task waits", "tasks wait")
        raise QueueFull(
            f"A workflow cannot be started for {schema}: {tasks}, and its max_queued is {limit}; try again later, "
            f"or raise it with `python manage.py mstenant limit {schema} --max-queued N`."
        )


def _insert(schema: str, row: Any, plan: Plan, text: str) -> bool:
    """Write a run and its steps with one statement, with the times of PostgreSQL's clock. Return whether it is new."""
    is_pending = row.state == RunState.PENDING
    ready = set() if is_pending else {step.name for step in plan.roots}
    steps = [{"name": name, "state": StepState.READY if name in ready else StepState.WAITING} for name in plan.by_name]
    values = (
        row.id, row.workflow, row.version, row.key, row.cluster, row.state, plan.text, text, json.dumps(row.config),
        plan.timeout, FIRST_LOOK_SECONDS, row.by, json.dumps(steps),
    )  # fmt: skip
    statement, parameters = on(schema, "workflow_start", *values)
    with run_rows.explained(schema), tenancy.detect_outages(), tenancy.raw_cursor() as cursor:
        cursor.execute(statement, parameters)
        found = cursor.fetchone()
    if found is None:
        return False
    row.created, row.deadline, row.look_at = (None if epoch is None else at(epoch) for epoch in found)
    row.started = None if is_pending else row.created
    return True


def _with_key(schema: str, workflow: Workflow, key: str | None, input: Mapping[str, Any]) -> Run:
    """Return the run that has a key. Raises `KeyReused` if its input is another one."""
    with run_rows.tables_of(schema):  # PostgreSQL compares, which changes numbers: 1e30 is read as a whole number
        is_same = ExpressionWrapper(Q(input=input), output_field=BooleanField())
        row: Any = run_rows.runs().annotate(is_same=is_same).get(workflow=workflow.path, key=key)
    if not row.is_same:
        raise KeyReused(
            f"Workflow {workflow.path} was started with key {key!r} and another input before, as run {row.id}; use "
            "another key, or the same input."
        )
    return Run(row, schema)


def first_steps(run: Run) -> list[ReadyStep]:
    """Return the steps with which a new run begins. A pending run may begin with none."""
    if run.state == RunState.PENDING:
        return admission.admit([run.schema])
    return [
        ReadyStep(
            schema=run.schema,
            workflow=run.workflow,
            run=run.id,
            name=step.name,
            index=-1,
            generation=1,
            cluster=run.row.cluster,
            options=step.options,
        )
        for step in run.plan.roots
    ]


# From tasks and schedules


def start_for_task(workflow: Workflow, input: Any) -> Run:
    """Start a run from the task that runs here and names the workflow. Its key makes it one run for each task."""
    package = running.get()
    if package is None:
        raise WorkflowError(
            f"Workflow {workflow.path} was called outside of a task; start a run with its method start()."
        )
    key = f"schedule:{package.id}" if package.option("schedule") is not None else f"task:{package.id}"
    return start(workflow, input, key=key, by=str(package.option("schedule") or "")[:150])


def schedule(workflow: Workflow, input: Any, *, name: str, schema_name: str | None = None, **when: Any) -> Schedule:
    """Create or update a schedule that starts a workflow. See `Workflow.schedule`."""
    assert workflow.plan  # its graph is checked here already
    values = (json.loads(input_text(workflow, input)),)
    with tenancy.in_verified_schema(tenancy.task_schema(schema_name)):
        return schedule_rows.ensure(name, workflow.path, values, when)
