"""Report what is wrong with the app of workflows and with the workflows of a project, as system checks."""

from __future__ import annotations

import pydoc
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from tenant_q import brokers, tenancy
from tenant_q.conf import problems
from tenant_q.exceptions import WorkflowError
from tenant_q.support import workflows_app
from tenant_q.workflows import registry
from tenant_q.workflows.workflow import Workflow


@register("tenant_q")
def check_workflows(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Run every system check of workflows."""
    found = [*_check_apps(), *_check_types(), *_check_broker()]
    return found + [message for workflow in registry.registered() for message in _check_workflow(workflow)]


def _check_apps() -> list[CheckMessage]:
    if tenancy.lists_app(tenancy.tenant_apps(), workflows_app.NAME):
        return []
    if tenancy.lists_app(tenancy.shared_apps(), workflows_app.NAME):
        message = f"{workflows_app.NAME} is only in SHARED_APPS, so tenants have no tables for their workflows."
        hint = f"Move {workflows_app.NAME!r} to TENANT_APPS and run `python manage.py migrate_schemas`."
    else:
        message = f"{workflows_app.NAME} is not in TENANT_APPS, so tenants have no tables for their workflows."
        hint = workflows_app.WAY_IN
    return [Error(message, hint=hint, id="tenant_q.E015")]


def _check_types() -> list[CheckMessage]:
    """Check that each tenant type with tasks has workflows too. It is no error: the type may not need them."""
    if not getattr(settings, "HAS_MULTI_TYPE_TENANTS", False):
        return []
    hint = f"Add {workflows_app.NAME!r} to its APPS and run `python manage.py migrate_schemas`."
    return [
        Warning(
            f"The tenant type {name!r} of TENANT_TYPES has django_q and lacks {workflows_app.NAME}, so its tenants "
            "cannot start workflows.",
            hint=hint,
            id="tenant_q.W012",
        )
        for name, kind in settings.TENANT_TYPES.items()
        if name != tenancy.public_schema()
        and tenancy.lists_app(list(kind["APPS"]), "django_q")
        and not tenancy.lists_app(list(kind["APPS"]), workflows_app.NAME)
    ]


def _check_broker() -> list[CheckMessage]:
    if problems():  # the check of the settings lists them
        return []
    if brokers.uses_redis() or not any(registry.registered()):
        return []
    hint = "Set Q_CLUSTER['redis'] to a Redis or Valkey server, and remove the other broker."
    message = "Workflows are declared, and the broker is not on Redis, which they need."
    return [Error(message, hint=hint, id="tenant_q.E016")]


def _check_workflow(workflow: Workflow) -> Iterator[CheckMessage]:
    try:
        plan = workflow.plan
    except WorkflowError as error:
        yield Error(str(error), id="tenant_q.E017")
        return
    for step in plan.by_name.values():
        for option in ("retry_on", "no_retry_on"):
            for name in step.options.get(option, ()):
                if not _is_error(name):
                    yield Warning(
                        f"The option {option!r} of step {step.name!r} of workflow {workflow.path} names {name!r}, "
                        "which is no class that can be imported, so no error fits it.",
                        hint="Correct the path, or name the class itself.",
                        id="tenant_q.W013",
                    )


def _is_error(name: str) -> bool:
    """Return whether a name in the options of a workflow's step leads to a class, as it does when a step has failed."""
    try:
        return isinstance(pydoc.locate(name), type)
    except pydoc.ErrorDuringImport:
        return False
