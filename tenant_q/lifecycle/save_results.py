"""Save outcomes as `Task` rows.

Rows of many tenants are written at once, in one round trip and one commit. If that fails, each tenant is saved by
itself, so that a broken tenant affects no other. A project that listens to `post_save` of tasks gets them saved one by
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import DatabaseError
from django.db.models.signals import post_save
from django_q import signals as django_q_signals
from django_q.models import Task

from tenant_q.exceptions import CancelException, CannotSave, DatabaseAway, ResultRefused
from tenant_q.lifecycle import bulk_rows, rows_one_by_one
from tenant_q.lifecycle.outcome_rows import Key, Owner, owner_of, wants_row
from tenant_q.package.outcome import Outcome
from tenant_q.support.error_kinds import Kind, kind_of_postgres
from tenant_q.support.log_labels import get_logger
from tenant_q.support.receivers import has_receivers
from tenant_q.support.visible import one_line

logger = get_logger("tenant_q.results")

_Writer = Callable[[Mapping[Owner, Sequence[Outcome]]], set[Key]]


@dataclass(frozen=True, slots=True)
class Saved:
    """What came of writing rows.

    `errors` maps the keys of packages whose rows could not be written to the errors. `cancelled` are the keys of
    packages that already have the row of a cancelled task, which stays.
    """

    errors: dict[Key, Exception]
    cancelled: frozenset[Key] = frozenset()


def write(outcomes: Sequence[Outcome], *, between: Callable[[], Any] = lambda: None) -> Saved:
    """Save the results of tasks as rows. An existing row of a success or of a cancelled task stays.

    Args:
        outcomes: The outcomes, of any tenants. Those that leave no row are ignored.
        between: Called between two tenants if receivers of the project were called.

    Returns:
        The errors, and the cancelled tasks.

    Raises:
        DatabaseAway: The database does not answer, and nothing is saved.
    """
    by_tenant: dict[Owner, list[Outcome]] = {}
    for outcome in outcomes:
        if wants_row(outcome):
            by_tenant.setdefault(owner_of(outcome), []).append(outcome)
    if not by_tenant:
        return Saved({})
    calls_receivers = has_own_receivers()
    if not calls_receivers and len(by_tenant) > 1:
        try:
            return Saved({}, frozenset(bulk_rows.save(by_tenant)))
        except DatabaseAway:
            raise
        except Exception as error:
            logger.warning(
                "Could not save a batch of %s tenants at once: %s",
                len(by_tenant),
                error,
                event="result.batch_save_failed",
            )
    saved = []
    for owner, own in by_tenant.items():
        saved.append(_save_tenant(_writer(calls_receivers), owner, own))
        if calls_receivers:
            between()
    return _together(saved)


def save(outcomes: Sequence[Outcome]) -> dict[Key, Exception]:
    """Save results as `write` does, and return the errors."""
    return write(outcomes).errors


def save_or_raise(outcomes: Sequence[Outcome]) -> None:
    """Save all results, or raise the first error."""
    for error in save(outcomes).values():
        raise error


def save_in_transaction(outcome: Outcome) -> None:
    """Save the result of a transactional task in the transaction that is open.

    Args:
        outcome: The outcome of a transactional task.

    Raises:
        ResultRefused: PostgreSQL refuses a value.
        CannotSave: The tenant's table cannot be written to.
        CancelException: The task was cancelled while it ran, and already has a row.
    """
    try:
        cancelled = _writer(has_own_receivers())({owner_of(outcome): [outcome]})
    except (DatabaseError, psycopg.Error, ResultRefused) as error:
        if is_refused(error):
            raise ResultRefused(refusal_text(error)) from error
        raise CannotSave(f"The result of {outcome.package.id} cannot be saved: {one_line(error)}") from error
    if cancelled:
        raise CancelException("cancelled while another delivery of it ran")


def has_own_receivers() -> bool:
    """Return whether saving results calls receivers of the project: those of `post_save` of tasks."""
    return has_receivers(post_save, sender=Task, besides=django_q_signals.call_hook)


def is_refused(error: Exception) -> bool:
    """Return whether a result cannot be saved because the server refuses a value in its row."""
    return isinstance(error, ResultRefused) or kind_of_postgres(error) is Kind.REFUSAL


def refusal_text(error: Exception) -> str:
    """Return the text that is saved for a result that the server refuses."""
    return f"the server that was to keep the result refuses it ({one_line(error)[:1000]}); return something smaller."


def _writer(calls_receivers: bool) -> _Writer:
    return rows_one_by_one.save if calls_receivers else bulk_rows.save


def _save_tenant(write: _Writer, owner: Owner, own: Sequence[Outcome]) -> Saved:
    """Save the results of one tenant; each by itself if PostgreSQL refuses one of their rows."""
    try:
        return Saved({}, frozenset(write({owner: own})))
    except DatabaseAway:
        raise
    except Exception as error:  # including an error of the project's receivers, which concerns this tenant alone
        if len(own) == 1 or kind_of_postgres(error) is Kind.OUTAGE:
            return Saved({outcome.package.key: error for outcome in own})
    return _together([_save_tenant(write, owner, [outcome]) for outcome in own])


def _together(saved: Sequence[Saved]) -> Saved:
    errors = {key: error for one in saved for key, error in one.errors.items()}
    return Saved(errors, frozenset(key for one in saved for key in one.cancelled))
