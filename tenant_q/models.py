"""The tables of tenant_q, all of them in the public schema."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenant_q import tenancy
from tenant_q.exceptions import TenantQError
from tenant_q.tenancy.names import validate_schema_name

# Beyond these limits, virtual time in the broker would lose its precision, and tenants their turns.
LEAST_WEIGHT = 0.001
MOST_WEIGHT = 1000.0


class GroupPart(models.Model):
    """One part of an iter or of a cached group, for brokers other than Redis, which keeps parts itself."""

    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63)
    tenant: models.CharField[str, str] = models.CharField(_("tenant's key"), max_length=255, blank=True, db_default="")
    group: models.CharField[str, str] = models.CharField(_("group"), max_length=100)
    index: models.CharField[str, str] = models.CharField(_("index"), max_length=64)
    payload: models.TextField[str, str] = models.TextField(_("signed part"))
    expires: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        _("expires"), null=True, db_index=True
    )

    class Meta:
        verbose_name = _("group part")
        verbose_name_plural = _("group parts")
        constraints = [
            models.UniqueConstraint(
                fields=["schema_name", "tenant", "group", "index"], name="tenant_q_one_part_an_index"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.schema_name}: {self.group}[{self.index}]"

    @classmethod
    def rows(cls) -> models.QuerySet[GroupPart]:
        """Return the `GroupPart` rows of all tenants, on the tenants' connection."""
        return cls.objects.using(tenancy.database_alias())

    @classmethod
    def record(cls, schema: str, tenant: str, group: str, index: str, payload: str, seconds: int | None) -> int:
        """Record a part of a group as a `GroupPart` row, unless it is recorded already.

        Args:
            schema: The tenant.
            tenant: The key of the tenant.
            group: The name of the group.
            index: The place of the part in the group.
            payload: The signed part.
            seconds: How long to keep it; None without limit.

        Returns:
            The number of recorded parts of the group.
        """
        expires = timezone.now() + timedelta(seconds=seconds) if seconds else None
        part = cls(schema_name=schema, tenant=tenant, group=group, index=index, payload=payload, expires=expires)
        cls.rows().filter(expires__lt=timezone.now()).delete()
        cls.rows().bulk_create([part], ignore_conflicts=True)
        return cls.live(schema, tenant, group).values("index").distinct().count()

    @classmethod
    def live(cls, schema: str, tenant: str, group: str) -> models.QuerySet[GroupPart]:
        """Return the `GroupPart` rows of a group that have not expired. Those of an earlier version name no tenant."""
        unexpired = models.Q(expires=None) | models.Q(expires__gte=timezone.now())
        return cls.rows().filter(unexpired, schema_name=schema, tenant__in={tenant, ""}, group=group)


def validate_weight(weight: float) -> None:
    """Validate the `weight` field of `TenantPolicy`. Raise `ValidationError` if it is out of range or no number."""
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise ValidationError(
            _("Ensure this value is from %(least)s to %(most)s."),
            code="weight",
            params={"least": f"{LEAST_WEIGHT:g}", "most": f"{MOST_WEIGHT:g}"},
        )


def _limit(verbose_name: Any, help_text: Any) -> Any:
    return models.PositiveIntegerField(
        verbose_name, null=True, blank=True, validators=[MinValueValidator(1)], help_text=help_text
    )


def _is_limit(name: str) -> models.CheckConstraint:
    unlimited = models.Q(**{f"{name}__isnull": True})
    return models.CheckConstraint(
        condition=unlimited | models.Q(**{f"{name}__gte": 1}), name=f"tenant_q_{name}_is_positive"
    )


class TenantPolicy(models.Model):
    """How a tenant shares the workers, and how many of its results are kept. A tenant without a row has the defaults.

    Change it with `tenant_q.policies.change`, which leaves an audit record. A change through the ORM takes effect after
    its commit, and a change by SQL within half a minute.
    """

    schema_name: models.CharField[str, str] = models.CharField(
        _("schema"), max_length=63, unique=True, validators=[validate_schema_name]
    )
    weight: models.FloatField[float, float] = models.FloatField(
        _("weight"), default=1.0, validators=[validate_weight], help_text=_("Its share of worker time against others'.")
    )
    max_running: models.PositiveIntegerField[int | None, int | None] = _limit(
        _("most running"), _("How many workers may be busy with it at once. Empty: no limit.")
    )
    max_queued: models.PositiveIntegerField[int | None, int | None] = _limit(
        _("most queued"), _("How many of its tasks may wait. Empty: no limit.")
    )
    max_results: models.PositiveIntegerField[int | None, int | None] = _limit(
        _("most results"), _("How many successes are kept. Empty: as many as the save_limit of Q_CLUSTER says.")
    )
    paused: models.BooleanField[bool, bool] = models.BooleanField(
        _("paused"), default=False, help_text=_("Whether none of its tasks is started.")
    )
    changed: models.DateTimeField[datetime, datetime] = models.DateTimeField(_("changed"), auto_now=True)

    class Meta:
        verbose_name = _("tenant policy")
        verbose_name_plural = _("tenant policies")
        ordering = ["schema_name"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(weight__gte=LEAST_WEIGHT, weight__lte=MOST_WEIGHT), name="tenant_q_weight_in_range"
            ),
            _is_limit("max_running"),
            _is_limit("max_queued"),
            _is_limit("max_results"),
        ]

    def __str__(self) -> str:
        return self.schema_name


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


class AuditRecord(models.Model):
    """An audit record: who did what to which tenant. It is written once and never changed."""

    at: models.DateTimeField[datetime, datetime] = models.DateTimeField(_("at"), auto_now_add=True)
    actor: models.CharField[str, str] = models.CharField(_("actor"), max_length=150)
    act: models.CharField[str, str] = models.CharField(_("act"), max_length=50)
    schema_name: models.CharField[str | None, str | None] = models.CharField(
        _("schema"), max_length=63, null=True, blank=True
    )
    target: models.TextField[str, str] = models.TextField(_("target"), blank=True)
    before: models.JSONField[Any, Any] = models.JSONField(_("before"), null=True, blank=True)
    after: models.JSONField[Any, Any] = models.JSONField(_("after"), null=True, blank=True)

    class Meta:
        verbose_name = _("audit record")
        verbose_name_plural = _("audit records")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.actor}: {self.act} {self.schema_name or self.target}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save a new `AuditRecord` row. Raises `TenantQError` for an existing one."""
        if not self._state.adding:
            raise TenantQError("An audit record cannot be changed; add another one with tenant_q.audit.record().")
        super().save(*args, **kwargs)


# These models have no tables. They name pages of the admin and their permissions.


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
