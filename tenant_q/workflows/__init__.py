"""Durable workflows per tenant: a graph of tasks whose state is kept in the tenant's schema.

Add `tenant_q.workflows` to `TENANT_APPS`. Importing this package imports no model, so that a module of workflows can be
imported before the apps are loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenant_q.exceptions import KeyReused, WorkflowError
from tenant_q.workflows.context import Context
from tenant_q.workflows.workflow import Workflow

if TYPE_CHECKING:
    from tenant_q.workflows.run import Run

__all__ = ["Context", "KeyReused", "Run", "Workflow", "WorkflowError"]


def __getattr__(name: str) -> Any:
    if name == "Run":  # it needs the models
        from tenant_q.workflows.run import Run

        return Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
