"""What came of settling a batch of outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tenant_q.exceptions import BrokerError, DatabaseAway, ResultRefused
from tenant_q.lifecycle import push, save_results
from tenant_q.lifecycle.hooks import HookCall
from tenant_q.lifecycle.outcome_rows import Key
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import Package


@dataclass
class Settlement:
    """What came of settling a batch.

    `unsaved` are the errors of outcomes that could not be saved, by the keys of their packages; they are not settled.
    `failed` are the outcomes that became failures because a server refuses their results, by key. `links` are the
    next packages of chains, not enqueued yet. `complete` are iters whose parts are no longer needed. `to_call` are
    the hooks and receivers that are not called yet. `sources` maps the id of a link or a collected iter to the
    id of the task that it follows.
    """

    unsaved: dict[Key, Exception] = field(default_factory=dict)
    failed: dict[Key, Outcome] = field(default_factory=dict)
    links: list[Package] = field(default_factory=list)
    complete: list[Package] = field(default_factory=list)
    to_call: list[HookCall] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def unsaved_on_error(self, outcomes: Sequence[Outcome]) -> Iterator[None]:
        """Note an error in the block as one of these outcomes alone: the others of the settlement are settled.

        For example, the cache is away.
        """
        try:
            yield
        except (BrokerError, DatabaseAway, ResultRefused):
            raise
        except Exception as error:
            self.unsaved |= dict.fromkeys((outcome.package.key for outcome in outcomes), error)

    def called_receivers(self) -> bool:
        """Return whether settling called the project's receivers: of `post_save` or, for links, of `pre_enqueue`."""
        return save_results.has_own_receivers() or (bool(self.links) and push.has_own_receivers())
