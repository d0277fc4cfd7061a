"""The database roles of tenants, and the operations on tenants that have not ended."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from tenant_q.tenancy.names import validate_schema_name


class TenantRole(models.Model):
    """The database role of a tenant, which `TENANT_Q["isolation"]` "role" and "login" need.

    Nothing in it is secret: a password follows from the role's name, its `version`, and a key in the settings.
    """

    class State(models.TextChoices):
        """What may be done with a role."""

        PROVISIONING = "provisioning", _("being provisioned")
        ACTIVE = "active", _("active")
        REPAIR = "repair", _("to be repaired")
        LEAVING = "leaving", _("leaving")

    schema_name: models.CharField[str, str] = models.CharField(
        _("schema"), max_length=63, unique=True, validators=[validate_schema_name]
    )
    role: models.CharField[str, str] = models.CharField(_("role"), max_length=63, unique=True)
    version: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(
        _("version"), default=1, help_text=_("The version of its password.")
    )
    state: models.CharField[str, str] = models.CharField(
        _("state"), max_length=20, choices=State.choices, default=State.PROVISIONING, db_index=True
    )
    connection_limit: models.IntegerField[int | None, int | None] = models.IntegerField(
        _("connection limit"), null=True, blank=True, help_text=_("The most sessions at once. Empty: no limit.")
    )
    problem: models.TextField[str, str] = models.TextField(
        _("problem"), blank=True, help_text=_("Why it is to be repaired.")
    )
    probed: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("last probe"), null=True)
    crossings: models.PositiveIntegerField[int | None, int | None] = models.PositiveIntegerField(
        _("crossings"), null=True, help_text=_("What the last probe found open.")
    )

    class Meta:
        verbose_name = _("role of a tenant")
        verbose_name_plural = _("roles of tenants")

    def __str__(self) -> str:
        return self.role


class TenantOperation(models.Model):
    """An operation on a tenant that has not ended: a provisioning, a rotation or a decommissioning.

    The command that began it continues it. `step` is the last step that was carried out.
    """

    schema_name: models.CharField[str, str] = models.CharField(_("schema"), max_length=63, unique=True)
    kind: models.CharField[str, str] = models.CharField(_("kind"), max_length=20)
    step: models.CharField[str, str] = models.CharField(_("step"), max_length=50, blank=True)
    arguments: models.JSONField[Any, Any] = models.JSONField(_("arguments"), default=dict)
    actor: models.CharField[str, str] = models.CharField(_("actor"), max_length=150)
    started: models.DateTimeField[datetime, datetime] = models.DateTimeField(_("started"), auto_now_add=True)

    class Meta:
        verbose_name = _("operation on a tenant")
        verbose_name_plural = _("operations on tenants")

    def __str__(self) -> str:
        return f"{self.kind} {self.schema_name}"
