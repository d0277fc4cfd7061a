"""Which package runs here: for log records, for progress, and for what a task enqueues."""

from __future__ import annotations

from contextvars import ContextVar

from tenant_q.package.package import Package

# A context variable: coroutines and threads that a task starts through asgiref have it too.
running: ContextVar[Package | None] = ContextVar("tenant_q_running", default=None)
