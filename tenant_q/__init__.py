"""A multi-tenant task cluster for Django: Django-Q2's tasks and schedules, per PostgreSQL schema."""

from tenant_q.declare import schedule, task
from tenant_q.exceptions import Retry, TaskFailed

__version__ = "0.1.0"
__all__ = ["Retry", "TaskFailed", "schedule", "task"]
