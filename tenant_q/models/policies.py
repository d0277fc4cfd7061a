"""The policies of tenants."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from tenant_q.conf.rules import LONGEST_DAYS
from tenant_q.tenancy.names import validate_schema_name

# Beyond these limits, virtual time in the broker would lose its precision, and tenants their turns.
LEAST_WEIGHT = 0.001
MOST_WEIGHT = 1000.0


def validate_weight(weight: float) -> None:
    """Validate the `weight` field of `TenantPolicy`. Raise `ValidationError` if it is out of range or no number."""
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise ValidationError(
            _("Ensure this value is from %(least)s to %(most)s."),
            code="weight",
            params={"least": f"{LEAST_WEIGHT:g}", "most": f"{MOST_WEIGHT:g}"},
        )


def validate_days(days: float) -> None:
    """Validate a number of days of `TenantPolicy`. Raise `ValidationError` if it is out of range or no number."""
    if not 0 < days <= LONGEST_DAYS:
        raise ValidationError(
            _("Ensure this value is above 0 and at most %(most)s."), code="days", params={"most": f"{LONGEST_DAYS}"}
        )


def _limit(verbose_name: Any, help_text: Any) -> Any:
    return models.PositiveIntegerField(
        verbose_name, null=True, blank=True, validators=[MinValueValidator(1)], help_text=help_text
    )


def _days(verbose_name: Any, help_text: Any) -> Any:
    return models.FloatField(verbose_name, null=True, blank=True, validators=[validate_days], help_text=help_text)


def _are_days(name: str) -> models.CheckConstraint:
    in_range = models.Q(**{f"{name}__gt": 0, f"{name}__lte": LONGEST_DAYS})
    return models.CheckConstraint(
        condition=models.Q(**{f"{name}__isnull": True}) | in_range, name=f"tenant_q_{name}_in_range"
    )


def _is_limit(name: str) -> models.CheckConstraint:
    unlimited = models.Q(**{f"{name}__isnull": True})
    return models.CheckConstraint(
        condition=unlimited | models.Q(**{f"{name}__gte": 1}), name=f"tenant_q_{name}_is_positive"
    )


class TenantPolicy(models.Model):
    """How a tenant shares the workers, and how long its results are kept. A tenant without a row has the defaults.

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
        _("most results"), _("How many successes are kept. Empty: as many as keep_successes or save_limit says.")
    )
    success_days: models.FloatField[float | None, float | None] = _days(
        _("days of successes"), _("For how many days successes are kept. Empty: as keep_successes says.")
    )
    max_failures: models.PositiveIntegerField[int | None, int | None] = _limit(
        _("most failures"), _("How many failures are kept. Empty: as many as keep_failures says.")
    )
    failure_days: models.FloatField[float | None, float | None] = _days(
        _("days of failures"), _("For how many days failures are kept. Empty: as keep_failures says.")
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
            _are_days("success_days"),
            _is_limit("max_failures"),
            _are_days("failure_days"),
        ]

    def __str__(self) -> str:
        return self.schema_name
