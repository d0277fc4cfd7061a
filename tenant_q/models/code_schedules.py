"""The bookkeeping of schedules that code declares."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils.translation import gettext_lazy as _


class ScheduleRelease(models.Model):
    """A release of the schedules that code declares: the newest of a site is in force.

    `is_given` says that the project named it in `TENANT_Q["release"]`; otherwise `label` is a hash of the declarations.
    """

    site: models.CharField[str, str] = models.CharField(_("site"), max_length=100)
    label: models.CharField[str, str] = models.CharField(_("release"), max_length=100)
    is_given: models.BooleanField[bool, bool] = models.BooleanField(_("given"))
    first_seen: models.DateTimeField[datetime, datetime] = models.DateTimeField(_("first seen"))
    last_seen: models.DateTimeField[datetime, datetime] = models.DateTimeField(_("last seen"))

    class Meta:
        verbose_name = _("release of schedules")
        verbose_name_plural = _("releases of schedules")
        constraints = [models.UniqueConstraint(fields=["site", "label"], name="tenant_q_one_row_a_release")]

    def __str__(self) -> str:
        return f"{self.site}: {self.label}"


class CodeSchedule(models.Model):
    """A tenant's schedule that was made from code. `schedule_id` is its row in the tenant's schema.

    `withdrawn` is when it left the code, and `was_paused` whether it was paused before that.
    """

    site: models.CharField[str, str] = models.CharField(_("site"), max_length=100)
    tenant: models.CharField[str, str] = models.CharField(_("tenant's key"), max_length=255)
    name: models.CharField[str, str] = models.CharField(_("name"), max_length=100)
    schedule_id: models.BigIntegerField[int, int] = models.BigIntegerField(_("schedule"))
    withdrawn: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("withdrawn"), null=True)
    was_paused: models.BooleanField[bool, bool] = models.BooleanField(_("was paused"), default=False)

    class Meta:
        verbose_name = _("schedule from code")
        verbose_name_plural = _("schedules from code")
        constraints = [models.UniqueConstraint(fields=["site", "tenant", "name"], name="tenant_q_one_schedule_a_name")]

    def __str__(self) -> str:
        return f"{self.tenant}: {self.name}"


class SyncedTenant(models.Model):
    """The fingerprint of the schedules from code that a tenant has, and how many names were taken by other rows."""

    site: models.CharField[str, str] = models.CharField(_("site"), max_length=100)
    tenant: models.CharField[str, str] = models.CharField(_("tenant's key"), max_length=255)
    fingerprint: models.CharField[str, str] = models.CharField(_("fingerprint"), max_length=64)
    conflicts: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(_("conflicts"), default=0)

    class Meta:
        verbose_name = _("synchronized tenant")
        verbose_name_plural = _("synchronized tenants")
        constraints = [models.UniqueConstraint(fields=["site", "tenant"], name="tenant_q_one_row_a_tenant")]

    def __str__(self) -> str:
        return self.tenant
