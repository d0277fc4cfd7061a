"""The tenant and the task in every log record, also in those of a project's own loggers."""

from __future__ import annotations

import logging

from tenant_q.executor import running
from tenant_q.labels import NOTHING
from tenant_q.tenancy import current_schema


class TenantFilter(logging.Filter):
    """Gives each record `schema`, `task_id` and `func`, where it does not have them.

    Put it on a handler: `"filters": {"tenant": {"()": "tenant_q.logging.TenantFilter"}}`; then a formatter may use
    `{schema}`, `{task_id}` and `{func}`. Outside a task the last two are "-".
    """

    def filter(self, record: logging.LogRecord) -> bool:
        package = running.get()
        found = {
            "schema": package.schema if package else current_schema(),
            "task_id": package.id if package else NOTHING,
            "func": package.func_name if package else NOTHING,
        }
        for name, value in found.items():
            if getattr(record, name, NOTHING) == NOTHING:
                setattr(record, name, value)
        return True
