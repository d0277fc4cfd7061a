"""The tasks that a benchmark's schedules start: each leaves a note of when it did."""

from __future__ import annotations

import functools
import json
import os
import time

import redis
from django.db import connection

NOTES = "benchmark-notes"


@functools.cache
def client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"])


def note(name: str, planned: str) -> None:
    """Say that the schedule `name` of the current tenant has started, for the moment `planned`."""
    client().rpush(NOTES, json.dumps([connection.schema_name, name, planned, time.time()]))
