"""How long the outcomes of a tenant are kept, in its policy."""

from typing import Any

import tenant_q.models.policies
from django.core.validators import MinValueValidator
from django.db import migrations, models


def _days(name: str, verbose_name: str, help_text: str) -> list[Any]:
    field: Any = models.FloatField(
        blank=True,
        help_text=help_text,
        null=True,
        validators=[tenant_q.models.policies.validate_days],
        verbose_name=verbose_name,
    )
    in_range = models.Q((f"{name}__gt", 0), (f"{name}__lte", 36500))
    condition = models.Q((f"{name}__isnull", True), in_range, _connector="OR")
    constraint = models.CheckConstraint(condition=condition, name=f"tenant_q_{name}_in_range")
    return [
        migrations.AddField("TenantPolicy", name, field),
        migrations.AddConstraint("TenantPolicy", constraint),
    ]


class Migration(migrations.Migration):
    dependencies = [("tenant_q", "0014_overview")]

    operations = [
        migrations.AlterField(
            "TenantPolicy",
            "max_results",
            models.PositiveIntegerField(
                blank=True,
                help_text="How many successes are kept. Empty: as many as keep_successes or save_limit says.",
                null=True,
                validators=[MinValueValidator(1)],
                verbose_name="most results",
            ),
        ),
        *_days(
            "success_days", "days of successes", "For how many days successes are kept. Empty: as keep_successes says."
        ),
        migrations.AddField(
            "TenantPolicy",
            "max_failures",
            models.PositiveIntegerField(
                blank=True,
                help_text="How many failures are kept. Empty: as many as keep_failures says.",
                null=True,
                validators=[MinValueValidator(1)],
                verbose_name="most failures",
            ),
        ),
        migrations.AddConstraint(
            "TenantPolicy",
            models.CheckConstraint(
                condition=models.Q(("max_failures__isnull", True), ("max_failures__gte", 1), _connector="OR"),
                name="tenant_q_max_failures_is_positive",
            ),
        ),
        *_days(
            "failure_days", "days of failures", "For how many days failures are kept. Empty: as keep_failures says."
        ),
    ]
