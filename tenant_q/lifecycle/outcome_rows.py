"""Build the row of an outcome.

Values that a column or a pickle cannot hold are shortened or replaced by their text, so that one row does not hold up
its tenant's others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django_q.models import Task

from tenant_q.conf import conf
from tenant_q.exceptions import (
    TaskCancelled,
)
from tenant_q.lifecycle.row_signing import RowSigner, tenant_of
from tenant_q.package.options import LONGEST
from tenant_q.package.package import Outcome, Package, pickled

COLUMNS = (
    "id", "name", "func", "hook", "args", "kwargs", "result", "group",
    "cluster", "started", "stopped", "success", "attempt_count",
)  # fmt: skip


def wants_row(outcome: Outcome) -> bool:
    """Whether an outcome leaves a row: every failure does, and a success unless it is cached or not to be saved."""
    if outcome.is_saved:
        return False
    if not outcome.success or outcome.package.is_transactional:
        return True
    if outcome.package.is_iter_part or outcome.package.cached:
        return False
    return bool(outcome.package.option("save", conf().save_limit >= 0))


def as_task(outcome: Outcome) -> Task:
    """The outcome as Django-Q2's model instance, not saved: what hooks and `post_save` receivers get."""
    package = outcome.package
    return Task(
        id=package.id,
        name=package.name,
        func=package.stored_func,
        hook=package.option("hook"),
        args=package.args,
        kwargs=package.kwargs,
        result=outcome.result,
        group=package.group,
        cluster=package.option("cluster") or conf().cluster,
        started=outcome.started,
        stopped=outcome.stopped,
        success=outcome.success,
        attempt_count=outcome.attempt,
    )


def unique(outcomes: Iterable[Outcome]) -> Iterable[Outcome]:
    """Return one outcome for each id: its first success or cancel, else its last failure."""
    unique: dict[str, Outcome] = {}
    for outcome in outcomes:
        before = unique.get(outcome.package.id)
        if before is None or not (before.success or before.death == TaskCancelled.__name__):
            unique[outcome.package.id] = outcome
    return unique.values()


def row_of(outcome: Outcome) -> dict[str, Any]:
    """What is written of an outcome, by column."""
    package = outcome.package
    return {
        "id": package.id,
        "name": _storable("name", package.name),
        "group": _storable("group", package.group),
        "started": outcome.started.isoformat(),
        "stopped": outcome.stopped.isoformat(),
        "success": outcome.success,
        "attempt_count": outcome.attempt,
        **signed_values(package, package.args, package.kwargs, outcome.result),
    }


def signed_values(package: Package, args: Any, kwargs: Any, result: Any) -> dict[str, str | None]:
    """The pickled columns with their signatures, and the columns that these bind."""
    func, hook = _storable("func", package.stored_func), _storable("hook", package.stored_hook)
    cluster = _storable("cluster", package.option("cluster") or conf().cluster)
    signer = RowSigner(tenant_of(package), package.id, func, hook, cluster, package.origin)
    return {
        "func": func,
        "hook": hook,
        "cluster": cluster,
        "args": signer.sign("args", _pickled(args)),
        "kwargs": signer.sign("kwargs", _pickled(kwargs)),
        "result": None if result is None else signer.sign("result", _pickled(result)),
    }


def _storable(column: str, text: str | None) -> str | None:
    """Text as the column can hold it: not too long, no zero bytes, and no halves of characters.

    Plain `async_task` checks nothing, and one row that is refused holds up its tenant's others.
    """
    if text is None:
        return None
    return str(text)[: LONGEST[column]].replace("\0", "?").encode("utf-8", "replace").decode()


def _pickled(value: Any) -> bytes:
    """A column's pickle. What the task has made unpicklable by now is kept as it shows itself."""
    try:
        return pickled(value)
    except Exception:
        return pickled(repr(value))


def as_pickled(value: Any) -> Any:
    """The value, or how it shows itself when the task has made it unpicklable by now."""
    try:
        pickled(value)
    except Exception:
        return repr(value)
    return value
