"""The rounds of the sentinel: a list of steps, of which none may keep the others from their turn.

The renewal of leases must go on whatever fails. So an error of one step is logged once and does not affect the other
steps; slow calls of the broker do not add up; and if a step that the cluster cannot do without keeps failing, the
sentinel ends, and the cluster with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tenant_q.cluster.heartbeat import Heartbeat
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.sentinel")  # part of the sentinel

# If calls of the broker take longer than this in a round, the other steps come first in the next one.
ROUND_SECONDS = 0.5
# A call may take this long to fail, so a cluster that ends begins no call later than this before its deadline.
CALL_SECONDS = 2.5


class SentinelBroken(Exception):
    """A step that the cluster cannot do without has failed for too long."""


@dataclass
class Step:
    """A step of a round.

    `what` it does completes "The sentinel cannot ...". `every` is the number of seconds between two runs. `is_vital`
    says that the cluster cannot do without it: it may fail because the broker is away, but for any other reason only
    for as long as a lease lasts. `error` is its last error, empty after a success, and `broken_since` the time when it
    began to fail for another reason.
    """

    what: str
    act: Callable[[], None]
    every: float = 0.0
    is_vital: bool = True
    due: float = 0.0
    error: str = ""
    broken_since: float | None = None


class Rounds:
    """The steps of the sentinel.

    Attributes:
        local: Steps without the broker, which run in each round, in this order.
        renew: The renewal, which comes first among the steps with the broker.
        remote: The other steps with the broker, which take turns.
        deadline: When a cluster that ends kills the processes that still run; a value of `time.monotonic()`.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        local: Sequence[Step],
        renew: Step,
        remote: Sequence[Step],
        on_outage: Callable[[], None],
    ) -> None:
        self.heartbeat = heartbeat
        self.local = list(local)
        self.renew = renew
        self.remote = list(remote)
        self.on_outage = on_outage
        self.deadline = float("inf")

    def run_one(self) -> None:
        """Run one of the sentinel's rounds: all local steps, then the due steps with the broker, as time allows.

        Raises:
            SentinelBroken: A vital step has failed for too long.
        """
        for step in self.local:
            self.do(step)
        if not self.has_no_time():
            self._run_remote()

    def _run_remote(self) -> None:
        begun = time.monotonic()
        if begun >= self.renew.due:
            self.do(self.renew)
        for step in list(self.remote):
            if time.monotonic() - begun > ROUND_SECONDS:
                return
            if time.monotonic() >= step.due:
                self.remote.remove(step)
                self.remote.append(step)
                self.do(step)

    def do(self, step: Step) -> None:
        """Do one step of the sentinel's round. Log its error once.

        Raises:
            SentinelBroken: The step is vital, and has failed for too long.
        """
        self.heartbeat.beat()
        try:
            step.act()
        except BrokerError as error:
            self._note_outage(step, error)
        except Exception as error:
            self._note_defect(step, error)
        else:
            self._note_success(step)

    def has_no_time(self) -> bool:
        """Return whether a round has no time for a broker that is away: a call might outlast the cluster's grace."""
        is_away = any(step.error for step in (self.renew, *self.remote))
        return is_away and time.monotonic() > self.deadline - CALL_SECONDS

    def steps(self) -> Iterator[Step]:
        """Yield all steps of the sentinel's rounds."""
        yield from self.local
        yield self.renew
        yield from self.remote

    def _note_outage(self, step: Step, error: BrokerError) -> None:
        step.broken_since = None
        self.on_outage()
        if not any(one.error for one in self.steps()):
            logger.error(
                "The sentinel cannot %s and goes on without the broker: %s",
                step.what,
                error,
                event="sentinel.broker_lost",
            )
        elif not step.error and not any(str(error) == one.error for one in self.steps()):
            logger.error("The sentinel cannot %s either: %s", step.what, error, event="sentinel.step_failed_too")
        step.error = str(error)
        step.due = time.monotonic() + min(step.every, conf().lease / 10)

    def _note_defect(self, step: Step, error: Exception) -> None:
        now, place = time.monotonic(), _place(error)
        if place != step.error:
            logger.critical(
                "The sentinel cannot %s; it tries again", step.what, event="sentinel.step_failed", exc_info=error
            )
        step.error = place
        step.due = now + min(step.every, conf().lease / 10)
        step.broken_since = now if step.broken_since is None else step.broken_since
        if step.is_vital and now - step.broken_since > conf().lease:
            raise SentinelBroken(f"for {conf().lease:g} seconds it could not {step.what}") from error

    def _note_success(self, step: Step) -> None:
        had_failed, was_broken = step.error, step.broken_since is not None
        step.error, step.broken_since = "", None
        step.due = time.monotonic() + step.every
        if was_broken:
            logger.warning("The sentinel can %s again", step.what, event="sentinel.step_recovered")
        elif had_failed and not any(one.error for one in self.steps()):
            logger.warning("The sentinel has the broker again", event="sentinel.broker_regained")


def _place(error: Exception) -> str:
    """Return the type and the place of a step's error: the same in each round for the same defect."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__} at {where}"
