"""The states of runs and of their steps."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """The state of a run. Each is a `str`, equal to its name in lower case.

    `PENDING` runs wait because the tenant has as many open runs as its limit allows. A run whose state is one of the
    last three has ended once its `on_end` step has: then `ended` is set.
    """

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """The state of a step. Whether a `READY` step is queued, delayed or running is what the broker says.

    `PARKED` steps wait for something other than a worker, `MAPPING` ones for their items.
    """

    WAITING = "waiting"
    READY = "ready"
    PARKED = "parked"
    MAPPING = "mapping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


OPEN_RUN = (RunState.PENDING, RunState.RUNNING, RunState.CANCELLING)
"""The states of a run that is not decided yet."""
ENDED_STEP = (StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED)
"""The states that a step keeps until the run is resumed."""
