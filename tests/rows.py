"""Task rows as a cluster writes them, with signatures."""

from __future__ import annotations

from typing import Any

from django_q.models import Task
from picklefield.fields import PickledObject

from tenant_q.lifecycle.outcome_rows import pickled
from tenant_q.lifecycle.row_signing import RowSigner
from tenant_q.package.package import CODE
from tenant_q.tenancy import current_key, current_schema


def sign(task: Task, *, origin: str | None = CODE, **values: Any) -> None:
    """Write a row's pickled columns anew, signed, in the current schema. `values` take the place of the row's own."""
    signer = RowSigner(current_key(current_schema()), task.id, task.func, task.hook, task.cluster, origin)
    columns = {name: values.get(name, getattr(task, name)) for name in ("args", "kwargs", "result")}
    texts = {
        name: None if value is None else PickledObject(signer.sign(name, pickled(value)))
        for name, value in columns.items()
    }
    Task.objects.filter(pk=task.pk).update(**texts)
