"""The parts of iters and cached groups, for brokers other than Redis."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenant_q import tenancy


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
