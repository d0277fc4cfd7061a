"""The types of the options of a task, for type checkers and editors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from django_q.brokers import Broker

# A function that a task calls: itself, or its dotted path.
Func = str | Callable[..., object]


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
    delay: float | timedelta
    on_commit: bool | None
    transactional: bool
    databases: Sequence[str]
    tenant_cache_seconds: float | None
