"""Decide the kind of a server's error: an outage, the refusal of one entry, or a defect of tenant_q.

An *outage* concerns the server as a whole and may pass: the caller waits and loses nothing. A *refusal* is caused by
one entry and would happen again: that entry fails or is dead-lettered, and no other waits for it. A *defect* is an
error of a script or statement of tenant_q: it is logged with its traceback, and treated as a refusal if an entry can
be identified.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import psycopg
import redis
from redis import exceptions as errors


class Kind(StrEnum):
    """The kind of a server's error, which decides how it is handled."""

    OUTAGE = "outage"
    REFUSAL = "refusal"
    DEFECT = "defect"


_REDIS_OUTAGES: Final = (
    errors.AskError,
    errors.BusyLoadingError,
    errors.ClusterDownError,
    errors.ClusterError,
    errors.MasterDownError,
    errors.MovedError,
    errors.NoPermissionError,
    errors.OutOfMemoryError,
    errors.ReadOnlyError,
    errors.TryAgainError,
)
# Older servers put text of their own before the code of an error in a script.
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
    """Return the kind of an error that the Redis client raised."""
    if isinstance(error, UnicodeError | redis.DataError):
        return Kind.REFUSAL
    if not isinstance(error, errors.ResponseError) or isinstance(error, _REDIS_OUTAGES):
        return Kind.OUTAGE
    text = str(error)
    if _OUTAGE_CODES.search(text):
        return Kind.OUTAGE
    return Kind.REFUSAL if _REFUSALS.search(text) else Kind.DEFECT


def is_refused_login(error: Exception) -> bool:
    """Return whether Redis runs and refuses the user name or the password, by the error of its client."""
    return isinstance(error, redis.AuthenticationError) or bool(re.search(r"\b(NOAUTH|WRONGPASS)\b", str(error)))


def is_closed_by_server(error: Exception) -> bool:
    """Return whether Redis closed the connection, by its error: in an outage, or because a command is too large."""
    return type(error) is redis.ConnectionError


def kind_of_postgres(error: BaseException) -> Kind:
    """Return the kind of an error raised while a row was saved on a server that can be reached.

    A refusal concerns a value: it is too large, for example, or is not text in the database's encoding. Errors that do
    not come from PostgreSQL, or that a trigger raises, are defects. All others are outages of the tenant: its table is
    locked or missing, or has other columns.
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
    """Return the kind of an error that a Django cache raised, with any backend.

    An error that does not come from Redis, PostgreSQL or the network is a defect of the value or of the cache's code.
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
