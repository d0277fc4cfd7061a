"""Log how tasks end: one record for each failure, and one for each success.

A record is written where the exception still exists: in the tenant's schema, right after the task. Handlers may call
code of the project through it, such as the `repr()` of a model, which must not see another tenant's rows.
"""

from __future__ import annotations

import logging
from typing import Any

from tenant_q.conf import conf
from tenant_q.lifecycle import retries
from tenant_q.lifecycle.failure_text import ENDED_BY_HAND, read_result, traceback_of
from tenant_q.lifecycle.retries import Step
from tenant_q.package.outcome import Outcome
from tenant_q.support import sentry
from tenant_q.support.log_labels import NOTHING, get_logger

logger = get_logger("tenant_q.flows")
_retries = get_logger("tenant_q.outbox")

# The longest message of a failure in the log, in characters.
LONGEST_MESSAGE = 10_000


def labels_of(outcome: Outcome) -> dict[str, Any]:
    """Return the labels of the record of an outcome: those of its package, `attempt`, `seconds` and the `cause`."""
    labels = outcome.package.log_labels | {"attempt": outcome.attempt, "seconds": round(outcome.seconds, 6)}
    return labels if outcome.success else labels | {sentry.CAUSE: _cause(outcome)}


def log_success(outcome: Outcome) -> None:
    """Log the outcome of a task that returned: at DEBUG, or at INFO with `TENANT_Q["log_successes"]`."""
    level = logging.INFO if conf().log_successes else logging.DEBUG
    if not logger.isEnabledFor(level):
        return
    logger.log(
        level,
        "%s (%s, id %s) of %s succeeded in attempt %s after %.3f s",
        *_named(outcome),
        event="task.succeeded",
        extra=labels_of(outcome),
    )


def log_last_attempt(outcome: Outcome, cause: BaseException | None = None) -> bool:
    """Log the failure of an attempt, if no further attempt follows.

    Args:
        outcome: The outcome. Nothing is logged about a success.
        cause: As for `log_failure`.

    Returns:
        Whether it was logged. Otherwise `log_retry` or `log_failure` logs the failure.
    """
    if outcome.success or retries.after_failure(outcome).step is Step.TRY_AGAIN:
        return False
    log_failure(outcome, cause)
    return True


def log_failure(outcome: Outcome, cause: BaseException | None = None) -> None:
    """Log a failure: at ERROR, but at INFO if the task was cancelled or purged.

    Args:
        outcome: The failure. If its record was written before, nothing is logged.
        cause: The exception; None if the process has none.
    """
    if outcome.success or outcome.is_logged:
        return
    message = _message(outcome)
    is_wanted = outcome.death in ENDED_BY_HAND
    exception = None if cause is None or is_wanted else (type(cause), cause, traceback_of(cause))
    logger.log(
        logging.INFO if is_wanted else logging.ERROR,
        "%s (%s, id %s) of %s failed in attempt %s after %.3f s: %s",
        *_named(outcome),
        message,
        event="task.failed",
        exc_info=exception,
        extra=labels_of(outcome),
    )


def log_retry(outcome: Outcome, delay: float) -> None:
    """Log a failure after which another attempt follows, at WARNING and without a traceback.

    Args:
        outcome: The failure.
        delay: The seconds until the next attempt.
    """
    _retries.warning(
        "%s (%s, id %s) of %s failed in attempt %s after %.3f s and will start again in %.1f s: %s",
        *_named(outcome),
        delay,
        _message(outcome),
        event="task.retry_planned",
        extra=labels_of(outcome),
    )


def _named(outcome: Outcome) -> tuple[str, str, str, str, int, float]:
    """Return what each record of an outcome names: the task, its tenant, the attempt and its seconds."""
    package = outcome.package
    return package.func_name, package.name, package.id, package.schema, outcome.attempt, outcome.seconds


def _message(outcome: Outcome) -> str:
    """Return the cause and the message of a failure, from its text: the exception may be gone."""
    cause, message = _cause(outcome), read_result(outcome.result).message
    return f"{cause}: {message[:LONGEST_MESSAGE]}" if message else cause


def _cause(outcome: Outcome) -> str:
    """Return the class name of a failure's cause. An iter has that of its last part."""
    cause = read_result(outcome.result).cause if isinstance(outcome.result, list) else outcome.death
    return cause or NOTHING
