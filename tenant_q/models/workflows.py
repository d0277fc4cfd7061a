"""What the scheduler needs in the public schema to drive the workflow runs of all tenants."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils.translation import gettext_lazy as _


class DueWorkflow(models.Model):
    """A workflow run of a tenant, and when the scheduler looks at it next. Triggers on the tenants' tables keep it."""

    pk = models.CompositePrimaryKey("schema_name", "run")
    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63)
    run: models.CharField[str, str] = models.CharField(_("run"), max_length=32)
    cluster: models.CharField[str, str] = models.CharField(_("cluster"), max_length=100)
    state: models.CharField[str, str] = models.CharField(_("state"), max_length=12)
    due: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("due"), null=True)
    # What the run's row says; `due` is earlier after the broker lost data, and later while the run is held.
    look_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("next look"), null=True)

    class Meta:
        db_table = "tenant_q_dueworkflow"
        verbose_name = _("due workflow run")
        verbose_name_plural = _("due workflow runs")
        indexes = [
            models.Index(fields=["cluster", "due"], name="tenant_q_due_runs"),
            # Whether any run is open is asked in each tick, among runs that are kept for months.
            models.Index(
                fields=["cluster"],
                condition=models.Q(state__in=["pending", "running", "cancelling"]),
                name="tenant_q_open_runs",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.schema_name}: {self.run}"


class IndexedRuns(models.Model):
    """A schema whose workflow runs are in the index `DueWorkflow`, and the OID of its table."""

    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63, primary_key=True)
    # Negative if a trigger could not write an entry: then the scheduler writes all entries of the schema anew.
    table_oid: models.BigIntegerField[int, int] = models.BigIntegerField(_("table"))

    class Meta:
        verbose_name = _("schema with indexed runs")
        verbose_name_plural = _("schemas with indexed runs")

    def __str__(self) -> str:
        return self.schema_name


class BrokerEpoch(models.Model):
    """A number that grows each second while runs are open, by which a scheduler notices that the broker lost data.

    `written` is the highest number that the broker is known to have held.
    """

    cluster: models.CharField[str, str] = models.CharField(_("cluster"), max_length=100, primary_key=True)
    number: models.BigIntegerField[int, int] = models.BigIntegerField(_("number"), default=0)
    written: models.BigIntegerField[int, int] = models.BigIntegerField(_("written"), default=0)

    class Meta:
        verbose_name = _("epoch of a broker")
        verbose_name_plural = _("epochs of brokers")

    def __str__(self) -> str:
        return f"{self.cluster}: {self.number}"
