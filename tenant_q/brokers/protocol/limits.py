"""The numbers that every broker keeps to: how large a batch is, what a run is charged, how long an id stays known."""

from __future__ import annotations

from tenant_q.conf import conf

# An acknowledged deterministic id stays known this long: longer than any crash and restart.
REMEMBER_SECONDS = 24 * 3600
# The charge for a function whose run time is unknown, until it has run.
UNKNOWN_COST_MS = 10
# The expected run time of a function that is new to a tenant, as a multiple of the mean over all tenants.
NEW_FACTOR = 3
# A batch holds about this much expected work, and at most this many packages.
BATCH_SECONDS = 0.05
BATCH_LIMIT = 256
# A larger batch is at most a quarter of what is queued, so that the other workers get their share of a burst.
SMALL_BATCH = 64
# The limit of a batch in bytes of packages; a larger package is fetched alone.
BATCH_BYTES = 4 * 1024 * 1024
# Idle workers look again this often even when nothing woke them: a killed one may have taken the token.
LONGEST_WAIT = 1.0
# A batch is divided into this many slices, see `slices`.
SLICES = 4
# The largest debt of a tenant, in seconds of virtual time; also in `lua/common.lua`.
MOST_DEBT_SECONDS = 3600
# The reason of a cancel begins with this, and nothing takes a cancel back; also in `lua/common.lua`.
CANCELLED = "TaskCancelled"
# The number of functions with figures and estimates of their own. The others are counted together, under
# `OTHER_FUNCTIONS` (also in `lua/common.lua`), and run alone, as does any function whose run time is unknown.
MOST_FUNCTIONS = 1000
OTHER_FUNCTIONS = "other"
# The number of functions of a tenant with figures of their own in four hours of a day; the others are counted together.
# It is also in `lua/common.lua`.
MOST_DAY_FUNCTIONS = 12
# A rate allows the starts of this time at once, if nobody took them when they were due. What has to wait for its rate
# waits at least for the second time. Both are also in `lua/common.lua`, in milliseconds.
RATE_BURST_SECONDS = 0.5
SHORTEST_PARKING = 0.02
# A cancelled package is moved to the head of its queue if it is among the first of this number.
CANCEL_REACH = 1000


def slices() -> int:
    """Return the number of slices of a batch; the next tenant's turn comes after each.

    If each slice opens a session of its tenant's role, which takes as long as several short tasks, one tenant may fill
    a batch. The next fetch serves whom it would have served anyway.
    """
    return 1 if conf().isolation == "login" else SLICES
