"""What the cluster needs of a broker: enqueue, lease, renew, acknowledge, give back.

A package id is in exactly one place: a tenant's queue, leased, delayed, or dead. A lease is the right to run one
package until a deadline; its token is a fencing token, so that a worker that lost its lease cannot acknowledge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tenant_q.brokers.loads import Load, Totals
from tenant_q.exceptions import GroupTooLarge
from tenant_q.states import Progress, State

# An acknowledged deterministic id stays known this long: longer than any crash and restart.
REMEMBER_SECONDS = 24 * 3600
# What a function that never ran is charged until it has.
UNKNOWN_COST_MS = 10
# The expected run time of a function that is new to a tenant, as a multiple of the mean over all tenants.
NEW_FACTOR = 3
# A batch holds about this much expected work, and at most this many packages.
BATCH_SECONDS = 0.05
BATCH_LIMIT = 256
# A larger batch is at most a quarter of what is queued, so that the other workers have their share of a burst.
SMALL_BATCH = 64
# The limit of a batch in bytes of packages; a larger package is fetched alone.
BATCH_BYTES = 4 * 1024 * 1024
# Idle workers look again this often even when nothing woke them: a killed one may have taken the token.
LONGEST_WAIT = 1.0
# A batch is divided into this many slices; the next tenant's turn comes after each.
SLICES = 4
# The largest debt of a tenant, in seconds of virtual time; also in `lua/common.lua`.
MOST_DEBT_SECONDS = 3600
# The reason of a cancel, which nothing takes back, begins with this; also in `lua/common.lua`.
CANCELLED = "TaskCancelled"
# So many functions have figures and estimates of their own. The others are counted together, under `OTHER_FUNCTIONS`
# (also in `lua/common.lua`), and run alone, as any function does whose run time is not known.
MOST_FUNCTIONS = 1000
OTHER_FUNCTIONS = "other"
# A cancelled package is moved to the head of its queue when it is among so many.
CANCEL_REACH = 1000


@dataclass(frozen=True, slots=True)
class Message:
    """A package on its way to the broker.

    `func` is the name under which its run time is estimated. `delay` is in seconds. `once` says that the id is
    deterministic: it stays known for a day after its acknowledgement, and enqueueing a known id does nothing. `tenant`
    is the key of the tenant it was made for, empty for none. `follows` is the id of the package from which this one
    follows, empty for none: as long as that one is there, this id stays known.
    """

    id: str
    schema: str
    func: str
    payload: str
    delay: float = 0.0
    once: bool = False
    tenant: str = ""
    follows: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one package.

    `token` is unique: no worker gets it again, even after a failover that lost leases.
    `schema` is the name of the queue it was in. For the second tenant of a schema's name and later ones that is the
    name followed by `#` and the tenant's key; a tenant that was renamed keeps its queue.
    `starts` counts the runs that ended with their worker's death; None says that it was never given back by a death.
    `give_up_reason` is why the package is to be given up instead of run. `death` says how the worker died
    that was charged to it last, where that is known.
    """

    id: str
    schema: str
    payload: str
    token: Any
    starts: int | None = None
    give_up_reason: str | None = None
    death: str | None = None

    @property
    def is_redelivered(self) -> bool:
        """Whether the package may have been run before, in part or whole."""
        return self.starts is not None


@dataclass(frozen=True, slots=True)
class Batch:
    """What a fetch brought. `next_delayed` is the seconds until the first delayed package is due, if one is."""

    leases: tuple[Lease, ...] = ()
    next_delayed: float | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A lease to acknowledge, with the worker-seconds it used.

    For the operators' figures: `waited`, the seconds from when it was enqueued or due to its start, None where that is
    not known; `failed`, whether its outcome is a failure.
    """

    lease: Lease
    seconds: float
    waited: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """How a tenant shares the workers.

    `weight` is its share of worker-seconds against other tenants'. `max_running` is how many workers may be busy with
    it at once, `max_queued` how many of its packages may wait (queued or delayed); None is without limit. Nothing of a
    `paused` tenant is started.
    """

    weight: float = 1.0
    max_running: int | None = None
    max_queued: int | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """How many packages are where.

    `paused` are those of paused tenants, queued or delayed; `unready` the other ones that wait for their tenant to be
    there.
    """

    queued: int
    leased: int
    delayed: int
    dead: int
    paused: int = 0
    unready: int = 0

    @property
    def open(self) -> int:
        """Packages that are still to be run."""
        return self.queued + self.leased + self.delayed

    @property
    def runnable(self) -> int:
        """Packages that will be run without anything else happening first."""
        return self.open - self.paused - self.unready


@dataclass(frozen=True, slots=True)
class Dead:
    """A package that is not run any more. `died` is in seconds since the epoch."""

    id: str
    schema: str
    func: str
    died: float
    cause: str
    payload: str


@dataclass(frozen=True, slots=True)
class Live:
    """A package that is still to be run, or is being run.

    `place` is "leased", "queued" or "delayed". `at` is when a delayed one is due, in seconds since the epoch; None for
    the others. `give_up_reason` is why it is to be given up instead of run.
    """

    id: str
    schema: str
    func: str
    place: str
    at: float | None
    payload: str
    give_up_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A leased package that was cancelled since `worker` took it."""

    id: str
    worker: str
    reason: str


def state_at(place: str, give_up_reason: str | None, *, may_run: bool) -> State:
    """The state of a package: `may_run` where it was cancelled, if at all, only since its worker took it."""
    if place == "dead":
        return State.FAILURE
    if give_up_reason is not None and give_up_reason.startswith(CANCELLED) and not may_run:
        return State.CANCELLED
    return State.RUNNING if place == "leased" else State(place)


def not_larger(parts: Mapping[str, str], most_bytes: int | None) -> Mapping[str, str]:
    """Return the parts of a group. Raises `GroupTooLarge` if they are together larger than `most_bytes`."""
    size = sum(map(len, parts.values()))
    if most_bytes is not None and size > most_bytes:
        raise GroupTooLarge(size)
    return parts


def outage_seconds(lease: float) -> float:
    """How long nobody scanned for leases that ran out, when it was an outage and not the usual pause between scans."""
    return max(1.5, lease / 2)


def queue_names(schema: str, tenant: str | None) -> tuple[str, ...]:
    """Return the names that the queue of a tenant may have, of which its broker has chosen one."""
    return (schema, f"{schema}#{tenant}") if tenant else (schema,)


class Broker(Protocol):
    """One cluster's queues. Every method raises `BrokerError` when the server cannot be reached or serves no client.

    A method that sends one entry raises `EntryRefused` when the server refuses that entry alone. If the server refuses
    some of several entries that are acknowledged, given back or dead-lettered, these become dead letters.

    A tenant is addressed by its schema's name. What it has is kept under its key as well, so nothing of it meets what
    an earlier tenant of the same name has left.
    """

    cluster: str

    def ping(self) -> None:
        """Check that the server answers."""

    def probe(self) -> None:
        """Check that the server takes new entries."""

    def info(self) -> str:
        """The server's kind and version."""

    def warnings(self) -> list[str]:
        """What an operator should know about the server's settings, one sentence each."""

    def enqueue(self, messages: Sequence[Message], *, limited: bool = False) -> int:
        """Put packages on their tenants' queues. Returns how many were not known before.

        Parameters: `limited`, whether the `max_queued` of their tenant counts, which must be one for all then. Raises
        `QueueFull` when there is no room for all of them that are not known, and `TenantDeleted` when a tenant among
        them was deleted; then none is enqueued.
        """

    def fetch(
        self, worker: str, *, wait: float = 0.0, limit: int = BATCH_LIMIT, seconds: float = BATCH_SECONDS
    ) -> Batch:
        """Lease a batch: slices of the tenants whose turn it is, `limit` packages and `seconds` of expected work.

        Parameters: `wait`, for how many seconds at most it blocks first, until there may be work.
        """

    def acknowledge(self, worker: str, settled: Sequence[Settled]) -> list[str]:
        """Forget packages whose outcome is saved. Returns the ids of those whose lease the worker does not hold."""

    def note_late(self, ids: Sequence[str], *, seconds: float) -> None:
        """Remember for `seconds` that these packages are acknowledged long after their rows were saved."""

    def may_come(self, ids: Sequence[str]) -> set[str]:
        """Return the `ids` of packages that may be delivered again: in the broker, also dead, or noted as late."""

    def give_back(self, worker: str, leases: Sequence[Lease]) -> int:
        """Return unstarted packages to the heads of their queues. Returns how many."""

    def put_off(
        self,
        worker: str,
        lease: Lease,
        *,
        delay: float,
        payload: str | None = None,
        seconds: float = 0.0,
        unready: bool = False,
    ) -> None:
        """Return a package, to be delivered after `delay` seconds, with `payload` in place of its own if given.

        Parameters: `seconds`, the worker-seconds it used; `unready`, whether it waits for its tenant to be there.
        """

    def dead_letter(self, worker: str, lease: Lease, cause: str) -> None:
        """Move a package to the dead, with the cause."""

    def renew(self, workers: Sequence[str], seconds: float) -> Mapping[str, Mapping[str, str]]:
        """Extend the leases of `workers` to `seconds` from now.

        Returns, for each worker, the ids of its packages with the tokens of their leases.
        """

    def reclaim(
        self,
        worker: str,
        *,
        running: str | None,
        give_up_reason: str | None = None,
        charged: bool = True,
        death: str | None = None,
    ) -> int:
        """Give back a dead worker's packages. The id it was running is charged a start, or given the give-up reason.

        Parameters: `charged`, whether its death counts as a start of the package that it ran; False if it was killed to
        stop the cluster; `death`, how it died, in words, which is kept with the charged package.
        Returns how many were given back.
        """

    def expire(self) -> int:
        """Give back the packages whose leases ran out. Returns how many."""

    def set_policies(self, policies: Mapping[str, Policy], *, complete: bool = False) -> None:
        """Put tenants' policies in force, on what is queued already too.

        Parameters: `policies`, by schema; `complete`, whether tenants that are not among them have none any more.
        """

    def policies(self) -> Mapping[str, Policy]:
        """The policies in force, by schema; tenants without one are left out."""

    def counts(self) -> Counts:
        """How many packages are queued, leased, delayed and dead."""

    def loads(self) -> Mapping[str, Load]:
        """What each tenant that has or had something has where, and how its last hour was. One round trip."""

    def totals(self) -> Totals:
        """What was done since the broker's server was new, by tenant and function. One round trip."""

    def name_labels(self, kind: str, names: Sequence[str], *, most: int) -> set[str]:
        """Which of `names` have series of their own in the metrics, those in front first, `most` at most.

        It is the same in every process. A name keeps its series; one that was counted under "other" stays there until
        `most` is raised. So no counter ever goes back, but that of the others when it is raised.

        Parameters: `kind`, what they are, as "tenants"; `names`, all that are there: who is not makes room.
        """

    def statistics(self) -> Mapping[str, int]:
        """Return how often it happened so far: `stale_acks` were refused, leases `expired`, entries were `broken`."""

    def queue_size(self, schema: str | None = None) -> int:
        """How many packages wait: of one tenant, or of all."""

    # One tenant's packages. Brokers that have one queue for all tenants raise `ConfigurationError`.

    def live(self, schema: str, *, limit: int = 100) -> list[Live]:
        """The first `limit` of a tenant's packages: leased ones first, then queued ones in order, then delayed ones."""

    def find(self, schema: str, id: str) -> Live | None:
        """A tenant's package that is still to be run, or is being run. None where it has no such package."""

    def place(self, schema: str, id: str) -> str | None:
        """Where a tenant's package is: "queued", "delayed", "leased" or "dead". None where it has no such package."""

    def state(self, schema: str, id: str) -> State | None:
        """What has become of a tenant's package so far; None where it has no such package.

        What was cancelled before its worker took it is CANCELLED; what a worker may still be running is RUNNING.
        """

    def cancel(self, schema: str, id: str, reason: str) -> str | None:
        """Have a tenant's package given up instead of run, for a reason that begins with `CANCELLED`.

        It is at the head of its queue then, unless it was far back; if it was leased, it is among those of `cancelled`.
        Returns where it was:
        "queued", "delayed" or "leased"; None where the tenant has no such package that is still to be run.
        """

    def cancelled(self) -> list[Cancelled]:
        """Return the leased packages that were cancelled, whose workers are still to be notified."""

    def set_progress(self, told: Mapping[str, tuple[str, Progress]]) -> None:
        """Keep the progress of leased packages for as long as their leases.

        Parameters: `told`, for each worker, the id of a package that it holds and the progress of that package.
        """

    def get_progress(self, schema: str, id: str) -> Progress | None:
        """How far a tenant's leased package says it is; None where it tells nothing, or is not leased."""

    def purge(self) -> None:
        """Forget every queued, delayed and dead package."""

    def dead(
        self,
        schema: str | None = None,
        *,
        limit: int = 1000,
        newest_first: bool = False,
        ids: Collection[str] | None = None,
    ) -> list[Dead]:
        """The first `limit` of the dead packages, oldest first or newest first: of one tenant, or of all.

        Parameters: `ids`, which ones are meant, as far as they are dead; None for all.
        """

    def retry_dead(self, ids_and_payloads: Mapping[str, str]) -> int:
        """Queue dead packages again, each with this payload, or with its own where it is empty. Returns how many."""

    def purge_dead(self, ids: Sequence[str]) -> int:
        """Forget dead packages. Returns how many."""

    def close(self) -> None:
        """Hand over what this process still keeps for the broker, at its orderly end."""

    # Groups. `tenant` is the tenant's key; None for the tenant that has the schema's name now.

    def add_parts(
        self, schema: str, group: str, parts: Mapping[str, str], *, seconds: int | None, tenant: str | None = None
    ) -> int:
        """Record parts of a group. Returns how many parts of it are recorded.

        Parameters: `parts`, their payloads by index; `seconds`, how long the group is kept, None for good.

        A part that is recorded already stays. Nothing is recorded for a tenant that was deleted a short time ago; 0 is
        returned then.
        """

    def parts(
        self, schema: str, group: str, *, tenant: str | None = None, most_bytes: int | None = None
    ) -> Mapping[str, str]:
        """Return the recorded parts of a group, by index.

        Parameters: `most_bytes`, the largest total size of their payloads. Raises `GroupTooLarge` if it is exceeded.
        """

    def count_parts(self, schema: str, group: str) -> int:
        """How many parts of a group are recorded."""

    def drop_group(self, schema: str, group: str, *, tenant: str | None = None) -> int:
        """Forget a group's parts. Returns how many there were."""

    # The life of a tenant

    def note_cached(self, schema: str, id: str, *, seconds: int | None, tenant: str | None = None) -> None:
        """Note that a result of a tenant is kept in a cache for `seconds` (None: for good)."""

    def cached_ids(self, schema: str, tenant: str) -> list[str]:
        """Return the ids of a tenant's results that are kept in a cache."""

    def forget_cached(self, schema: str, tenant: str, ids: Sequence[str]) -> None:
        """Note that these results of a tenant are in no cache any more."""

    def forget_tenant(self, schema: str, tenant: str, reason: str, *, seconds: float) -> int:
        """Forget all that a deleted tenant has: packages, policy, groups, estimates, figures.

        What its workers hold is cancelled; call it again when they have ended it.

        Parameters: `schema` and `tenant`, its last name and its key; `reason`, the one for what runs, which begins
        with `CANCELLED`; `seconds`, how long packages for it are refused and nothing else is kept for it. Returns how
        many packages its workers still hold.
        """

    def rename_tenant(self, tenant: str, old: str, new: str) -> None:
        """Note that the schema of a tenant has a new name. All that it has stays where it is."""

    def set_stat(self, key: str, value: str, seconds: int) -> None:
        """Keep a cluster's status for `seconds`."""

    def get_stat(self, key: str) -> Any:
        """A cluster's status, or None."""

    def get_stats(self, pattern: str) -> list[Any]:
        """The status of every live cluster of this site."""

    def last_stats(self) -> list[Any]:
        """What each cluster of this site told last, also of those that are not live any more."""

    def forget_stats(self, keys: Sequence[str]) -> None:
        """Forget what clusters told last."""
