"""What is kept about tenants beside their own rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from tenant_q.support.json_values import json_problem
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


KNOWN_LIMITS = ("max_items", "max_open_workflows", "max_connections")
"""The limits in a tenant's configuration that tenant_q enforces. Others are the project's."""
MOST_CHARACTERS = 200
CONFIGURED = ("display_name", "settings", "features", "limits")
"""The fields of a tenant's configuration."""
_IS_KNOWN = " || ".join(f'@.key == "{name}"' for name in KNOWN_LIMITS)
# The members of an object that are known limits, but neither null nor a whole number of at least 1.
_WRONG_LIMITS = (
    f'strict $ ? (@.type() == "object").keyvalue() ? (({_IS_KNOWN}) && @.value != null '
    '&& !(@.value.type() == "number" && @.value >= 1 && @.value.floor() == @.value))'
)


def _is_object(name: str) -> models.CheckConstraint:
    kind: models.Func = models.Func(models.F(name), function="jsonb_typeof", output_field=models.TextField())
    return models.CheckConstraint(
        condition=models.lookups.Exact(kind, models.Value("object")), name=f"tenant_q_{name}_is_an_object"
    )


class TenantConfiguration(models.Model):
    """The configuration of a tenant: settings, features and limits that the project defines, and a name for people.

    Read it with `tenant_q.tenancy.config`, and change it with `tenant_q.policies.configure`, which leaves an audit
    record. Other processes see a change after `tenant_cache_seconds`.
    """

    schema_name: models.CharField[str, str] = models.CharField(
        _("schema"), max_length=63, unique=True, validators=[validate_schema_name]
    )
    display_name: models.CharField[str, str] = models.CharField(
        _("display name"), max_length=MOST_CHARACTERS, blank=True
    )
    settings: models.JSONField[Any, Any] = models.JSONField(_("settings"), default=dict, blank=True)
    features: models.JSONField[Any, Any] = models.JSONField(_("features"), default=dict, blank=True)
    limits: models.JSONField[Any, Any] = models.JSONField(
        _("limits"),
        default=dict,
        blank=True,
        help_text=_("max_items, max_open_workflows and max_connections are whole numbers; others are the project's."),
    )

    class Meta:
        db_table = "tenant_q_tenantconfig"
        verbose_name = _("tenant configuration")
        verbose_name_plural = _("tenant configurations")
        constraints = [
            *[_is_object(name) for name in CONFIGURED[1:]],
            models.CheckConstraint(
                condition=~models.Q(
                    models.Func(
                        models.F("limits"),
                        models.Value(_WRONG_LIMITS),
                        function="jsonb_path_exists",
                        output_field=models.BooleanField(),
                    )
                ),
                name="tenant_q_known_limits_are_counts",
            ),
        ]

    def __str__(self) -> str:
        return self.display_name or self.schema_name

    def clean(self) -> None:
        """Validate the values, and the limits that tenant_q enforces. Raise `ValidationError`."""
        super().clean()
        found = {name: list(problems_of(name, getattr(self, name))) for name in CONFIGURED}
        if problems := {name: texts for name, texts in found.items() if texts}:
            raise ValidationError(problems)


def problems_of(name: str, value: Any) -> Iterator[Any]:
    """Yield what is wrong with a value of a tenant's configuration.

    Args:
        name: One of `CONFIGURED`.
        value: Its value.
    """
    if name == "display_name" and not isinstance(value, str):
        yield _("Enter a text.")
    elif name != "display_name" and not isinstance(value, dict):
        yield _("Enter an object of JSON, such as {}.")
    elif problem := json_problem(value):
        yield _("JSON cannot hold it: %(problem)s") % {"problem": problem}
    elif name == "display_name" and len(value) > MOST_CHARACTERS:
        yield _("Enter at most %(most)s characters.") % {"most": MOST_CHARACTERS}
    elif name == "limits":
        for limit in KNOWN_LIMITS:
            if not _is_limit(value.get(limit)):
                yield _("%(limit)s must be a whole number of at least 1, or null.") % {"limit": limit}


def _is_limit(value: Any) -> bool:
    return value is None or (type(value) is int and value >= 1)
