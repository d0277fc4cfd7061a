"""The app of workflows, for `TENANT_APPS`."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class WorkflowsConfig(AppConfig):
    """The configuration of the app, which finds the workflows in the modules `workflows` of installed apps."""

    name = "tenant_q.workflows"
    label = "tenant_q_workflows"
    verbose_name = _("Workflows")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from tenant_q.workflows import checks, engine, offered, run_index  # noqa: F401  (two register themselves)

        engine.install()
        post_migrate.connect(run_index.install_where_migrated, dispatch_uid="tenant_q.run_index")
        autodiscover_modules("workflows")
