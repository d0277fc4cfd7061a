"""The types of the options of a task, for type checkers and editors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from django_q.brokers import Broker

# A function that a task calls: itself, or its dotted path.
Func = str | Callable[..., object]
# A unique key, or a function that returns it for the arguments of a call.
Unique = str | int | Callable[..., str | int]
# What a rate counts: the starts of one tenant, or of all.
RateScope = Literal["tenant", "site"]
# Classes of errors, or their dotted paths.
Errors = type[BaseException] | str | Sequence[type[BaseException] | str]


class QOptions(TypedDict, total=False):
    """The options of a task, as `q_options`. `docs/reference/tasks.md` describes each."""

    task_name: str
    hook: Func | None
    group: str | None
    save: bool | None
    sync: bool | None
    cached: bool | int | None
    ack_failure: bool | None
    broker: Broker | None
    cluster: str | None
    timeout: float | None
    max_deliveries: int
    max_attempts: int
    retry_delay: float
    retry_backoff: float
    retry_jitter: float
    retry_on: Errors
    no_retry_on: Errors
    delay: float | timedelta | datetime
    expires: float | timedelta | datetime | None
    unique: Unique | None
    unique_until: Literal["start", "end"]
    on_commit: bool | None
    transactional: bool
    databases: Sequence[str]
    tenant_cache_seconds: float | None
    priority: int
    rate: str | None
    rate_scope: RateScope


class ScheduleOptions(QOptions, total=False):
    """The options of a schedule: those of its tasks, and its own."""

    catch_up: bool | int


class CallOptions(QOptions, total=False):
    """The options of one call of a declared task: those of a task, and its tenant."""

    schema_name: str | None


class DeclaredOptions(TypedDict, total=False):
    """The options that `@task` declares, besides `name` and `admin`."""

    max_attempts: int
    retry_on: Errors
    no_retry_on: Errors
    retry_delay: float
    retry_backoff: float
    retry_jitter: float
    timeout: float | None
    cluster: str | None
    transactional: bool
    on_commit: bool | None
    expires: float | timedelta | datetime | None
    unique: Unique | None
    unique_until: Literal["start", "end"]
    priority: int
    rate: str | None
    rate_scope: RateScope
    save: bool | None
    cached: bool | int | None
