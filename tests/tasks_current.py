"""Tasks that say what they know of themselves."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import asdict
from typing import Any

from asgiref.sync import sync_to_async
from django_q.models import Task

from tenant_q.utils import QUtilities
from tests import tasks


def known() -> dict[str, Any] | None:
    task = QUtilities.current_task()
    return None if task is None else asdict(task)


def note_known(key: str, *, then_fail: bool = False) -> None:
    task = QUtilities.current_task()
    assert task is not None
    own = {"id": task.id, "attempt": task.attempt, "is_last": task.is_last_attempt, "once": task.idempotency_key}
    tasks.note(key, **own)
    if then_fail:
        raise ValueError("once more")


async def known_in_coroutines() -> list[Any]:
    return [known(), *await asyncio.gather(asyncio.to_thread(known), sync_to_async(known)())]


def known_in_a_thread() -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(known()))
    thread.start()
    thread.join()
    return found[0]


def known_around_a_sync_task() -> list[Any]:
    id = QUtilities.add_async_task(known, q_options={"sync": True, "hook": note_in_hook})
    return [QUtilities.get_result(id), known()]


def note_in_hook(task: Task) -> None:
    tasks.note("hook", known=known())
