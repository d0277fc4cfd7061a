from typing import Any

from django.db import migrations, models

from tenant_q.tenancy import records


def note_tenants(apps: Any, schema_editor: Any) -> None:
    """Record the tenants there are: they are older than every package that names no tenant."""
    records.note_existing(apps.get_model("tenant_q", "TenantRecord"))


class Migration(migrations.Migration):
    dependencies = [("tenant_q", "0005_safe_functions")]

    operations = [
        migrations.AddField(
            model_name="grouppart",
            name="tenant",
            field=models.CharField(blank=True, db_default="", max_length=255, verbose_name="tenant's key"),
        ),
        migrations.RemoveConstraint(model_name="grouppart", name="tenant_q_one_part_an_index"),
        migrations.AddConstraint(
            model_name="grouppart",
            constraint=models.UniqueConstraint(
                fields=("schema_name", "tenant", "group", "index"), name="tenant_q_one_part_an_index"
            ),
        ),
        migrations.CreateModel(
            name="TenantRecord",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=255, unique=True, verbose_name="tenant's key")),
                ("schema_name", models.CharField(db_index=True, max_length=63, verbose_name="schema")),
                ("former_names", models.JSONField(blank=True, default=list, verbose_name="former names")),
                ("since", models.DateTimeField(null=True, verbose_name="since")),
                ("deleted", models.DateTimeField(db_index=True, null=True, verbose_name="deleted")),
                ("cleared", models.DateTimeField(null=True, verbose_name="cleared")),
            ],
            options={"verbose_name": "tenant record", "verbose_name_plural": "tenant records"},
        ),
        migrations.RunPython(note_tenants, migrations.RunPython.noop),
    ]
