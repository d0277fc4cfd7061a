"""Find out whether the project has the app of workflows, without importing it."""

from __future__ import annotations

from django.apps import apps

from tenant_q.exceptions import ConfigurationError

NAME = "tenant_q.workflows"
"""The name of the app."""
WAY_IN = f"Add {NAME!r} to TENANT_APPS and run `python manage.py migrate_schemas`."
"""How a project gets the app of workflows."""


def is_installed() -> bool:
    """Return whether the app of workflows is installed."""
    return apps.is_installed(NAME)


def require() -> None:
    """Require the app of workflows. Raises `ConfigurationError` if it is not installed."""
    if not is_installed():
        raise ConfigurationError(f"Workflows are not installed: {WAY_IN[0].lower()}{WAY_IN[1:]}")
