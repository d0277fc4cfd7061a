"""A declared task in a module that whoever enqueues it by path does not import."""

from __future__ import annotations

from tenant_q import task
from tests import tasks


@task(max_attempts=2, retry_delay=0, transactional=True)
def fail_once(key: str) -> int:
    times = tasks.note(key)
    if times == 1:
        raise ValueError("the first start")
    return times
