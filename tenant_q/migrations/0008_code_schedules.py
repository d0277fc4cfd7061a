from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenant_q", "0007_triggers_apart")]

    operations = [
        migrations.CreateModel(
            name="ScheduleRelease",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("site", models.CharField(max_length=100, verbose_name="site")),
                ("label", models.CharField(max_length=100, verbose_name="release")),
                ("is_given", models.BooleanField(verbose_name="given")),
                ("first_seen", models.DateTimeField(verbose_name="first seen")),
                ("last_seen", models.DateTimeField(verbose_name="last seen")),
            ],
            options={
                "verbose_name": "release of schedules",
                "verbose_name_plural": "releases of schedules",
                "constraints": [
                    models.UniqueConstraint(fields=("site", "label"), name="tenant_q_one_row_a_release"),
                ],
            },
        ),
        migrations.CreateModel(
            name="CodeSchedule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("site", models.CharField(max_length=100, verbose_name="site")),
                ("tenant", models.CharField(max_length=255, verbose_name="tenant's key")),
                ("name", models.CharField(max_length=100, verbose_name="name")),
                ("schedule_id", models.BigIntegerField(verbose_name="schedule")),
                ("withdrawn", models.DateTimeField(null=True, verbose_name="withdrawn")),
                ("was_paused", models.BooleanField(default=False, verbose_name="was paused")),
            ],
            options={
                "verbose_name": "schedule from code",
                "verbose_name_plural": "schedules from code",
                "constraints": [
                    models.UniqueConstraint(fields=("site", "tenant", "name"), name="tenant_q_one_schedule_a_name"),
                ],
            },
        ),
        migrations.CreateModel(
            name="SyncedTenant",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("site", models.CharField(max_length=100, verbose_name="site")),
                ("tenant", models.CharField(max_length=255, verbose_name="tenant's key")),
                ("fingerprint", models.CharField(max_length=64, verbose_name="fingerprint")),
                ("conflicts", models.PositiveIntegerField(default=0, verbose_name="conflicts")),
            ],
            options={
                "verbose_name": "synchronized tenant",
                "verbose_name_plural": "synchronized tenants",
                "constraints": [
                    models.UniqueConstraint(fields=("site", "tenant"), name="tenant_q_one_row_a_tenant"),
                ],
            },
        ),
    ]
