"""The engine of workflows in a worker: load steps, run their functions, write their ends, and advance their runs."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from django.db import DatabaseError

from tenant_q import tenancy
from tenant_q.exceptions import (
    DatabaseAway,
    StepGone,
    TaskCancelled,
    TaskPurged,
    TenantBroken,
    TenantBusy,
    UnknownFunction,
    ValueRefused,
)
from tenant_q.lifecycle import bulk_rows, known_outcomes, outcome_log, retries, save_results, step_engine
from tenant_q.lifecycle.coroutines import run_coroutine
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.lifecycle.failure_text import read_failure
from tenant_q.lifecycle.outcome_rows import owner_of
from tenant_q.lifecycle.retries import Step
from tenant_q.lifecycle.step_engine import STEP, StepsSettled, Verdict
from tenant_q.package.outcome import Outcome, give_up, without_effect, without_values
from tenant_q.package.package import Package
from tenant_q.package.running import running
from tenant_q.support.error_kinds import Kind, kind_of_postgres
from tenant_q.support.log_labels import get_logger
from tenant_q.support.visible import one_line
from tenant_q.workflows import admission, pushing, registry, run_rows, step_rows
from tenant_q.workflows.advancing import advance
from tenant_q.workflows.context import Context, Results
from tenant_q.workflows.plan import ON_END
from tenant_q.workflows.states import RunState, StepState
from tenant_q.workflows.step_packages import packages_of
from tenant_q.workflows.step_rows import EndedStep, LoadedStep, StepEnd
from tenant_q.workflows.transactions import Statement, is_lock_timeout, transaction
from tenant_q.workflows.values import json_of

logger = get_logger("tenant_q.workflows")

# A step that the code of this worker lacks is put off this often, by this number of seconds: a deploy may be going on.
UNKNOWN_TRIES = 12
UNKNOWN_SECONDS = 10.0
_TRIES = "unknown_step"
# A delivery that comes this much too early, in seconds, runs: clocks and timers are not exact.
EARLY = 0.05


class Engine(threading.local):
    """The engine of one process, see `lifecycle.step_engine`. Each thread has the steps that it has loaded."""

    def __init__(self) -> None:
        self._loaded: dict[str, LoadedStep] = {}

    def load(self, schema: str, deliveries: Sequence[Delivery]) -> list[Delivery]:
        loaded = step_rows.load(schema, [delivery.package for delivery in deliveries])
        self._loaded = (self._loaded if running.get() else {}) | loaded  # a step may run another workflow here
        return [self._with_attempts(delivery) for delivery in deliveries]

    def _with_attempts(self, delivery: Delivery) -> Delivery:
        """Return a delivery with the attempts of its row: a worker may have died before it put the package back."""
        loaded, package = self._loaded.get(delivery.package.id), delivery.package
        if loaded is None or loaded.attempts == package.failures:
            return delivery
        return replace(delivery, package=Package(package.task | {"failures": loaded.attempts}))

    def verdict(self, delivery: Delivery) -> Verdict | None:
        package, loaded = delivery.package, self._loaded.get(delivery.package.id)
        if loaded is None or not _is_current(package, loaded):
            _log_dropped(package, loaded)
            return Verdict(without_effect(package))
        outcome = known_outcomes.known_outcome(delivery, {})
        if outcome is not None:
            return Verdict(outcome)
        name = package.task[STEP]["name"]
        if loaded.run_state != RunState.RUNNING and name != ON_END:
            return Verdict(give_up(package, TaskCancelled("its run was cancelled"), attempt=delivery.attempt))
        if loaded.delay is not None and loaded.delay > EARLY:
            return Verdict(again=package, error=TenantBusy("it is to start later"), delay=loaded.delay)
        return _verdict_on_unknown(delivery, loaded)

    def runner(self, package: Package) -> Callable[..., Any]:
        loaded = self._loaded.get(package.id)
        if loaded is None:
            raise UnknownFunction(f"Step {package.name} was not loaded; it runs in a worker only.")
        return lambda: _run(package, loaded)

    def end_in_transaction(self, outcome: Outcome) -> None:
        ended = _succeeded(outcome)
        try:
            is_ended = step_rows.end_in_task(outcome.package.schema, ended)
        except (DatabaseError, psycopg.Error) as error:
            if save_results.is_refused(error):
                raise ValueRefused(f"PostgreSQL refuses the value: {one_line(error)}") from error
            raise
        if not is_ended:
            raise StepGone(f"Step {outcome.package.name} is not ready any more; its work is rolled back.")

    def settle(self, outcomes: Sequence[Outcome]) -> StepsSettled:
        settled = StepsSettled()
        for outcome in outcomes:
            settled.runs.setdefault(outcome.package.schema, set()).add(outcome.package.task[STEP]["run"])
        _settle([outcome for outcome in outcomes if not outcome.is_saved], settled)
        return settled

    def advance(
        self, runs: Mapping[str, Collection[str]], again: Mapping[str, Collection[str]]
    ) -> tuple[list[Package], dict[str, set[str]]]:
        advanced = advance(runs, again=again)
        packages = packages_of(advanced.ready)
        if advanced.ended:
            packages += packages_of(admission.admit(advanced.ended))
        return packages, advanced.locked

    def push(self, packages: Sequence[Package]) -> None:
        pushing.push_packages(packages)


def install() -> None:
    """Register the engine of this process."""
    step_engine.register(Engine())


# Before a step runs


def _is_current(package: Package, loaded: LoadedStep) -> bool:
    return loaded.state == StepState.READY and loaded.generation == package.task[STEP]["generation"]


def _log_dropped(package: Package, loaded: LoadedStep | None) -> None:
    reason = "it has no row" if loaded is None else f"its row is {loaded.state}, of generation {loaded.generation}"
    logger.info(
        "Dropped a package of step %s: %s", package.name, reason, event="workflow.dropped", extra=package.log_labels
    )


def _verdict_on_unknown(delivery: Delivery, loaded: LoadedStep) -> Verdict | None:
    """Return what becomes of a step that the code of this worker does not have; None if it has it."""
    package, name = delivery.package, delivery.package.task[STEP]["name"]
    workflow = registry.find(loaded.workflow)
    if workflow is not None and workflow.declared(name) is not None:
        return None
    what = f"workflow {loaded.workflow}" if workflow is None else f"step {name!r} of workflow {loaded.workflow}"
    error = UnknownFunction(f"The code of this worker has no {what}; deploy it and resume the run, or skip the step.")
    tries = int(package.option(_TRIES, 0)) + 1
    if tries > UNKNOWN_TRIES:
        return Verdict(give_up(package, error, attempt=delivery.attempt))
    return Verdict(again=Package(delivery.original.task | {_TRIES: tries}), error=error, delay=UNKNOWN_SECONDS)


# While it runs


def _run(package: Package, loaded: LoadedStep) -> StepEnd:
    """Run the function of a step, and return its end."""
    workflow = registry.get(loaded.workflow)
    declared = workflow.declared(package.task[STEP]["name"])
    if declared is None:
        raise UnknownFunction(f"Workflow {loaded.workflow} has no step {package.task[STEP]['name']!r}.")
    context = _context_of(package, loaded)
    if declared.if_ is not None and not declared.if_(context):
        return StepEnd(StepState.SKIPPED, error="its condition is false")
    output = declared.func(context)
    if inspect.isawaitable(output):
        output = run_coroutine(output)
    changes = dict(context.changes)
    return StepEnd(
        StepState.SUCCEEDED,
        output=None if output is None else json_of(output),
        context=json_of(changes) if changes else None,
    )


def _context_of(package: Package, loaded: LoadedStep) -> Context:
    run, name, index = step_rows.place_of(package)
    schema, is_last = package.schema, name == ON_END
    return Context(
        input=loaded.input,
        config=lambda: tenancy.TenantConfig.from_json(loaded.config),
        results=Results(
            loaded.inputs,
            load=lambda wanted: run_rows.output_of(schema, run, wanted),
            names=lambda: run_rows.names_with_output(schema, run),
        ),
        item=loaded.item,
        index=None if index < 0 else index,
        run_id=run,
        step=name,
        attempt=package.failures + 1,
        generation=loaded.generation,
        idempotency_key=package.id,
        tenant=schema,
        state=loaded.run_state if is_last else None,
        error=loaded.error if is_last else "",
        shared=lambda: run_rows.shared_before(schema, run, name),
    )


# After it has run


def _succeeded(outcome: Outcome) -> EndedStep:
    end: StepEnd = outcome.result
    return EndedStep(outcome.package, end, outcome.package.failures, outcome.started, outcome.stopped)


def _ended(outcome: Outcome, settled: StepsSettled) -> EndedStep:
    """Return what is written about an outcome, and note whether its step starts again."""
    if outcome.success:
        return _succeeded(outcome)
    decision, error = retries.after_failure(outcome), _short(outcome)
    times = outcome.started, outcome.stopped
    if decision.step is Step.TRY_AGAIN:
        settled.retried[outcome.package.id] = decision
        end = StepEnd(StepState.READY, error=error)
        return EndedStep(outcome.package, end, decision.tries, *times, delay=decision.delay)
    if outcome.death in (TaskCancelled.__name__, TaskPurged.__name__):
        return EndedStep(outcome.package, StepEnd(StepState.CANCELLED, error=error), outcome.package.failures, *times)
    return EndedStep(outcome.package, StepEnd(StepState.FAILED, error=error), decision.tries, *times, has_row=True)


def _short(outcome: Outcome) -> str:
    """Return the cause and the message of a failure, as a step's row keeps them. The task's failed row has the rest."""
    failure = read_failure(str(outcome.result))
    cause = outcome.death or failure.cause
    text = f"{cause}: {failure.message}" if failure.message else cause
    return one_line(text)[:2000].replace("\0", "?").encode("utf-8", "replace").decode()


def _settle(outcomes: Sequence[Outcome], settled: StepsSettled) -> None:
    """Write the ends of steps at once. After an error, do so by tenant, and then one by one."""
    if not outcomes:
        return
    try:
        tenancy.retry_conflicts(lambda: _write(outcomes, settled))
    except DatabaseAway:
        raise
    except Exception as error:
        by_schema: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            by_schema.setdefault(outcome.package.schema, []).append(outcome)
        if len(by_schema) > 1:
            for own in by_schema.values():
                _settle(own, settled)
        elif is_lock_timeout(error):  # not one by one: each would wait as long, and other tenants with it
            for outcome in outcomes:
                _note_unsaved(outcome, error, settled)
        elif len(outcomes) > 1:
            for outcome in outcomes:
                _settle([outcome], settled)
        elif outcomes[0].success and save_results.is_refused(error):
            reason = ValueRefused(f"PostgreSQL refuses the value: {one_line(error)}")
            _settle([without_values(outcomes[0], reason)], settled)
        else:
            _note_unsaved(outcomes[0], error, settled)


def _note_unsaved(outcome: Outcome, error: Exception, settled: StepsSettled) -> None:
    is_outage = isinstance(error, tenancy.DATABASE_ERRORS) and kind_of_postgres(error) is Kind.OUTAGE
    settled.unsaved[outcome.package.key] = error if is_outage else TenantBroken(one_line(error))
    settled.retried.pop(outcome.package.id, None)


def _write(outcomes: Sequence[Outcome], settled: StepsSettled) -> None:
    """Write the ends of steps and the failed rows of their tasks, in one transaction."""
    by_schema: dict[str, list[EndedStep]] = {}
    for outcome in outcomes:
        by_schema.setdefault(outcome.package.schema, []).append(_ended(outcome, settled))
    with_rows = {one.package.id for own in by_schema.values() for one in own if one.has_row}
    receivers = bool(with_rows) and save_results.has_own_receivers()
    with transaction(by_schema, *([tenancy.TASK_TABLE] if with_rows else [])) as open_one:
        changed = step_rows.end_together(open_one, by_schema, last=not with_rows)
        failed = [outcome for outcome in outcomes if outcome.package.id in with_rows & changed]
        if failed and not receivers:
            open_one.run(_row_statements(failed), last=True)
    for outcome in outcomes:
        if outcome.package.id not in changed:
            settled.retried.pop(outcome.package.id, None)
            settled.dropped.add(outcome.package.key)
            _log_dropped(outcome.package, None)
    if failed and receivers:  # they are code of the project, which a transaction of ours must not run
        save_results.save_or_raise(failed)
    for outcome in failed:
        outcome_log.log_failure(outcome)


def _row_statements(failed: Sequence[Outcome]) -> list[Statement]:
    by_owner: dict[Any, list[Outcome]] = {}
    for outcome in failed:
        by_owner.setdefault(owner_of(outcome), []).append(outcome)
    return [Statement(text, (rows,)) for text, rows in bulk_rows.insertions(by_owner)]
