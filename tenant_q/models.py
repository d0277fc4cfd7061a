"""The public-schema tables of tenant_q."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class GroupPart(models.Model):
    """One part of an iter or of a cached group, for brokers other than Redis (which keeps parts itself)."""

    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63)
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
            models.UniqueConstraint(fields=["schema_name", "group", "index"], name="tenant_q_one_part_an_index"),
        ]

    def __str__(self) -> str:
        return f"{self.schema_name}: {self.group}[{self.index}]"

    @classmethod
    def record(cls, schema: str, group: str, index: str, payload: str, seconds: int | None) -> int:
        """Keep a part for `seconds` (None: for good) unless it is there already. Returns how many parts are there."""
        expires = timezone.now() + timedelta(seconds=seconds) if seconds else None
        part = cls(schema_name=schema, group=group, index=index, payload=payload, expires=expires)
        cls.objects.filter(expires__lt=timezone.now()).delete()
        cls.objects.bulk_create([part], ignore_conflicts=True)
        return cls.live(schema, group).count()

    @classmethod
    def live(cls, schema: str, group: str) -> models.QuerySet[GroupPart]:
        """The parts of a group that have not expired."""
        unexpired = models.Q(expires=None) | models.Q(expires__gte=timezone.now())
        return cls.objects.filter(unexpired, schema_name=schema, group=group)
