"""Offer the workflows of the tenants' apps to a tenant's staff, who may name them in schedules."""

from __future__ import annotations

from collections.abc import Mapping

from django.apps import apps

from tenant_q.schedules import offered
from tenant_q.workflows import registry


def offered_workflows() -> Mapping[str, str]:
    """Return the paths of the workflows that staff may name, each with the title of its app.

    These are the registered ones that the modules `workflows` of the tenants' apps declare under a public name.
    """
    titles = {
        f"{config.name}.workflows": str(config.verbose_name)
        for config in apps.get_app_configs()
        if offered.is_of_tenants(config)
    }
    found = {}
    for workflow in registry.registered():
        title = next((title for name, title in titles.items() if f"{workflow.module}.".startswith(f"{name}.")), None)
        if title is not None and not workflow.name.startswith("_") and registry.is_at_its_path(workflow):
            found[workflow.path] = title
    return found


offered.add_source(offered_workflows)
