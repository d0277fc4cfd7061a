"""Add the causes of failures to their entries in the index of failures, which triggers write together with the rows."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import sql

from tenant_q.lifecycle.failure_text import read_failure
from tenant_q.lifecycle.task_statements import execute
from tenant_q.models import Failure
from tenant_q.models.failures import LONGEST_CAUSE, LONGEST_SCHEDULE
from tenant_q.package.outcome import Outcome
from tenant_q.sql import statement
from tenant_q.tenancy import as_owner_in_public, is_as_tenant, physical_schema, public_schema

# The schema, as PostgreSQL names it, and the id of a failed task.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """What a failed row does not show to a trigger.

    Attributes:
        schema_name: The schema as PostgreSQL names it.
        task_id: The id of the task.
        stopped: When it ended, in ISO format.
        cause: The name of the class of the cause; empty if none is known.
        schedule: The name of the schedule, or the id of one without a name; empty if no schedule fired the task.
    """

    schema_name: str
    task_id: str
    stopped: str
    cause: str
    schedule: str


def statement_for(outcomes: Iterable[Outcome]) -> tuple[sql.SQL, str] | None:
    """Return the statement that adds the causes of outcomes to the index, with its parameter.

    Args:
        outcomes: Outcomes whose rows were written before, in the same transaction.

    Returns:
        None if there is no failure, and where the session may not write to the index: a task in a worker runs another
        one in its own process. Then the entry stays pending, and the scheduler adds the cause.
    """
    failed = [outcome for outcome in outcomes if not outcome.success]
    if not failed or is_as_tenant():
        return None
    return _statement("failure_causes"), _as_json([_known(outcome) for outcome in failed])


def add(outcomes: Iterable[Outcome]) -> None:
    """Add the causes of outcomes to the index in a statement of its own. Raises `DatabaseAway`."""
    failed = [outcome for outcome in outcomes if not outcome.success]
    if not failed:  # to act as the owner costs round trips
        return
    with as_owner_in_public():
        if made := statement_for(failed):
            execute([], sql.Composed([made[0]]), [made[1]])


def add_known(known: Sequence[Known]) -> None:
    """Add what was read from failed rows to their entries. Raises `DatabaseAway`."""
    execute([], sql.Composed([_statement("failure_causes")]), [_as_json(known)])


def note_again(tasks: Mapping[Key, str]) -> None:
    """Note in the index that failed tasks were run again, so that they are no longer open.

    Args:
        tasks: The failed tasks, each by its schema as PostgreSQL names it and its id, with the ids of the new ones.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    names = ("schema_name", "task_id", "again")
    rows = [dict(zip(names, (*key, again), strict=True)) for key, again in tasks.items()]
    with as_owner_in_public():
        execute([], sql.Composed([_statement("failures_again")]), [json.dumps(rows)])


def storable(text: str, longest: int) -> str:
    """Return a text that an entry can hold: not too long, without zero bytes and halves of characters."""
    return text[:longest].replace("\0", "?").encode("utf-8", "replace").decode()


def _known(outcome: Outcome) -> Known:
    package = outcome.package
    cause = outcome.death or read_failure(str(outcome.result)).cause
    return Known(
        schema_name=physical_schema(package.schema),
        task_id=package.id,
        stopped=outcome.stopped.isoformat(),
        cause=storable(cause, LONGEST_CAUSE),
        schedule=storable(str(package.option("schedule") or ""), LONGEST_SCHEDULE),
    )


def _as_json(known: Iterable[Known]) -> str:
    return json.dumps([asdict(one) for one in known])


@functools.cache
def _statement(name: str) -> sql.SQL:
    entries: Any = sql.Identifier(public_schema(), Failure._meta.db_table)
    return sql.SQL(statement(name).format(entries=entries.as_string().replace("%", "%%")))
