"""Start what follows a finished task: its hook, and the next link of its chain."""

from __future__ import annotations

from collections.abc import Mapping

from tenant_q.cluster.shared_memory import Slot
from tenant_q.exceptions import BrokerError, DatabaseAway, TenantUnavailable
from tenant_q.lifecycle import hooks, push, retries, save_results
from tenant_q.lifecycle.time_limits import timeout_of
from tenant_q.package.outcome import Outcome, give_up
from tenant_q.package.package import Package
from tenant_q.scrubbing import serving, sessions, shared_caches
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.outbox")


def call_hook(call: hooks.HookCall, slot: Slot) -> TenantUnavailable | None:
    """Follow up a finished task: call its hook and receivers under the same conditions as a task.

    They run in the tenant's schema, within the task's timeout, and nothing that they leave survives them.

    Args:
        call: What is to be called.
        slot: The memory in which the sentinel sees what runs.

    Returns:
        Why it is to be called again later, if the tenant cannot be served at the moment.

    Raises:
        DatabaseAway: The database does not answer, so it is to be called again.
    """
    package = call.outcome.package
    try:
        if shared_caches.project_clears_caches():
            with serving.in_schema(package.schema, package.tenant or None):
                serving.announce(package.schema)
        with serving.in_schema(package.schema, package.tenant or None):
            sessions.watch()
            shared_caches.clear_known_caches()
            slot.occupy(package.log_labels, timeout_of(package))
            try:
                hooks.call(call)
            finally:
                slot.leave()
                sessions.clean_up(package.log_labels)
    except TenantUnavailable as error:
        if retries.ends_by_itself(error):
            return error
        logger.error(
            "Did not call the hook of %s: %s", package.name, error, event="hook.skipped", extra=package.log_labels
        )
    return None


def push_links(links: list[Package], sources: Mapping[str, str], failed: list[Outcome]) -> None:
    """Follow up finished tasks of chains: enqueue the next links.

    If that fails, they are enqueued one by one, and each that fails gets a failed row.

    Args:
        links: The packages. Those that are done with are removed, so that a later call continues.
        sources: The ids of links, each with the id of the task that it follows.
        failed: Gets the outcomes of links that could not be enqueued, each of which ends its chain.

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
            "Could not enqueue %s at once; enqueueing them one by one: %s",
            counted(len(links), "link"),
            error,
            event="chain.links_one_by_one",
        )
        while links:
            failed += _push_or_fail(links[0], sources)
            del links[0]
    links.clear()


def _push_or_fail(link: Package, sources: Mapping[str, str]) -> list[Outcome]:
    """Enqueue one of the next links. Return the saved failure of one that cannot be enqueued."""
    try:
        push.push([link], once=True, follows=sources)
        return []
    except (BrokerError, DatabaseAway):
        raise
    except Exception as error:
        logger.exception("Could not enqueue the link %s", link.name, event="chain.link_failed", extra=link.log_labels)
        failure = give_up(link, error)
        errors = save_results.save([failure])
        for why in errors.values():
            logger.error(
                "Could not save the failure of %s: %s",
                link.name,
                why,
                event="result.save_failed",
                extra=link.log_labels,
            )
        return [] if errors else [failure]
