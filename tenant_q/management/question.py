"""Ask the operator before a command does what cannot be undone."""

from __future__ import annotations

import sys

from django.core.management.base import CommandError, OutputWrapper

from tenant_q.support.visible import visible


def require_consent(out: OutputWrapper, question: str, *, way_out: str) -> None:
    """Ask the operator at the terminal whether to go on.

    Args:
        out: Where the question is written.
        question: The question, which may contain names of tenants.
        way_out: What to do where nobody can answer, such as "add --yes to delete them".

    Raises:
        CommandError: The answer is not yes, or standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Nobody can answer here; {way_out}.")
    out.write(visible(f"{question} [y/N] "), ending="")
    out.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was done.")
