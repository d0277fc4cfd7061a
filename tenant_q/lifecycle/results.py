"""Read and delete the results of tasks in the current tenant's table; those in the cache are `cached_results`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from django.db import DatabaseError, OperationalError
from django_q.models import Task

from tenant_q.exceptions import TenantBroken, TenantBusy
from tenant_q.lifecycle import task_rows
from tenant_q.tenancy import current_schema, in_patient_transaction, require_plain_tables

T = TypeVar("T")


def successes(ids: Iterable[str]) -> dict[str, Task]:
    """Return the successful results in the current tenant's table, as tasks by id.

    Args:
        ids: The ids to look for.

    Raises:
        TenantBusy: The tenant's table stays locked.
        TenantBroken: The table cannot be read.
    """
    try:
        with in_patient_transaction():
            require_plain_tables([current_schema()], Task._meta.db_table)
            rows = task_rows.rows().filter(id__in=list(ids), success=True)
            return {task.id: task for task in task_rows.load_success(rows)}
    except DatabaseError as error:
        why = f"The tasks of {current_schema()!r} cannot be read: {' '.join(str(error).split())}; it is tried again."
        raise (TenantBusy if isinstance(error, OperationalError) else TenantBroken)(why) from error


def find(task_id: str) -> Task | None:
    """Return a result in the table as a task: by its id, or else the latest by its name. Raises `UnsignedResult`."""
    by_id = task_rows.load(task_rows.rows().filter(id=task_id)) if len(str(task_id)) == 32 else []
    found = by_id or task_rows.load(task_rows.rows().filter(name=task_id).order_by("-stopped"), limit=1)
    return found[0] if found else None


def group(group_id: str, *, failures: bool) -> list[Task]:
    """Return a group's results in the table, as tasks in the order of their starts. Raises `UnsignedResult`."""
    rows = task_rows.rows().filter(group=group_id).order_by("started")
    return task_rows.load(rows if failures else rows.filter(success=True))


def count(group_id: str, *, failures: bool) -> int:
    """Return the number of a group's results in the table, or with `failures` of failed ones."""
    rows = task_rows.rows().filter(group=group_id)
    return int((rows.filter(success=False) if failures else rows).count())


def delete(group_id: str, *, tasks: bool) -> int | tuple[int, dict[str, int]]:
    """Delete a group's results from the table, or only their label. Return what the ORM returns."""
    rows = task_rows.rows().filter(group=group_id)
    if not tasks:
        return int(rows.update(group=None))
    deleted: tuple[int, dict[str, int]] = task_rows.without_values(rows).delete()
    return deleted


def poll(look: Callable[[], T | None], *, wait: int) -> T | None:
    """Poll for a result: call a function until it returns something other than None.

    Args:
        look: The function.
        wait: For how long, in milliseconds; negative: without limit.

    Returns:
        What the function returned last.
    """
    pauses = _pauses(wait)
    while (found := look()) is None and (pause := next(pauses, None)) is not None:
        time.sleep(pause)
    return found


async def apoll(look: Callable[[], Awaitable[T | None]], *, wait: int) -> T | None:
    """Poll for a result in a coroutine, as `poll`; other coroutines run between two looks.

    Args:
        look: The coroutine function that looks.
        wait: For how long, in milliseconds; negative: without limit.

    Returns:
        What the coroutine function returned last.
    """
    pauses = _pauses(wait)
    while (found := await look()) is None and (pause := next(pauses, None)) is not None:
        await asyncio.sleep(pause)
    return found


def _pauses(wait: int) -> Iterator[float]:
    """Yield the pauses between two looks for a result, in seconds, until the time to wait is over."""
    deadline = time.monotonic() + wait / 1000
    pause = 0.005
    while wait < 0 or time.monotonic() < deadline:
        yield pause
        pause = min(pause * 1.5, 0.1)
