"""Add the tenant and the task to every log record, including those of a project's own loggers."""

from __future__ import annotations

import logging

from django.apps import apps

from tenant_q.support.log_labels import EVENT, NOTHING
from tenant_q.support.visible import visible


class TenantFilter(logging.Filter):
    """A filter that adds `schema`, `task_id`, `func` and `event` to each record that lacks them.

    Put it on a handler in `LOGGING`: `"filters": {"tenant": {"()": "tenant_q.logging.TenantFilter"}}`. Then a formatter
    can use `{schema}`, `{task_id}` and `{func}`. Outside of a task the last two are "-". All three are "-" until the
    apps are loaded, and in a coroutine outside of a task. `{event}` is what a record of tenant_q is about, as
    "task.failed", and "-" in other records.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _found().items():
            if getattr(record, name, NOTHING) == NOTHING:
                setattr(record, name, visible(value))
        if not hasattr(record, EVENT):
            setattr(record, EVENT, NOTHING)
        return True


def _found() -> dict[str, str]:
    if not apps.ready:
        return {"schema": NOTHING, "task_id": NOTHING, "func": NOTHING}
    # `LOGGING` is read before the apps are loaded, and models cannot be imported then.
    from tenant_q.package.running import running
    from tenant_q.tenancy import current_schema, is_in_event_loop

    package = running.get()
    # The connection that a coroutine sees may be in the schema of another coroutine's tenant.
    schema = NOTHING if package is None and is_in_event_loop() else ""
    return {
        "schema": package.schema if package else schema or current_schema(),
        "task_id": package.id if package else NOTHING,
        "func": package.func_name if package else NOTHING,
    }
