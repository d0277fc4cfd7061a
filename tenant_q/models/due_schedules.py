"""The due index of schedules."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils.translation import gettext_lazy as _


class DueSchedule(models.Model):
    """An entry of the due index: a tenant's schedule that will run again. Triggers on the tenants' tables write it.

    `schema_name` is the schema as PostgreSQL names it. `due` is when the scheduler reads the schedule: its `next_run`,
    or later or never (null) while it is `held` for a reason. A schedule without a cluster has an empty `cluster`.
    """

    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63)
    schedule_id: models.BigIntegerField[int, int] = models.BigIntegerField(_("schedule"))
    cluster: models.CharField[str, str] = models.CharField(_("cluster"), max_length=100, blank=True)
    next_run: models.DateTimeField[datetime, datetime] = models.DateTimeField(_("next run"))
    due: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("due"), null=True)
    held: models.CharField[str, str] = models.CharField(_("held because"), max_length=20, blank=True)

    class Meta:
        verbose_name = _("due schedule")
        verbose_name_plural = _("due schedules")
        constraints = [
            models.UniqueConstraint(fields=["schema_name", "schedule_id"], name="tenant_q_one_entry_a_schedule"),
        ]
        indexes = [models.Index(fields=["cluster", "due"], name="tenant_q_due")]

    def __str__(self) -> str:
        return f"{self.schema_name}: {self.schedule_id}"


class IndexedSchema(models.Model):
    """A schema whose schedules are in the due index, and the table from which they were read."""

    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63, primary_key=True)
    table_oid: models.BigIntegerField[int, int] = models.BigIntegerField(_("table"))

    class Meta:
        verbose_name = _("indexed schema")
        verbose_name_plural = _("indexed schemas")

    def __str__(self) -> str:
        return self.schema_name
