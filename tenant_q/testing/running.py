"""Run a package in the process of a test, as a worker would: attempts, result, hook, and what follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.test import TestCase
from psycopg.pq import TransactionStatus

from tenant_q import tenancy
from tenant_q.brokers.protocol import Broker, Lease, Settled
from tenant_q.lifecycle import hooks, iters, known_outcomes, push, retries, settle
from tenant_q.lifecycle.deliveries import Delivery
from tenant_q.lifecycle.execute import execute
from tenant_q.lifecycle.failure_text import failure_of
from tenant_q.lifecycle.outcome_rows import as_task
from tenant_q.lifecycle.retries import Step
from tenant_q.package import declarations
from tenant_q.package.envelope import Found, open_package
from tenant_q.package.outcome import Outcome

WORKER = "test"
"""The key of the worker that a test is for its broker."""


def run_leased(broker: Broker, lease: Lease) -> Outcome | None:
    """Run a leased package in the schema of its tenant.

    Args:
        broker: The broker that has leased it.
        lease: The lease.

    Returns:
        The outcome, which is saved; None if the task failed and is to be started again.

    Raises:
        TenantQError: The package cannot be opened, its tenant cannot be served, or its outcome cannot be saved.
    """
    delivery = Delivery(lease, open_package(lease.payload, Found(id=lease.id)))
    package = delivery.package
    with tenancy.in_schema(package.schema):
        if package.schema != tenancy.public_schema():
            tenancy.verify(package.schema, tenant=package.tenant or None)
        outcome = _known_outcome(delivery) or _executed(broker, delivery)
        if not outcome.success:
            decision = retries.after_failure(outcome)
            if decision.step is Step.TRY_AGAIN:
                again = push.sealed(decision.counted(delivery.original))
                broker.put_off(WORKER, lease, delay=decision.delay, payload=again, seconds=outcome.seconds)
                return None
        return _completed(broker, lease, outcome)


def error_of(outcome: Outcome) -> BaseException:
    """Return the error of a failed outcome: what the task raised, or else an error made from the text."""
    return outcome.error or failure_of(as_task(outcome))


def _known_outcome(delivery: Delivery) -> Outcome | None:
    """Return the outcome of a task that is not to be run. For `expires`, the time of a test does not pass."""
    known = known_outcomes.known_outcome(delivery, {})
    return known or known_outcomes.expired_outcome(delivery, declarations.complete(delivery.package))


def _executed(broker: Broker, delivery: Delivery) -> Outcome:
    if delivery.package.option("unique_until") == "start":
        broker.release_unique(WORKER, delivery.lease)
    with _as_outside_of_the_test():
        connection = tenancy.tenant_connection()
        if not connection.in_atomic_block:
            return execute(delivery.package, attempt=delivery.attempt)
        before = connection.savepoint()
        outcome = execute(delivery.package, attempt=delivery.attempt)
        if connection.connection.info.transaction_status == TransactionStatus.INERROR:
            connection.savepoint_rollback(before)  # the test's transaction could not go on
        else:
            connection.savepoint_commit(before)
        return outcome


def _completed(broker: Broker, lease: Lease, outcome: Outcome) -> Outcome:
    """Save an outcome, call what is to be called, enqueue what follows, and acknowledge the lease."""
    settlement = settle.settle([outcome], broker)
    for error in settlement.unsaved.values():
        raise error
    for call in settlement.to_call:
        with _as_outside_of_the_test():
            hooks.call(call)
    push.push(settlement.links, once=True, follows=settlement.sources)
    broker.acknowledge(WORKER, [Settled(lease, outcome.seconds, failed=not outcome.success)])
    iters.delete_parts(settlement.complete, broker)
    return settlement.failed.get(outcome.package.key, outcome)


@contextmanager
def _as_outside_of_the_test() -> Iterator[None]:
    """Call what the block leaves for the commit at its end, although the transaction of a `TestCase` never commits."""
    if not tenancy.tenant_connection().in_atomic_block:
        yield
        return
    with TestCase.captureOnCommitCallbacks(using=tenancy.database_alias(), execute=True):
        yield
