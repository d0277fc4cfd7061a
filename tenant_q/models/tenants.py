"""What is kept about tenants beside their own rows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from tenant_q.tenancy.names import validate_schema_name


class TenantRecord(models.Model):
    """A tenant as tenant_q knows it, by which it notices that a tenant was deleted, replaced or renamed.

    `key` is the primary key of the tenant's row, and `since` when that was created; null for a tenant older than these
    records. `former_names` are the earlier names of its schema. `deleted` is when its row was deleted, and `cleared`
    when nothing of it was left in the broker. The record is deleted a month later.
    """

    key: models.CharField[str, str] = models.CharField(_("tenant's key"), max_length=255, unique=True)
    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63, db_index=True)
    former_names: models.JSONField[list[str], list[str]] = models.JSONField(_("former names"), default=list, blank=True)
    since: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("since"), null=True)
    deleted: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        _("deleted"), null=True, db_index=True
    )
    cleared: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("cleared"), null=True)

    class Meta:
        verbose_name = _("tenant record")
        verbose_name_plural = _("tenant records")

    def __str__(self) -> str:
        return f"{self.schema_name} ({self.key})"


class TenantConfiguration(models.Model):
    """The configuration of a tenant: settings, features and limits that the project defines, and a name for people."""

    schema_name: models.CharField[str, str] = models.CharField(
        _("schema"), max_length=63, unique=True, validators=[validate_schema_name]
    )
    display_name: models.CharField[str, str] = models.CharField(_("display name"), max_length=200, blank=True)
    settings: models.JSONField[Any, Any] = models.JSONField(_("settings"), default=dict, blank=True)
    features: models.JSONField[Any, Any] = models.JSONField(_("features"), default=dict, blank=True)
    limits: models.JSONField[Any, Any] = models.JSONField(_("limits"), default=dict, blank=True)

    class Meta:
        db_table = "tenant_q_tenantconfig"
        verbose_name = _("tenant configuration")
        verbose_name_plural = _("tenant configurations")

    def __str__(self) -> str:
        return self.display_name or self.schema_name
