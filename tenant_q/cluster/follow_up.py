"""Start what follows a finished task: its hook, and the next link of its chain."""

from __future__ import annotations

from collections.abc import Mapping

from tenant_q import tenancy
from tenant_q.cluster.shared_memory import Slot
from tenant_q.exceptions import BrokerError, DatabaseAway, TenantUnavailable
from tenant_q.lifecycle import hooks, push, save_results
from tenant_q.lifecycle.time_limits import timeout_of
from tenant_q.package.outcome import Outcome, give_up
from tenant_q.package.package import Package
from tenant_q.scrubbing import serving, sessions, shared_caches
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.outbox")


def call_hook(outcome: Outcome, slot: Slot) -> None:
    """Follow up a finished task: call its hook and receivers under the same conditions as a task.

    They run in the tenant's schema, within the task's timeout, and nothing that they leave survives them.

    Args:
        outcome: The outcome of the task.
        slot: The memory in which the sentinel sees what runs.
    """
    package = outcome.package
    try:
        if shared_caches.project_clears_caches():
            with tenancy.in_verified_schema(package.schema, tenant=package.tenant or None):
                serving.announce(package.schema)
        with tenancy.in_verified_schema(package.schema, tenant=package.tenant or None):
            sessions.watch()
            shared_caches.clear_known_caches()
            slot.occupy(package.log_labels, timeout_of(package))
            hooks.call(outcome)
            slot.leave()
    except TenantUnavailable as error:
        logger.error(
            "Did not call the hook of %s: %s", package.name, error, event="hook.skipped", extra=package.log_labels
        )
    finally:
        sessions.clean_up(package.log_labels)
        tenancy.leave()


def push_links(links: list[Package], sources: Mapping[str, str]) -> None:
    """Follow up finished tasks of chains: enqueue the next links.

    If that fails, they are enqueued one by one, and each that fails gets a failed row.

    Args:
        links: The packages. Those that are done with are removed, so that a later call continues.
        sources: The ids of links, each with the id of the task that it follows.

    Raises:
        BrokerError: The broker does not answer.
        DatabaseAway: The database does not answer.
    """
    try:
        push.push(links, once=True, follows=sources)
    except (BrokerError, DatabaseAway):
        raise
    except Exception as error:
        logger.warning(
            "Could not enqueue %s links at once; enqueueing them one by one: %s",
            len(links),
            error,
            event="chain.links_one_by_one",
        )
        while links:
            _push_or_fail(links[0], sources)
            del links[0]
    links.clear()


def _push_or_fail(link: Package, sources: Mapping[str, str]) -> None:
    try:
        push.push([link], once=True, follows=sources)
    except (BrokerError, DatabaseAway):
        raise
    except Exception as error:
        logger.exception("Could not enqueue the link %s", link.name, event="chain.link_failed", extra=link.log_labels)
        for why in save_results.save([give_up(link, error)]).values():
            logger.error(
                "Could not save the failure of %s: %s",
                link.name,
                why,
                event="result.save_failed",
                extra=link.log_labels,
            )
