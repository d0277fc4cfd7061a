"""The workflows that this process knows, by path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tenant_q.exceptions import WorkflowError
from tenant_q.support.hints import did_you_mean

if TYPE_CHECKING:
    from tenant_q.workflows.workflow import Workflow

_workflows: dict[str, Workflow] = {}


def add(workflow: Workflow) -> None:
    """Add a workflow. A module that is imported again replaces its own."""
    _workflows[workflow.path] = workflow


def find(path: str) -> Workflow | None:
    """Return the registered workflow with this path, or None. Nothing is imported."""
    return _workflows.get(path)


def get(path: str) -> Workflow:
    """Return the registered workflow with this path.

    Raises:
        WorkflowError: There is none.
    """
    workflow = _workflows.get(path) if isinstance(path, str) else None
    if workflow is None:
        raise WorkflowError(
            f"There is no workflow {path!r}: {did_you_mean(path, _workflows)} Workflows are declared in the modules "
            "'workflows' of installed apps."
        )
    return workflow


def registered() -> Iterator[Workflow]:
    """Yield each registered workflow, in the order of their paths."""
    for path in sorted(_workflows):
        yield _workflows[path]


def is_at_its_path(workflow: Workflow) -> bool:
    """Return whether a workflow is what its module has under its name, so that a schedule finds it there."""
    return getattr(sys.modules.get(workflow.module), workflow.name, None) is workflow
