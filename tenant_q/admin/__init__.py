"""The admin pages: of a tenant's tasks and schedules in its own site, and of all tenants in the public site.

`register()` replaces the classes of Django-Q2, in whatever order `INSTALLED_APPS` names the apps. A class that the
project has registered stays; it should subclass `ScheduleAdmin`, `SuccessAdmin` or `FailureAdmin`.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django_q import admin as django_q_admin
from django_q.models import Failure, OrmQ, Schedule, Success

from tenant_q.admin.failures import FailedTaskAdmin
from tenant_q.admin.live import LiveTaskAdmin
from tenant_q.admin.operators import AuditRecordAdmin, ClusterAdmin, DeadTaskAdmin
from tenant_q.admin.overview import OverviewAdmin, SiteOverviewAdmin
from tenant_q.admin.schedules import ScheduleAdmin
from tenant_q.admin.tasks import FailureAdmin, SuccessAdmin
from tenant_q.admin.tenants import TenantPolicyAdmin
from tenant_q.models import AuditRecord, Cluster, DeadTask, FailedTask, LiveTask, Overview, SiteOverview, TenantPolicy

__all__ = ["FailureAdmin", "LiveTaskAdmin", "ScheduleAdmin", "SuccessAdmin", "register"]

_DJANGO_Q2_OWN = {
    Schedule: django_q_admin.ScheduleAdmin,
    Success: django_q_admin.TaskAdmin,
    Failure: django_q_admin.FailAdmin,
    # The queue of the ORM broker, which mscluster does not serve.
    OrmQ: django_q_admin.QueueAdmin,
}
_OURS: dict[Any, Any] = {
    Schedule: ScheduleAdmin,
    Success: SuccessAdmin,
    Failure: FailureAdmin,
    LiveTask: LiveTaskAdmin,
    Overview: OverviewAdmin,
    # In the public site
    SiteOverview: SiteOverviewAdmin,
    TenantPolicy: TenantPolicyAdmin,
    Cluster: ClusterAdmin,
    DeadTask: DeadTaskAdmin,
    FailedTask: FailedTaskAdmin,
    AuditRecord: AuditRecordAdmin,
}


def register(site: Any) -> None:
    """Register the admin's pages at an admin site in place of Django-Q2's.

    A model that the project has registered there with a class of its own stays as it is.

    Args:
        site: An `AdminSite`.
    """
    for model, own in _DJANGO_Q2_OWN.items():
        if site.is_registered(model) and type(site._registry[model]) is own:
            site.unregister(model)
    for model, ours in _OURS.items():
        if not site.is_registered(model):
            site.register(model, ours)


register(admin.site)
