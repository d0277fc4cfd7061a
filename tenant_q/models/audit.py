"""The audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from tenant_q.exceptions import TenantQError


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
