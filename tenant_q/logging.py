"""The tenant and the task in every log record, also in those of a project's own loggers."""

from __future__ import annotations

import logging

from django.apps import apps

from tenant_q.labels import NOTHING


class TenantFilter(logging.Filter):
    """Gives each record `schema`, `task_id` and `func`, where it does not have them.

    Put it on a handler in `LOGGING`: `"filters": {"tenant": {"()": "tenant_q.logging.TenantFilter"}}`; then a formatter
    may use `{schema}`, `{task_id}` and `{func}`. Outside a task the last two are "-"; until the apps are loaded all
    three are.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _found().items():
            if getattr(record, name, NOTHING) == NOTHING:
                setattr(record, name, value)
        return True


def _found() -> dict[str, str]:
    if not apps.ready:
        return {"schema": NOTHING, "task_id": NOTHING, "func": NOTHING}
    # `LOGGING` is read before the apps are, and models cannot be imported then.
    from tenant_q.executor import running
    from tenant_q.tenancy import current_schema

    package = running.get()
    return {
        "schema": package.schema if package else current_schema(),
        "task_id": package.id if package else NOTHING,
        "func": package.func_name if package else NOTHING,
    }
