"""Models without tables. They name pages of the admin and their permissions."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Overview(models.Model):
    """What happens in a tenant now, in the last hour and in the last day."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = _("overview")
        verbose_name_plural = _("overview")


class SiteOverview(models.Model):
    """What happens in all tenants now, in the last hour and in the last day."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = _("overview of all tenants")
        verbose_name_plural = _("overview of all tenants")


class LiveTask(models.Model):
    """A tenant's package in the broker: running, queued or delayed."""

    class Meta:
        managed = False
        default_permissions = ("view", "change")
        verbose_name = _("running and queued task")
        verbose_name_plural = _("running and queued tasks")


class Cluster(models.Model):
    """A cluster of the site."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = _("cluster")
        verbose_name_plural = _("clusters")


class DeadTask(models.Model):
    """A package that was given up without a row in its tenant's task table."""

    class Meta:
        managed = False
        default_permissions = ("view", "change", "delete")
        verbose_name = _("dead task")
        verbose_name_plural = _("dead tasks")


class FailedTask(models.Model):
    """A failed task of any tenant, as the index of failures has it.

    The page is not one of the index itself, because the admin refuses models with a composite primary key.
    """

    class Meta:
        managed = False
        default_permissions = ("view", "change", "delete")
        verbose_name = _("failure")
        verbose_name_plural = _("failures")
