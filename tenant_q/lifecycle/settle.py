"""Settle outcomes: save results, complete iters, build the next links of chains.

`settle()` is the only path from outcomes to saved results, in workers and in sync mode. It may be repeated after a
crash: ids of links and parts are deterministic, and a row keeps its first success.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from tenant_q.brokers.protocol import Broker
from tenant_q.exceptions import ResultRefused
from tenant_q.lifecycle import cached_results, chains, hooks, iters, outcome_log, save_results
from tenant_q.lifecycle.settlement import Settlement
from tenant_q.package.outcome import Outcome, without_values
from tenant_q.support.log_labels import get_logger
from tenant_q.tenancy import in_schema

logger = get_logger("tenant_q.flows")


def settle(outcomes: Sequence[Outcome], broker: Broker, *, between: Callable[[], Any] = lambda: None) -> Settlement:
    """Settle outcomes: save them, and find out what follows.

    Args:
        outcomes: The outcomes, of any tenants.
        broker: The broker that keeps groups and parts.
        between: Called between two tenants if code of the project was called.

    Returns:
        The errors, and what follows.

    Raises:
        DatabaseAway: The database does not answer. Settle the same outcomes again later.
        BrokerError: The broker does not answer. Settle the same outcomes again later.
    """
    settlement = Settlement()
    collated, last_parts = iters.record_parts(outcomes, broker, settlement)
    everything = [settlement.failed.get(o.package.key, o) for o in outcomes] + collated
    saved = save_results.write(everything, between=between)
    settlement.unsaved |= saved.errors
    # A success after a cancel is dropped, with its chain and its hook.
    everything = [o for o in everything if not (o.success and o.package.key in saved.cancelled)]
    everything = _fail_refused(everything, settlement)
    everything = _save_cached(everything, broker, settlement)
    for outcome in collated:  # the parts of an iter that is not saved yet are still needed
        if outcome.package.key in settlement.unsaved:
            last = last_parts[outcome.package.key]
            settlement.unsaved[last.key] = settlement.unsaved[outcome.package.key]
            settlement.complete.remove(last)
    chains.follow([o for o in everything if o.package.key not in settlement.unsaved], settlement)
    settled = [o for o in everything if o.package.key not in settlement.unsaved]
    for outcome in settled:
        outcome_log.log_failure(outcome)
    settlement.to_call = [call for outcome in settled for call in hooks.calls_of(outcome)] + settlement.to_call
    return settlement


def _fail_refused(outcomes: Sequence[Outcome], settlement: Settlement) -> list[Outcome]:
    """Settle outcomes whose values PostgreSQL refuses as failures. Return all outcomes as they are now."""
    refused = {key: error for key, error in settlement.unsaved.items() if save_results.is_refused(error)}
    return [
        _as_failed(outcome, refused[outcome.package.key], settlement) if outcome.package.key in refused else outcome
        for outcome in outcomes
    ]


def _as_failed(outcome: Outcome, error: Exception, settlement: Settlement) -> Outcome:
    """Settle an outcome with a refused result as a failure that says why, without the values of its arguments."""
    package = outcome.package
    refused = without_values(outcome, ResultRefused(save_results.refusal_text(error)))
    settlement.unsaved.pop(package.key, None)
    settlement.unsaved |= save_results.save([refused])
    settlement.failed[package.key] = refused
    return refused


def _save_cached(outcomes: Sequence[Outcome], broker: Broker, settlement: Settlement) -> list[Outcome]:
    """Settle outcomes that are kept in the cache. Return all as they are now: a refused result is a failure."""
    kept = []
    for outcome in outcomes:
        package = outcome.package
        if package.cached and not package.is_iter_part and package.key not in settlement.unsaved:
            outcome = _cached_or_failed(outcome, broker, settlement)
        kept.append(outcome)
    return kept


def _cached_or_failed(outcome: Outcome, broker: Broker, settlement: Settlement) -> Outcome:
    try:
        with settlement.unsaved_on_error([outcome]), in_schema(outcome.package.schema):
            cached_results.save(outcome, broker)
    except ResultRefused as error:
        if outcome.success:
            refused = _as_failed(outcome, error, settlement)
            with contextlib.suppress(Exception), in_schema(outcome.package.schema):
                cached_results.save(refused, broker)  # for callers that wait for it there
            return refused
        extra = outcome.package.log_labels
        logger.error(
            "The result of %s was saved in its row only: %s",
            outcome.package.name,
            error,
            event="result.saved_in_row_only",
            extra=extra,
        )
    return outcome
