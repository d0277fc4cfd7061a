"""When a package is tried again: after an error, for a tenant that is not there, for a result that cannot be saved.

Delays grow exponentially up to a cap. Those after errors have jitter, so that tasks that failed together do not come
back together (Brooker, "Exponential Backoff And Jitter", 2015).
"""

from __future__ import annotations

import math
import random

from tenant_q.conf import conf
from tenant_q.package.package import Outcome, Package

# A tenant that is not there, or cannot be saved to, is tried again this often before its package is declared dead.
MOST_PUT_OFFS = 8
LONGEST_PUT_OFF = 60.0
LONGEST_RETRY = 3600.0
# A delay is shortened by up to this share of itself.
JITTER = 0.25


def put_off_delay(tries: int) -> float:
    """Seconds until the next of `tries` is made for a tenant that cannot be served or saved to."""
    return min(LONGEST_PUT_OFF, math.ldexp(0.5, min(tries - 1, 10)))


def retry_delay(outcome: Outcome) -> float | None:
    """Seconds until a task that failed is started again, or None when it is not."""
    package = outcome.package
    if outcome.success or outcome.is_final or package.option("ack_failure"):
        return None
    attempts = package.option("max_attempts", conf().max_attempts)
    failures = package.failures + 1
    if attempts and failures >= attempts:
        return None
    first = float(package.option("retry_delay", conf().retry_delay))
    factor = float(package.option("retry_backoff", conf().retry_backoff))
    try:
        delay = min(LONGEST_RETRY, first * factor ** (failures - 1))
    except OverflowError:  # after a thousand attempts
        delay = LONGEST_RETRY
    return delay * (1 - JITTER * random.random())


def after_failure(package: Package) -> Package:
    """The package as it is started again: it knows how often it has failed."""
    return Package(package.task | {"failures": package.failures + 1})
