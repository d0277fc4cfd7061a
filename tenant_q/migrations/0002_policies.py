import django.core.validators
import tenant_q.models
import tenant_q.tenancy.names
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenant_q", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditRecord",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(auto_now_add=True, verbose_name="at")),
                ("actor", models.CharField(max_length=150, verbose_name="actor")),
                ("act", models.CharField(max_length=50, verbose_name="act")),
                ("schema_name", models.CharField(blank=True, max_length=63, null=True, verbose_name="schema")),
                ("target", models.TextField(blank=True, verbose_name="target")),
                ("before", models.JSONField(blank=True, null=True, verbose_name="before")),
                ("after", models.JSONField(blank=True, null=True, verbose_name="after")),
            ],
            options={
                "verbose_name": "audit record",
                "verbose_name_plural": "audit records",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="TenantPolicy",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "schema_name",
                    models.CharField(
                        max_length=63,
                        unique=True,
                        validators=[tenant_q.tenancy.names.validate_schema_name],
                        verbose_name="schema",
                    ),
                ),
                (
                    "weight",
                    models.FloatField(
                        default=1.0,
                        help_text="Its share of worker time against others'.",
                        validators=[tenant_q.models.validate_weight],
                        verbose_name="weight",
                    ),
                ),
                (
                    "max_running",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="How many workers may be busy with it at once. Empty: no limit.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                        verbose_name="most running",
                    ),
                ),
                (
                    "max_queued",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="How many of its tasks may wait. Empty: no limit.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                        verbose_name="most queued",
                    ),
                ),
                (
                    "max_results",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="How many successes are kept. Empty: as many as the save_limit of Q_CLUSTER says.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                        verbose_name="most results",
                    ),
                ),
                (
                    "paused",
                    models.BooleanField(
                        default=False, help_text="Whether none of its tasks is started.", verbose_name="paused"
                    ),
                ),
                ("changed", models.DateTimeField(auto_now=True, verbose_name="changed")),
            ],
            options={
                "verbose_name": "tenant policy",
                "verbose_name_plural": "tenant policies",
                "ordering": ["schema_name"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("weight__gte", 0.001), ("weight__lte", 1000.0)),
                        name="tenant_q_weight_in_range",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("max_running__isnull", True), ("max_running__gte", 1), _connector="OR"),
                        name="tenant_q_max_running_is_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("max_queued__isnull", True), ("max_queued__gte", 1), _connector="OR"),
                        name="tenant_q_max_queued_is_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("max_results__isnull", True), ("max_results__gte", 1), _connector="OR"),
                        name="tenant_q_max_results_is_positive",
                    ),
                ],
            },
        ),
    ]
