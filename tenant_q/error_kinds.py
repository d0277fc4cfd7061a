"""Decide what kind of error a server's answer is: an outage, the refusal of one entry, or a defect of ours.

An *outage* concerns the server as a whole and may pass: wait, and lose nothing. A *refusal* is what one entry causes,
and would again: that entry fails or is dead-lettered, and nothing else waits for it. A *defect* is an error of a script
or a statement of ours: it is logged with its traceback, and is treated as a refusal where an entry can be named.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import psycopg
import redis
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)


class Kind(StrEnum):
    """What an error concerns, and so what is to be done about it."""

    OUTAGE = "outage"
    REFUSAL = "refusal"
    DEFECT = "defect"


_REDIS_OUTAGES: Final = (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
# Older servers put the code of an error in a script behind a text of their own.
_OUTAGE_CODES: Final = re.compile(
    r"\b(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|OOM|NOPERM|NOAUTH|WRONGPASS|MISCONF|NOREPLICAS|BUSY"
    r"|UNKILLABLE|DENIED)\b|max number of clients|[Uu]nknown (Redis )?command|background save|min-replicas"
)
_REFUSALS: Final = re.compile(
    r"WRONGTYPE|Protocol error|invalid (multi)?bulk length|maximum allowed size|proto-max-bulk-len"
)
# Classes of SQLSTATE: data exception, integrity constraint violation, program limit exceeded.
_POSTGRES_REFUSALS: Final = ("22", "23", "54")
# What a trigger of the project raises.
_RAISED: Final = ("P0",)


def kind_of_redis(error: Exception) -> Kind:
    """Return the kind of an error that the client of Redis raised."""
    if isinstance(error, UnicodeError | redis.DataError):
        return Kind.REFUSAL
    if not isinstance(error, ResponseError) or isinstance(error, _REDIS_OUTAGES):
        return Kind.OUTAGE
    text = str(error)
    if _OUTAGE_CODES.search(text):
        return Kind.OUTAGE
    return Kind.REFUSAL if _REFUSALS.search(text) else Kind.DEFECT


def is_closed_by_server(error: Exception) -> bool:
    """Return whether the server closed the connection: in an outage, or since a command is larger than it takes."""
    return type(error) is redis.ConnectionError


def kind_of_postgres(error: BaseException) -> Kind:
    """Return the kind of an error that saving a row raised, where the server could be reached.

    A refusal is of a value: too large, say, or no text in its encoding. All else is an outage, of the tenant: its table
    is locked, missing, or of another shape. What comes of no statement, or of a trigger, is a defect.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, psycopg.Error):
            code = found.sqlstate or ""
            is_refusal = code.startswith(_POSTGRES_REFUSALS) or "invalid memory alloc" in str(found)
            return Kind.REFUSAL if is_refusal else Kind.DEFECT if code.startswith(_RAISED) else Kind.OUTAGE
        found = found.__cause__
    return Kind.DEFECT


def kind_of_cache(error: BaseException) -> Kind:
    """Return the kind of an error that a cache of Django raised, on whatever server it is.

    What is none of Redis, of the network or of PostgreSQL is a defect: of the value, or of the cache's own code.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, redis.RedisError):
            return kind_of_redis(found)
        if isinstance(found, psycopg.Error):
            return kind_of_postgres(found)
        if isinstance(found, OSError):
            return Kind.OUTAGE
        found = found.__cause__ or found.__context__
    return Kind.DEFECT
