"""`QUtilities`: tasks, schedules and workflows for the current tenant, or for another one by `schema_name`."""

from __future__ import annotations

from tenant_q.package.option_types import QOptions
from tenant_q.utils.enqueueing import EnqueueCalls
from tenant_q.utils.reading import ResultCalls
from tenant_q.utils.tracking import TrackingCalls
from tenant_q.utils.workflows import WorkflowCalls

__all__ = ["QOptions", "QUtilities"]


class QUtilities(EnqueueCalls, ResultCalls, TrackingCalls, WorkflowCalls):
    """The functions of `django_q.tasks`, per tenant, and some of our own.

    Each has the parameters and the defaults of Django-Q2's function of the same purpose, and `schema_name`, the schema
    of the tenant; None stands for the current tenant. All are static methods: there is nothing to instantiate.

    Every method with a `schema_name` raises these errors:

    - `WrongArgument`, a `TypeError`: an argument has a wrong type.
    - `UnknownTenant`: no tenant has that schema name.
    - `NoTenant`: the public schema is current, and it has no task tables. `get_queue_size` does not raise it.
    - `SchemaMissing` and `SchemaNotMigrated`: the tenant has no schema, or no task tables, and the call reads or writes
      rows.
    - `TenantNotAuthorized`: the calling code is restricted to another tenant, as by `restrict_to`.
    - `InEventLoop`: an event loop runs in this thread. A coroutine uses the asynchronous forms, whose names begin with
      `a`, within `async with in_schema(...)` or with a `schema_name`. A coroutine of a task may also enqueue for the
      tenant of that task, and get the size of its queue.
    """
