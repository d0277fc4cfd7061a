"""What a benchmark's schedules start, and the notes that are left of it in Redis: schema, name, planned for, when."""

from __future__ import annotations

import functools
import json
import os
import time
from datetime import datetime
from typing import Any

import redis

from tenant_q.tenancy import current_schema

STARTED, ENQUEUED = "benchmark-started", "benchmark-enqueued"


@functools.cache
def client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"])


def note(name: str, planned: str) -> None:
    """The task of the schedule `name`."""
    leave(STARTED, (current_schema(), name, planned, time.time()))


def leave(where: str, *notes: Any) -> None:
    if notes:
        client().rpush(where, *map(json.dumps, notes))


def read(where: str) -> list[tuple[str, str, datetime, float]]:
    found: Any = client().lrange(where, 0, -1)
    notes = map(json.loads, found)
    return [(schema, name, datetime.fromisoformat(planned), at) for schema, name, planned, at in notes]


def count(where: str) -> int:
    found: Any = client().llen(where)
    return int(found)


def forget() -> None:
    client().delete(STARTED, ENQUEUED)
