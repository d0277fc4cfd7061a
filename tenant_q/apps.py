"""The Django app: make Django-Q2 use our broker, and stamp every task with its schema."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_delete, post_migrate, post_save
from django.utils.translation import gettext_lazy as _

# Django-Q2 warns at import if `timeout` is not below `retry`. Here leases are renewed, and `retry` has no effect.
warnings.filterwarnings("ignore", message="Retry and timeout are misconfigured", module="django_q")


def _read_settings_of_django_q() -> None:
    """Import Django-Q2's settings while the apps are loaded, with an empty `ALT_CLUSTERS` if there is none.

    `Q_CLUSTER_NAME` makes it required. A value of the wrong type could make the import fail, so Django-Q2 does not see
    those that the system checks refuse. Nothing uses what it read instead: `conf()` raises until they are corrected.
    """
    from tenant_q.conf import valid_q_cluster

    if not hasattr(settings, "Q_CLUSTER"):
        importlib.import_module("django_q.conf")
        return
    configured = settings.Q_CLUSTER
    settings.Q_CLUSTER = {"ALT_CLUSTERS": {}} | valid_q_cluster()
    try:
        importlib.import_module("django_q.conf")
    finally:
        settings.Q_CLUSTER = configured


_read_settings_of_django_q()


class TenantQConfig(AppConfig):
    """The configuration of the app, which connects tenant_q to Django-Q2 and to the tenancy package."""

    name = "tenant_q"
    verbose_name = _("Tenant Q")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django_q.signals import pre_enqueue

        from tenant_q import brokers, checks, policies, tenancy  # noqa: F401  (checks register themselves)
        from tenant_q.conf import problems
        from tenant_q.lifecycle import push
        from tenant_q.models import TenantConfiguration, TenantPolicy
        from tenant_q.operations import deleted_tenants
        from tenant_q.schedules import index_upkeep, replanning, row_names

        replanning.install()
        row_names.install()
        pre_enqueue.connect(push.stamp, dispatch_uid="tenant_q.stamp")
        post_migrate.connect(index_upkeep.install_where_migrated, dispatch_uid="tenant_q.due_index")
        for signal, note in ((post_save, deleted_tenants.tenant_made), (post_delete, deleted_tenants.tenant_deleted)):
            signal.connect(note, sender=settings.TENANT_MODEL, dispatch_uid="tenant_q.departures")
        for signal in (post_save, post_delete):
            signal.connect(_forget_tenants, sender=settings.TENANT_MODEL, dispatch_uid="tenant_q.forget_tenants")
            signal.connect(policies.policy_saved, sender=TenantPolicy, dispatch_uid="tenant_q.policy_saved")
            signal.connect(tenancy.config_saved, sender=TenantConfiguration, dispatch_uid="tenant_q.config_saved")
        if not problems():  # otherwise the system checks report them
            brokers.install()
            tenancy.note_configured_database()


def _forget_tenants(**_: Any) -> None:
    from tenant_q import tenancy

    tenancy.forget_tenants()
