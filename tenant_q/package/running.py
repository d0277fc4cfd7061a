"""The package that runs here, for log records, for progress, and for the tasks that a task enqueues."""

from __future__ import annotations

from contextvars import ContextVar

from tenant_q.package.package import Package

# A context variable, so coroutines and threads that a task starts through asgiref inherit it.
running: ContextVar[Package | None] = ContextVar("tenant_q_running", default=None)
