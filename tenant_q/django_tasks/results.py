"""Read the results of Django tasks: from the row of a finished one, or from the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenant_q.brokers import site_brokers
from tenant_q.brokers.protocol import Broker
from tenant_q.conf import conf
from tenant_q.django_tasks import records
from tenant_q.django_tasks.api import Task, TaskResult, TaskResultStatus
from tenant_q.django_tasks.execution import task_of
from tenant_q.exceptions import BadPackage, UnsignedResult
from tenant_q.lifecycle import aliases, row_signing, task_rows
from tenant_q.package import task_objects
from tenant_q.package.envelope import Found, open_package
from tenant_q.package.package import Package
from tenant_q.support.moments import at


def find(schema: str, id: str, alias: str) -> TaskResult[..., Any] | None:
    """Return the result of a tenant's Django task, or None if it has no such task of the backend.

    Args:
        schema: The tenant's schema, which must be current.
        id: The id of the task, or one that stands for it.
        alias: The alias of the backend.

    Raises:
        UnsignedResult: The row is not signed, and `TENANT_Q["signed_results"]` is set.
        BrokerError: A broker does not answer.
    """
    found = _under(schema, id)
    if found is None and (real := aliases.real_id(schema, id)):
        found = _under(schema, real)
    return found if found is not None and found.backend == alias else None


def _under(schema: str, id: str) -> TaskResult[..., Any] | None:
    """Return the result of the Django task that has the id itself, not as an alias."""
    # A task that ends between two queries has left the broker, and has a row then.
    return _by_row(schema, id) or _by_brokers(schema, id) or _by_row(schema, id)


def _by_row(schema: str, id: str) -> TaskResult[..., Any] | None:
    row = task_rows.as_texts(task_rows.rows().filter(id=id)).first()
    if row is None:
        return None
    signed = row_signing.verified_column(row.stored_kwargs, "kwargs", row, schema)
    task = task_of(row.func, may_import=signed is not None)
    if task is None:
        return None
    values = {name: task_rows.read(row, name) for name in task_rows.PICKLED}
    if conf().signed_results and not all(value.is_signed for value in values.values()):
        raise UnsignedResult(
            f"Task {id} of {schema} has a value that is not signed, and TENANT_Q['signed_results'] is set; enqueue it "
            "anew, or delete its row."
        )
    record = task_objects.record_behind(signed.pickled) if signed is not None else None
    package = _package(id, schema, values["args"].value, values["kwargs"].value, record or _record_of(row, task))
    return records.result_of(
        package,
        task,
        TaskResultStatus.SUCCESSFUL if row.success else TaskResultStatus.FAILED,
        attempt=row.attempt_count,
        started=None if record else row.started,
        finished=row.stopped,
        value=values["result"].value,
    )


def _package(id: str, schema: str, args: Any, kwargs: Any, record: Mapping[str, Any]) -> Package:
    task = {"id": id, "schema_name": schema, "args": args or (), "kwargs": kwargs or {}, task_objects.RECORD: record}
    return Package(task)


def _record_of(row: Any, task: Task[..., Any]) -> dict[str, Any]:
    """Return a record for a row without one, which is not signed or whose task was given up before it ever started."""
    package = Package({"id": row.id, "started": None})
    return records.new_record(task, task.backend, package)


def _by_brokers(schema: str, id: str) -> TaskResult[..., Any] | None:
    for broker in site_brokers():
        if broker.supports_tenant_queues and (found := _by_broker(broker, schema, id)) is not None:
            return found
    return None


def _by_broker(broker: Broker, schema: str, id: str) -> TaskResult[..., Any] | None:
    live = broker.find(schema, id)
    dead = broker.dead(schema, ids=[id]) if live is None else []
    payload = live.payload if live is not None else dead[0].payload if dead else None
    package = _opened(payload, id) if payload is not None else None
    task = None if package is None else task_of(package.func, may_import=True)
    if package is None or task is None:
        return None
    if not task_objects.has_record(package):
        package.task[task_objects.RECORD] = records.new_record(task, task.backend, package)
    starts = len(package.task[task_objects.RECORD]["starts"])
    if live is None:
        finished = at(dead[0].died)
        return records.result_of(
            package, task, TaskResultStatus.FAILED, attempt=starts, finished=finished, value=dead[0].cause
        )
    if live.place == "leased":
        return records.result_of(package, task, TaskResultStatus.RUNNING, attempt=starts + 1)
    return records.result_of(package, task, TaskResultStatus.READY)


def _opened(payload: str, id: str) -> Package | None:
    try:
        return open_package(payload, Found(id=id))
    except BadPackage:
        return None
