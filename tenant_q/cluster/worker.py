"""The worker: fetch a batch of leases, run it, hand the outcomes to the outbox, which settles them."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import cast

from django.conf import settings
from django.core.cache import caches
from django_q.signals import post_spawn

from tenant_q import tenancy
from tenant_q.brokers import site_brokers, uses_redis
from tenant_q.brokers.protocol import BATCH_SECONDS, LONGEST_WAIT, Batch, Broker, Lease
from tenant_q.cluster import slices
from tenant_q.cluster.completer import Outbox
from tenant_q.cluster.fence import Fence
from tenant_q.cluster.interrupt import Interrupt
from tenant_q.cluster.role import Role
from tenant_q.cluster.shared_memory import Slot
from tenant_q.conf import conf
from tenant_q.exceptions import (
    BadPackage,
    BrokerDefect,
    BrokerError,
    DatabaseAway,
    EntryRefused,
    LeaseLost,
    ReplicaAway,
    SchemaNotMigrated,
    TakenBack,
    TaskCancelled,
    TenantBroken,
    TenantBusy,
    TenantNotReady,
    TenantReplaced,
    TenantUnavailable,
    WorkerDied,
)
from tenant_q.lifecycle import progress, prune_results, results, retries
from tenant_q.lifecycle.execute import execute
from tenant_q.lifecycle.failures import give_up
from tenant_q.lifecycle.time_limits import timeout_of
from tenant_q.operations import departures
from tenant_q.package.envelope import Found, open_package, seal
from tenant_q.package.package import Outcome, Package, carried_outcome, death_of, labels
from tenant_q.scrubbing import process_state, sessions
from tenant_q.support import clock, forks, tracing
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.worker")

# A batch whose tasks have run for so long is not gone on with: what waits in it is given back.
LONGEST_BATCH = 2 * BATCH_SECONDS
# How often a worker looks whether tenants it saved for are to be pruned.
PRUNE_SECONDS = 5.0
# How long a transactional task whose lease is in doubt waits for the broker before its commit, and between two queries.
LONGEST_DOUBT = 120.0
DOUBT_PAUSE = 0.2
# A tenant that cannot be served now and surely will be: its packages wait for as long as it takes.
_TEMPORARY = (SchemaNotMigrated, TenantNotReady, TenantBusy, ReplicaAway)


class Worker(Role):
    """Runs packages of every tenant. `key` names the worker towards the broker."""

    name = "worker"

    def __init__(self, key: str, broker: Broker, slot: Slot, *, once: bool = False) -> None:
        super().__init__(slot, once=once)
        self.key = key
        self.broker = broker
        self.fence = Fence(key, broker, slot)
        self.outbox = Outbox(key, broker, slot, self.fence)
        self.interrupt = Interrupt(slot)
        progress.report_to(slot.tell_progress)
        self.started = 0
        # For how long the next fetch waits for work: not at all while there is some.
        self._wait = 0.0
        # For how long the tasks of the batch have run.
        self._batch_seconds = 0.0
        # Other brokers have one queue for all: what is given back there would be behind all that waits.
        self.longest_batch = LONGEST_BATCH if uses_redis() else math.inf
        self._to_prune: dict[str, float] = {}
        self._next_prune = 0.0
        for alias in settings.CACHES:
            caches[alias]  # made here, it serves every task; made in a task's context, it would end with it
        with forks.no_return():
            post_spawn.send(sender="django_q", proc_name=f"{self.name} {os.getpid()}")

    def tick(self) -> float:
        self.outbox.finish()
        self._leave_if_spoiled()
        if self.stopping:
            return 0.0
        wait, self._wait = self._wait, 0.0
        sent = clock.now()
        batch = self.broker.fetch(self.key, wait=wait)
        self.fence.fetched(sent)
        if self.stopping:  # meanwhile
            self.broker.give_back(self.key, batch.leases)
        elif batch.leases:
            self._run_batch(batch)
            self.outbox.finish()
        elif not self.once:
            self._wait = LONGEST_WAIT if batch.next_delayed is None else batch.next_delayed
        self._prune_when_due()
        return 0.0

    def has_unfinished(self) -> bool:
        return not self.outbox.is_empty()

    def abandon(self) -> None:
        super().abandon()
        progress.report_to(None)
        self.broker = self.outbox.broker = self.fence.broker = cast(Broker, forks.Abandoned())

    def close(self) -> None:
        self.outbox.close()
        tracing.flush()
        self.broker.close()

    # Running

    def _run_batch(self, batch: Batch) -> None:
        self.interrupt.listen()
        self.stopping.listen()
        process_state.note()
        batch_slices = slices.slices_of(self._open_all(batch.leases))
        self.slot.plan([lease for one in batch_slices for lease, _ in one.waiting])
        tenants = [one.schema for one in batch_slices if one.schema != tenancy.public_schema()]
        tenancy.look_up_together(tenants)
        tenancy.see_tables_together(tenants)
        self._batch_seconds = 0.0
        for one in batch_slices:
            if not self._makes_way():
                self._run_slice(slices.located(one))
        self._give_back([lease for one in batch_slices for lease, _ in one.waiting])
        process_state.restore_after_batch()
        self._leave_if_spoiled()

    def _leave_if_spoiled(self) -> None:
        """Make way for a fresh process if a task left what cannot be put back."""
        if process_state.is_spoiled() and not self.stopping:
            self.stopping.set()

    def _run_slice(self, one: slices.Slice) -> None:
        """Run one tenant's packages of a batch, in its schema. They are put off when the tenant cannot be served."""
        schema, waiting = one.schema, one.waiting
        try:
            with slices.in_verified_schema(schema, one.tenant):
                self._refuse_older(schema, waiting)
                saved = self._saved_before(waiting)
                sessions.watch()
                is_last = not waiting or self._makes_way()
                try:
                    while not is_last:
                        self._flush_when_due(schema, one.tenant)
                        lease, package = waiting[0]
                        if not self._run(lease, package, saved):
                            break
                        waiting.pop(0)
                        is_last = not waiting or self._makes_way()
                        slices.clean_up(schema, package, is_last=is_last)
                finally:
                    if not is_last:  # what ran before was cleaned for its own tenant's next task only
                        sessions.clean_up()
        except TenantReplaced as error:
            self._refuse_all(waiting, error)
        except TenantUnavailable as error:
            self._put_off_all(waiting, error)
        except tenancy.DATABASE_ERRORS as error:  # whatever is wrong with it is this tenant's alone
            self._put_off_all(waiting, TenantBroken(f"{type(error).__name__}: {' '.join(str(error).split())}"))

    def _makes_way(self) -> bool:
        """Whether the rest of the batch is for others: this worker ends, or the batch turned out long."""
        return bool(self.stopping) or process_state.is_spoiled() or self._batch_seconds > self.longest_batch

    def _give_back(self, leases: Sequence[Lease]) -> None:
        self.broker.give_back(self.key, leases)
        self.slot.skip(len(leases))  # last: while the broker is away the sentinel still knows what waits here

    def _open_all(self, leases: Sequence[Lease]) -> list[tuple[Lease, Package]]:
        return [(lease, package) for lease in leases if (package := self._open(lease))]

    def _refuse_older(self, schema: str, waiting: list[tuple[Lease, Package]]) -> None:
        """Refuse packages of an earlier version, which name no tenant, if they are older than the schema's tenant."""
        key = tenancy.current_key(schema)
        for lease, package in list(waiting):
            if package.tenant is None and key:
                if tenancy.predates(package.option("started"), schema, key):
                    self._refuse(lease, package, TenantReplaced(f"it is older than the tenant {schema!r}"))
                    waiting.remove((lease, package))
                else:
                    package.task["tenant"] = key

    def _refuse_all(self, waiting: list[tuple[Lease, Package]], error: Exception) -> None:
        """Give up packages of a tenant that is gone, and forget what else is left of it."""
        gone = {(package.schema, package.tenant) for _, package in waiting}
        while waiting:
            self._refuse(*waiting.pop(0), error)
        for schema, tenant in gone:
            departures.forget_if_gone(schema, tenant)

    def _refuse(self, lease: Lease, package: Package, error: Exception) -> None:
        self.slot.skip()
        self._bury(lease, package, f"{type(error).__name__}: {error}")

    def _open(self, lease: Lease) -> Package | None:
        """Read a package. A refused one goes to the dead, or to a failed row if its signature is right."""
        try:
            package = open_package(lease.payload, Found(id=lease.id or None))
            slices.check_queue(lease, package)
            if (lease.starts or 0) < 2 * package.max_deliveries:
                return package
            cause = f"{WorkerDied.__name__}: what follows the task, its row or its hook, killed the worker as well"
            cause += f"; the last one {lease.death}" if lease.death else ""
            self._bury(lease, package, cause)
        except BadPackage as error:
            extra = {"schema": lease.schema, "task_id": lease.id}
            logger.error("Package %s of %s is refused: %s", lease.id, lease.schema, error, extra=extra)
            if error.package is not None:
                self.outbox.add(lease, give_up(error.package, error))
            else:
                self.broker.dead_letter(self.key, lease, f"BadPackage: {error}")
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

    def _run(self, lease: Lease, package: Package, saved: dict[str, Outcome]) -> bool:
        """Run one package and put its outcome into the outbox. Returns False when it has been recalled before."""
        outcome = carried_outcome(package) or saved.get(lease.id) or _given_up(lease, package)
        if outcome is None:
            try:
                slices.enter_as_asked(package)
                timeout = timeout_of(package)
            except (TenantUnavailable, DatabaseAway):
                raise
            except Exception as error:  # plain `async_task` checks nothing
                outcome = give_up(package, error)
        if outcome is not None:
            self.slot.skip()
            self.outbox.add(lease, outcome)
            return True
        return self._execute(lease, package, timeout)

    def _execute(self, lease: Lease, package: Package, timeout: float | None) -> bool:
        self.outbox.watch()
        if not self.fence.holds(lease):
            self.slot.skip()
            self._drop(lease, package)
            return True
        own_labels = labels(package)
        if not self.slot.start(own_labels, timeout):
            return False
        if reason := self.slot.cancellation(package.id):
            self.slot.leave()
            self.outbox.add(lease, _failure_for(lease, package, reason))
            return True
        logger.debug("Running %s", package.name, extra=own_labels)
        self.started += 1
        try:
            try:
                outcome = execute(
                    package,
                    attempt=_attempt(lease, package),
                    during=self.interrupt.armed(package.id),
                    before_commit=lambda: self._confirm(lease, package),
                )
            finally:
                self.slot.finish()  # it is not over its timeout while what follows waits for a server that hangs
                self.stopping.listen()
        except TakenBack as error:
            self._put_off(lease, package, error.why)
        except LeaseLost:
            self._drop(lease, package)
        else:
            self._batch_seconds += outcome.seconds
            self.outbox.add(lease, outcome)
        self._recycle_when_due()
        return True

    def _confirm(self, lease: Lease, package: Package) -> None:
        """Make sure of the lease before a transactional task is committed. Raises `LeaseLost` or `TakenBack`.

        It waits for the broker, so that a short outage does not make the task run again.
        """
        deadline = time.monotonic() + LONGEST_DOUBT
        while True:
            try:
                if self.fence.holds(lease):
                    return
                raise LeaseLost(f"{package.func_name} is rolled back: its worker no longer holds the lease")
            except BrokerError as error:
                if time.monotonic() > deadline:
                    raise TakenBack(f"{package.func_name} is rolled back: {error}", error) from error
            self.slot.occupy(labels(package), None)  # the timeout is the task's, and no longer applies
            time.sleep(DOUBT_PAUSE)

    def _drop(self, lease: Lease, package: Package) -> None:
        text = "The lease of %s ran out; this worker drops the package, which is delivered again"
        logger.warning(text, lease.id, extra=labels(package))

    def _flush_when_due(self, schema: str, tenant: str | None) -> None:
        if self.outbox.is_waiting():
            sessions.clean_up()
            self.outbox.finish()
            slices.begin(schema, tenant)
            sessions.watch()

    def _put_off_all(self, waiting: list[tuple[Lease, Package]], error: Exception) -> None:
        self.slot.skip(len(waiting))
        while waiting:
            self._put_off(*waiting.pop(0), error)

    def _put_off(self, lease: Lease, package: Package, error: Exception) -> None:
        """A tenant that is not there yet may be in a transaction still open; one not migrated will be."""
        # What will surely end is counted apart: it uses up none of the tries for what may not.
        counter = "waited" if isinstance(error, _TEMPORARY) else "put_off"
        tries = int(package.option(counter, 0)) + 1
        if tries > retries.MOST_PUT_OFFS and isinstance(error, DatabaseAway):  # as often as it is run: its own doing
            self.outbox.add(lease, give_up(package, error, attempt=package.failures + tries))
            return
        if tries > retries.MOST_PUT_OFFS and counter == "put_off":
            self._bury(lease, package, f"{type(error).__name__}: {error}")
            return
        if tries == 1:
            logger.warning("Package %s waits for its tenant: %s", lease.id, error, extra=labels(package))
        # As it came: one that was taken back has been run, and may have changed its arguments.
        again = seal(Package(open_package(lease.payload).task | {counter: tries}))
        unready = isinstance(error, TenantUnavailable)
        try:
            self.broker.put_off(self.key, lease, delay=retries.put_off_delay(tries), payload=again, unready=unready)
        except (EntryRefused, BrokerDefect) as refusal:
            self._bury(lease, package, f"{type(error).__name__}: {error} It cannot be put off: {refusal}")

    def _bury(self, lease: Lease, package: Package, cause: str) -> None:
        logger.error("Package %s is given up: %s", lease.id, cause, extra=labels(package))
        self.broker.dead_letter(self.key, lease, cause)

    # Between batches

    def _prune_when_due(self) -> None:
        """Prune the tenants whose saved rows are old enough to be pruned by now."""
        if time.monotonic() < self._next_prune:
            return
        self._next_prune = time.monotonic() + PRUNE_SECONDS
        for schema in list(self.outbox.saved):
            self.outbox.saved.discard(schema)
            self._to_prune.setdefault(schema, time.monotonic())
        due = [
            s
            for s, since in self._to_prune.items()
            if time.monotonic() - since > prune_results.spared().total_seconds()
        ]
        for schema in due[:10]:
            try:
                has_more = prune_results.prune(schema, _may_come)
                del self._to_prune[schema]
                if has_more:
                    self._to_prune[schema] = -math.inf  # the next time
            except (BrokerError, DatabaseAway):
                raise
            except (*tenancy.DATABASE_ERRORS, BrokerDefect) as error:
                del self._to_prune[schema]
                logger.warning("Old results of %s are not pruned: %s", schema, error, extra={"schema": schema})

    def _recycle_when_due(self) -> None:
        """After `recycle` tasks or beyond `max_rss` kB, make way for a fresh process."""
        settings = conf()
        if self.started >= settings.recycle or (settings.max_rss and _peak_memory() >= settings.max_rss):
            logger.info("The worker %s is recycled after %s tasks", self.key, self.started)
            self.stopping.set()


def _peak_memory() -> int:
    """Return the most memory that this process has had, in kB."""
    # ru_maxrss is in kB on Linux, in bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def _may_come(ids: list[str]) -> set[str]:
    """Return the `ids` whose packages one of the site's clusters may still deliver."""
    return {id for broker in site_brokers() for id in broker.may_come(ids)}


def _given_up(lease: Lease, package: Package) -> Outcome | None:
    """The failure of a package that is not to be started again, or None."""
    starts = lease.starts or 0
    if lease.give_up_reason:
        return _failure_for(lease, package, lease.give_up_reason)
    if starts >= package.max_deliveries:
        times = "once" if starts == 1 else f"{starts} times"
        last = "it" if starts == 1 else "the last one"
        how = f"; {last} {lease.death}" if lease.death else ""
        text = f"the worker process died {times} while it ran this task, so it is not started again{how}"
        return give_up(package, WorkerDied(text), attempt=package.failures + starts)
    return None


def _failure_for(lease: Lease, package: Package, reason: str) -> Outcome:
    """Return the failure of a package that is given up for a reason.

    A cancelled task is not tried again; after a timeout it may be.
    """
    death = death_of(reason)
    return give_up(package, death, attempt=_attempt(lease, package), is_final=isinstance(death, TaskCancelled))


def _attempt(lease: Lease, package: Package) -> int:
    """Return the number of this start of a package, counted from 1."""
    return package.failures + (lease.starts or 0) + 1
