"""The index of failures."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils.translation import gettext_lazy as _

from tenant_q import tenancy

LONGEST_FUNC = 256
LONGEST_CAUSE = 100
LONGEST_SCHEDULE = 100


class Failure(models.Model):
    """An entry of the index of failures: a failed row in a tenant's task table. Triggers on these tables write it.

    It holds no argument, result or message of the tenant. `schema_name` is the schema as PostgreSQL names it.

    An entry is open until its task is run again. Then `again` is the id of the new task, and the failed row stays.

    While an entry is pending, `cause` and `schedule` are not known yet. The worker adds them with the row, and the
    scheduler those of rows that somebody else wrote.
    """

    pk = models.CompositePrimaryKey("schema_name", "task_id")
    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63)
    task_id: models.CharField[str, str] = models.CharField(_("task"), max_length=32)
    func: models.CharField[str, str] = models.CharField(_("function"), max_length=LONGEST_FUNC)
    cause: models.CharField[str, str] = models.CharField(_("cause"), max_length=LONGEST_CAUSE, blank=True, default="")
    schedule: models.CharField[str, str] = models.CharField(
        _("schedule"), max_length=LONGEST_SCHEDULE, blank=True, default=""
    )
    attempts: models.IntegerField[int, int] = models.IntegerField(_("attempts"), default=0)
    stopped: models.DateTimeField[datetime, datetime] = models.DateTimeField(_("stopped"))
    again: models.CharField[str, str] = models.CharField(_("run again as"), max_length=32, blank=True, default="")
    is_pending: models.BooleanField[bool, bool] = models.BooleanField(_("pending"), default=True)

    class Meta:
        verbose_name = _("failure")
        verbose_name_plural = _("failures")
        default_permissions = ()  # those of the page are `FailedTask`'s
        indexes = [
            models.Index(
                fields=["cause", "func", "stopped"], condition=models.Q(again=""), name="tenant_q_failed_like"
            ),
            models.Index(fields=["stopped"], condition=models.Q(again=""), name="tenant_q_failed_at"),
            models.Index(fields=["schema_name"], condition=models.Q(is_pending=True), name="tenant_q_failed_pending"),
        ]

    def __str__(self) -> str:
        return f"{self.schema_name}: {self.task_id}"

    @classmethod
    def rows(cls) -> models.QuerySet[Failure]:
        """Return the `Failure` rows of all tenants, on the tenants' connection."""
        return cls.objects.using(tenancy.database_alias())


class IndexedFailures(models.Model):
    """A schema whose failed tasks are in the index `Failure`, and the OID of its table.

    `swept` is the id of the last row that was compared with the index since the schema is in it; null if all were.
    """

    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63, primary_key=True)
    # Negative if a trigger could not write an entry: then the scheduler compares the schema's rows anew.
    table_oid: models.BigIntegerField[int, int] = models.BigIntegerField(_("table"))
    swept: models.CharField[str | None, str | None] = models.CharField(_("swept"), max_length=32, null=True)

    class Meta:
        verbose_name = _("schema with indexed failures")
        verbose_name_plural = _("schemas with indexed failures")
        indexes = [
            models.Index(fields=["schema_name"], condition=models.Q(swept__isnull=False), name="tenant_q_unswept"),
        ]

    def __str__(self) -> str:
        return self.schema_name
