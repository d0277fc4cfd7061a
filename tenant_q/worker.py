"""The worker: fetch a batch of leases, run it, settle the outcomes, acknowledge.

What is finished but not yet saved or acknowledged is kept in hand through an outage of either server, and finished
before anything new is fetched.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from django.conf import settings
from django.core.cache import caches
from django.utils import timezone
from django_q.signals import post_spawn

from tenant_q import enqueue, flows, results, session, tenancy
from tenant_q.brokers.protocol import Batch, Broker, Lease, Settled
from tenant_q.conf import conf
from tenant_q.exceptions import (
    BadPackage,
    BrokerError,
    DatabaseAway,
    SchemaNotMigrated,
    TaskTimeout,
    TenantBusy,
    TenantNotReady,
    TenantUnavailable,
    WorkerDied,
)
from tenant_q.executor import execute, give_up, timeout_of
from tenant_q.labels import get_logger
from tenant_q.package import Outcome, Package, carried_outcome, labels, open_package, seal, with_outcome
from tenant_q.role import Role, Slot

logger = get_logger("tenant_q.worker")

# No finished outcome waits longer than about this for its batch-mates.
FLUSH_SECONDS = 0.1
# A tenant that is not there, or cannot be saved to, is tried again this often before its package is declared dead.
MOST_PUT_OFFS = 8
LONGEST_PUT_OFF = 60.0
# How often a worker looks whether tenants it saved for are to be pruned.
PRUNE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A lease whose package has come to an outcome that is not acknowledged yet."""

    lease: Lease
    outcome: Outcome


class Worker(Role):
    """Runs packages of every tenant. `key` names the worker towards the broker."""

    name = "worker"

    def __init__(self, key: str, broker: Broker, slot: Slot, *, once: bool = False) -> None:
        super().__init__(slot, once=once)
        self.key = key
        self.broker = broker
        self.started = 0
        self._unsettled: list[Finished] = []
        self._links: list[Package] = []
        self._unacknowledged: list[Finished] = []
        self._complete: list[Package] = []
        self._to_prune: dict[str, float] = {}
        self._next_prune = 0.0
        for alias in settings.CACHES:
            caches[alias]  # made here, it serves every task; made in a task's context, it would end with it
        post_spawn.send(sender="django_q", proc_name=f"{self.name} {os.getpid()}")

    def tick(self) -> float:
        self._finish()
        if self.stopping:
            return 0.0
        batch = self.broker.fetch(self.key)
        if batch.leases:
            for schema, leases in _slices(batch):
                self._run_slice(schema, leases)
            self._finish()
            self._recycle_when_due()
        elif not self.once:
            self.broker.wait(1.0 if batch.next_delayed is None else batch.next_delayed)
        self._prune_when_due()
        return 0.0

    def has_unfinished(self) -> bool:
        return bool(self._unsettled or self._links or self._unacknowledged or self._complete)

    def close(self) -> None:
        self.broker.close()

    # Running

    def _run_slice(self, schema: str, leases: Sequence[Lease]) -> None:
        """Run one tenant's packages of a batch, in its schema. They are put off when the tenant cannot be served."""
        waiting = [(lease, package) for lease in leases if (package := self._open(lease))]
        if not waiting:
            return
        try:
            with _in_verified_schema(schema):
                saved = self._saved_before(waiting)
                session.watch()
                while waiting and not self.stopping:
                    self._finish_when_due(schema)
                    lease, package = waiting[0]
                    outcome = self._run(lease, package, saved)
                    waiting.pop(0)
                    self._unsettled.append(Finished(lease, outcome))
                    _clean_up(schema)
        except TenantUnavailable as error:
            for lease, package in waiting:
                self._put_off_unavailable(lease, package, error)
        else:
            self.broker.give_back(self.key, [lease for lease, _ in waiting])

    def _open(self, lease: Lease) -> Package | None:
        """Read a package. A refused one goes to the dead, or to a failed row if its signature is right."""
        try:
            package = open_package(lease.payload, schema=lease.schema or None)
            if (lease.starts or 0) < 2 * package.max_deliveries:
                return package
            # Even giving it up has killed its worker.
            self.broker.bury(self.key, lease, f"{WorkerDied.__name__}: saving its failed row killed the worker")
        except BadPackage as error:
            extra = {"schema": lease.schema, "task_id": lease.id}
            logger.error("Package %s of %s is refused: %s", lease.id, lease.schema, error, extra=extra)
            if error.package is not None:
                self._unsettled.append(Finished(lease, give_up(error.package, error)))
            else:
                self.broker.bury(self.key, lease, f"BadPackage: {error}")
        return None

    def _saved_before(self, packages: Sequence[tuple[Lease, Package]]) -> dict[str, Outcome]:
        """The outcomes of redelivered packages that had succeeded and been saved: one query a batch, if any."""
        redelivered = {lease.id: package for lease, package in packages if lease.is_redelivered}
        if not redelivered:
            return {}
        return {
            id: Outcome(
                package=redelivered[id],
                success=True,
                result=task.result,
                started=task.started,
                stopped=task.stopped,
                seconds=0.0,
                attempt=task.attempt_count,
            )
            for id, task in results.successes(redelivered).items()
        }

    def _run(self, lease: Lease, package: Package, saved: dict[str, Outcome]) -> Outcome:
        done = carried_outcome(package) or saved.get(lease.id) or _verdict(lease, package)
        if done is not None:
            return done
        _enter_as_asked(package)
        try:
            timeout = timeout_of(package)
        except Exception as error:  # plain `async_task` checks nothing
            return give_up(package, error)
        logger.debug("Running %s", package.name, extra=labels(package))
        self.started += 1
        self.slot.start(labels(package), timeout)
        outcome = execute(package, attempt=(lease.starts or 0) + 1)
        self.slot.finish()
        self.stopping.listen()
        return outcome

    # Finishing

    def _finish_when_due(self, schema: str) -> None:
        if self._unsettled and _age(self._unsettled[0].outcome) > FLUSH_SECONDS:
            self._finish()
            _enter(schema)
            session.watch()

    def _finish(self) -> None:
        """Settle what has run, enqueue chains' next links, acknowledge. What an outage interrupts is done later."""
        if self._unsettled:
            self._settle()
        if self._links:
            enqueue.push(self._links, once=True)
            self._links = []
        if self._unacknowledged:
            self._acknowledge()
        if self._complete:
            flows.close_iters(self._complete, self.broker)
            self._complete = []

    def _settle(self) -> None:
        """Settle all at once; where that fails in a way nobody foresaw, one by one, and bury what fails then."""
        try:
            self._settle_these(self._unsettled)
        except (BrokerError, DatabaseAway):
            raise
        except Exception:
            logger.exception("A batch of %s outcomes is settled one by one", len(self._unsettled))
            while self._unsettled:
                self._settle_or_bury(self._unsettled[0])
        self._unsettled = []

    def _settle_or_bury(self, finished: Finished) -> None:
        try:
            self._settle_these([finished])
        except (BrokerError, DatabaseAway):
            raise
        except Exception as error:
            logger.exception(
                "The outcome of %s cannot be settled", finished.lease.id, extra=labels(finished.outcome.package)
            )
            self.broker.bury(self.key, finished.lease, f"{type(error).__name__}: {error}")
        self._unsettled.remove(finished)

    def _settle_these(self, unsettled: Sequence[Finished]) -> None:
        settlement = flows.settle([finished.outcome for finished in unsettled], self.broker)
        for finished in unsettled:
            error = settlement.unsaved.get(finished.outcome.package.schema)
            if error is not None:
                self._put_off_unsaved(finished, error)
            else:
                self._unacknowledged.append(finished)
                self._to_prune.setdefault(finished.outcome.package.schema, time.monotonic())
        if any(finished.outcome.package.option("hook") for finished in unsettled):
            session.clean_up()
            tenancy.leave()
        self._links += settlement.links
        self._complete += settlement.complete

    def _acknowledge(self) -> None:
        settled = [Settled(finished.lease, finished.outcome.seconds) for finished in self._unacknowledged]
        refused = self.broker.acknowledge(self.key, settled)
        for finished in self._unacknowledged:
            if finished.lease.id in refused:
                logger.warning(
                    "The lease of %s had been given to another worker; its acknowledgement is refused",
                    finished.lease.id,
                    extra=labels(finished.outcome.package),
                )
        self._unacknowledged = []

    # Putting off

    def _put_off_unavailable(self, lease: Lease, package: Package, error: TenantUnavailable) -> None:
        """A tenant that is not there yet may be in a transaction still open; one not migrated will be."""
        tries = int(package.option("put_off", 0))
        if tries >= MOST_PUT_OFFS and not isinstance(error, SchemaNotMigrated | TenantNotReady | TenantBusy):
            logger.error("Package %s is given up: %s", lease.id, error, extra=labels(package))
            self.broker.bury(self.key, lease, f"{type(error).__name__}: {error}")
            return
        if tries == 0:
            logger.warning("Package %s waits for its tenant: %s", lease.id, error, extra=labels(package))
        self._put_off(lease, Package(package.task | {"put_off": tries + 1}))

    def _put_off_unsaved(self, finished: Finished, error: Exception) -> None:
        """The task has run: what is put off is the saving of its outcome."""
        package = finished.outcome.package
        tries = int(package.option("put_off", 0))
        logger.error(
            "The result of %s cannot be saved (try %s): %s", package.name, tries + 1, error, extra=labels(package)
        )
        if tries >= MOST_PUT_OFFS:
            self.broker.bury(self.key, finished.lease, f"{type(error).__name__}: {error}")
        else:
            self._put_off(finished.lease, with_outcome(finished.outcome, put_off=tries + 1))

    def _put_off(self, lease: Lease, package: Package) -> None:
        delay = min(LONGEST_PUT_OFF, 0.5 * 2 ** min(package.task["put_off"] - 1, 10))
        self.broker.put_off(self.key, lease, delay=delay, payload=seal(package))

    # Between batches

    def _prune_when_due(self) -> None:
        """Prune the tenants whose saved rows are old enough to be pruned by now."""
        if time.monotonic() < self._next_prune:
            return
        self._next_prune = time.monotonic() + PRUNE_SECONDS
        due = [s for s, since in self._to_prune.items() if time.monotonic() - since > results.spared().total_seconds()]
        for schema in due[:10]:
            del self._to_prune[schema]
            try:
                results.prune(schema)
            except DatabaseAway:
                raise
            except tenancy.DATABASE_ERRORS as error:
                logger.warning("Old results of %s are not pruned: %s", schema, error, extra={"schema": schema})

    def _recycle_when_due(self) -> None:
        """After `recycle` tasks or beyond `max_rss` kB, make way for a fresh process."""
        limit = conf().max_rss
        # ru_maxrss is in kB on Linux, in bytes on macOS.
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
        if self.started >= conf().recycle or (limit and rss >= limit):
            logger.info("The worker %s is recycled after %s tasks", self.key, self.started)
            self.stopping.set()


def _slices(batch: Batch) -> list[tuple[str, list[Lease]]]:
    """The batch by tenant; each tenant's packages in their order."""
    ordered = sorted(batch.leases, key=lambda lease: lease.schema)
    return [(schema, list(leases)) for schema, leases in groupby(ordered, key=lambda lease: lease.schema)]


@contextlib.contextmanager
def _in_verified_schema(schema: str) -> Iterator[None]:
    """Enter a schema, sure of it. Afterwards no tenant is current."""
    try:
        _enter(schema)
        yield
    finally:
        tenancy.leave()


def _enter(schema: str, databases: tenancy.Databases = None) -> None:
    tenancy.enter(schema, databases)
    if schema != tenancy.public_schema():
        tenancy.verify(schema, databases)


def _enter_as_asked(package: Package) -> None:
    """Follow the options of a task about its tenant's row and its databases."""
    seconds, databases = package.option("tenant_cache_seconds"), package.option("databases")
    if seconds is not None:
        tenancy.refresh_tenant(package.schema, seconds)
    if seconds is not None or databases:
        _enter(package.schema, databases)


def _clean_up(schema: str) -> None:
    """After a task: nothing of it is left, and the next one of its tenant finds the schema verified."""
    if session.clean_up():
        tenancy.leave()
        _enter(schema)
        session.watch()
    else:
        tenancy.enter(schema)


def _verdict(lease: Lease, package: Package) -> Outcome | None:
    """The failure of a package that is not to be started again, or None."""
    starts = lease.starts or 0
    if lease.verdict:
        return give_up(package, TaskTimeout(lease.verdict), attempt=starts)
    if starts >= package.max_deliveries:
        times = "once" if starts == 1 else f"{starts} times"
        text = f"the worker process died {times} while it ran this task, so it is not started again"
        return give_up(package, WorkerDied(text), attempt=starts)
    return None


def _age(outcome: Outcome) -> float:
    return float((timezone.now() - outcome.stopped).total_seconds())
