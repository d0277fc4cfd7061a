"""`mstenant purge`: empty a tenant's queue."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit
from tenant_q.brokers.protocol import Chosen, Waiting
from tenant_q.management.progress import progress_line
from tenant_q.management.question import require_consent
from tenant_q.management.tenant_action import TenantAction
from tenant_q.operations import purging
from tenant_q.operations.purging import Purged


class Action(TenantAction):
    help = (
        "Empties a tenant's queue: forgets its queued and delayed tasks, which leave no rows. Tasks that run continue. "
        "The tenant may be gone."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--queued", action="store_true", help="Only queued tasks, unless --delayed is given too.")
        parser.add_argument("--delayed", action="store_true", help="Only delayed tasks, unless --queued is given too.")
        parser.add_argument("--func", metavar="PATH", default="", help="Only tasks of this function.")
        parser.add_argument("--yes", action="store_true", help="Do it without a question.")

    def perform(self, schema: str, options: dict[str, Any]) -> None:
        chosen = Chosen(
            queued=options["queued"] or not options["delayed"],
            delayed=options["delayed"] or not options["queued"],
            func=options["func"],
        )
        waiting = purging.count_waiting(schema)
        if not options["yes"]:
            question = f"Purge {_what(chosen, waiting)} of {schema}?"
            require_consent(self.command.stderr, question, way_out="add --yes to purge them")
        most = (waiting.queued if chosen.queued else 0) + (waiting.delayed if chosen.delayed else 0)
        with progress_line(self.command.stderr, most, as_json=options["json"]) as line:
            line.at(schema)
            shown = 0

            def show(count: int) -> None:
                nonlocal shown
                line.done(count - shown)
                shown = count

            done = purging.purge(schema, chosen, actor=audit.operator(), progress=show)
        self._write(done, as_json=options["json"])

    def _write(self, done: Purged, *, as_json: bool) -> None:
        if as_json:
            self.command.write_json(
                {"schema": done.schema, "purged": done.count, "ended": done.ended, "left": done.left}
            )
        else:
            self.command.write_line(_sentence(done))
        if done.left:
            raise CommandError(
                f"{_counted(done.left, 'task')} of {done.schema} stayed dead letters, because the end of their iter, "
                "chain or step could not be saved; correct what the log says, and run the same command again."
            )


def _what(chosen: Chosen, waiting: Waiting) -> str:
    """Return in words of `mstenant purge` what is purged. How many tasks of one function wait is not known."""
    parts = [f"{waiting.queued} queued"] if chosen.queued else []
    parts += [f"{waiting.delayed} delayed"] if chosen.delayed else []
    what = f"{' and '.join(parts)} tasks"
    return f"those of {chosen.func} among {what}" if chosen.func else what


def _sentence(done: Purged) -> str:
    ended = f" {_counted(done.ended, 'iter or chain', 'iters and chains')} ended as failed." if done.ended else ""
    return f"Purged {_counted(done.count, 'task')} of {done.schema}.{ended}"


def _counted(count: int, one: str, more: str = "") -> str:
    return f"1 {one}" if count == 1 else f"{count} {more or one + 's'}"
