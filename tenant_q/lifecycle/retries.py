"""Decide what becomes of a package after something went wrong.

Each function answers for one kind of trouble: the task failed, its tenant cannot be served, or its result cannot be
saved. The answer is a `Decision`; nobody else counts tries or computes delays.

Delays grow exponentially up to a limit. Those after errors have jitter, so that tasks that failed together do not come
back together (Brooker, "Exponential Backoff And Jitter", 2015).
"""

from __future__ import annotations

import contextlib
import math
import pydoc
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tenant_q import exceptions
from tenant_q.conf import conf
from tenant_q.exceptions import (
    CacheAway,
    DatabaseAway,
    ReplicaAway,
    Retry,
    SchemaNotMigrated,
    SessionLimit,
    TenantBusy,
    TenantNotReady,
)
from tenant_q.package.functions import name_of
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package

# A package whose tenant cannot be served, or whose result cannot be saved, is put off this often before it is
# dead-lettered.
MOST_PUT_OFFS = 8
LONGEST_PUT_OFF = 60.0
LONGEST_WAIT_FOR_SESSION = 2.0
LONGEST_RETRY = 3600.0
# Conditions of a tenant that end by themselves: its packages wait, however long that takes.
_TEMPORARY = (SchemaNotMigrated, TenantNotReady, TenantBusy, ReplicaAway)


class Step(Enum):
    """What becomes of a package."""

    WAIT = "wait"  # deliver it again later; it did not fail
    TRY_AGAIN = "try again"  # start it again later; a failure was counted
    GIVE_UP = "give up"  # the failure is final, and is saved as a row
    DEAD_LETTER = "dead-letter"  # keep it among the dead letters, because no row can be saved


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a package.

    `tries` counts the tries of this kind, this one included. `counter` is the name under which the package carries
    their number. `delay` is the number of seconds until the next delivery.
    """

    step: Step
    tries: int
    counter: str
    delay: float = 0.0

    def counted(self, package: Package) -> Package:
        """Return the package to retry, with the number of its tries."""
        return Package(package.task | {self.counter: self.tries})


def after_failure(outcome: Outcome) -> Decision:
    """Decide about the retry of a task that failed: try again, or give up.

    Args:
        outcome: The failure.

    Returns:
        The decision. Give up when the failure is final or acknowledged, no attempt is left, or the task's options name
        the errors that are worth another one, and this is none of them.
    """
    package, failures = outcome.package, outcome.package.failures + 1
    if outcome.is_final or is_last_attempt(package):
        return Decision(Step.GIVE_UP, failures, "failures")
    if isinstance(outcome.error, Retry):
        delay = _retry_delay(package, failures) if outcome.error.delay is None else outcome.error.delay
        return Decision(Step.TRY_AGAIN, failures, "failures", delay)
    if not _is_retried(outcome):
        return Decision(Step.GIVE_UP, failures, "failures")
    return Decision(Step.TRY_AGAIN, failures, "failures", _retry_delay(package, failures))


def is_last_attempt(package: Package) -> bool:
    """Return whether the package has no further attempt if the next one fails, so that there is no retry."""
    attempts = package.option("max_attempts", conf().max_attempts)
    return bool(package.option("ack_failure") or (attempts and package.failures + 1 >= attempts))


def _is_retried(outcome: Outcome) -> bool:
    """Return whether the options `retry_on` and `no_retry_on` allow another attempt after an error.

    They name classes by their paths. An error fits its class and the bases of that, and so does the cause of death,
    such as `TaskTimeout`, that stands for the error.
    """
    wanted, unwanted = outcome.package.option("retry_on"), outcome.package.option("no_retry_on")
    if wanted is None and unwanted is None:
        return True
    found = (type(outcome.error), getattr(exceptions, outcome.death or "", None))
    kinds = [kind for kind in found if isinstance(kind, type)]
    return (wanted is None or _fit(kinds, wanted)) and not _fit(kinds, unwanted or ())


def _fit(kinds: Sequence[type], names: Iterable[str]) -> bool:
    """Return whether one of the classes is, or inherits from, a class that the names lead to.

    A name may be another one than the class's own: `django.db.OperationalError` is defined in `django.db.utils`.
    """
    own = {name_of(base) for kind in kinds for base in kind.__mro__}
    for name in names:
        if name in own:
            return True
        with contextlib.suppress(pydoc.ErrorDuringImport):
            named = pydoc.locate(name)
            if isinstance(named, type) and any(issubclass(kind, named) for kind in kinds):
                return True
    return False


def ends_by_itself(error: Exception) -> bool:
    """Return whether an error shows a condition of a tenant that ends by itself, however long that takes."""
    return isinstance(error, _TEMPORARY)


def while_unavailable(package: Package, error: Exception) -> Decision:
    """Decide about the retry of a package whose tenant cannot be served: wait, give up or dead-letter.

    A tenant that does not exist yet may be in a transaction that is still open. A condition that ends by itself is
    counted apart, so that it uses up none of the tries for those that may not end.

    Args:
        package: The package as it was delivered.
        error: Why its tenant cannot be served.

    Returns:
        The decision. Give up when the database is lost each time the task runs: then the task causes it.
    """
    counter = "waited" if ends_by_itself(error) else "put_off"
    tries = int(package.option(counter, 0)) + 1
    if tries > MOST_PUT_OFFS and counter == "put_off":
        return Decision(Step.GIVE_UP if isinstance(error, DatabaseAway) else Step.DEAD_LETTER, tries, counter)
    delay = _put_off_delay(tries)
    if isinstance(error, SessionLimit):  # it ends with another task of the tenant, and the others wait for the same
        delay = min(delay, LONGEST_WAIT_FOR_SESSION) * random.uniform(0.5, 1)
    return Decision(Step.WAIT, tries, counter, delay)


def while_unsaved(package: Package, error: Exception) -> Decision:
    """Decide about the retry of a package whose outcome cannot be saved: wait, or dead-letter.

    Args:
        package: The package.
        error: Why its outcome cannot be saved. An outage of the cache may last longer than the tries, and so may the
            repair of a tenant's role, and the lack of a session for it.

    Returns:
        The decision.
    """
    tries = int(package.option("put_off", 0)) + 1
    if tries > MOST_PUT_OFFS and not isinstance(error, CacheAway | TenantNotReady | SessionLimit):
        return Decision(Step.DEAD_LETTER, tries, "put_off")
    return Decision(Step.WAIT, tries, "put_off", _put_off_delay(tries))


def _put_off_delay(tries: int) -> float:
    return min(LONGEST_PUT_OFF, math.ldexp(0.5, min(tries - 1, 10)))


def _retry_delay(package: Package, failures: int) -> float:
    first = float(package.option("retry_delay", conf().retry_delay))
    factor = float(package.option("retry_backoff", conf().retry_backoff))
    jitter = float(package.option("retry_jitter", conf().retry_jitter))
    try:
        delay = min(LONGEST_RETRY, first * factor ** (failures - 1))
    except OverflowError:  # after a thousand attempts
        delay = LONGEST_RETRY
    return delay * (1 - jitter * random.random())
