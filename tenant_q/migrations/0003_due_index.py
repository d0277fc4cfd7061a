from typing import Any

from django.db import migrations, models
from psycopg import sql

from tenant_q import tenancy
from tenant_q.schedules.index_statements import index_functions

FUNCTIONS = (
    "tenant_q_index_schedule()",
    "tenant_q_index_change(text, text, jsonb, jsonb)",
    "tenant_q_index_change(text, oid, text, text, text, text)",
    "tenant_q_index_query(text, oid, text, text)",
    "tenant_q_install_index(text)",
    "tenant_q_stale_schemas()",
    "tenant_q_forget_schema(text)",
    "tenant_q_index_errors(text)",
    "tenant_q_install_triggers(text)",
    "tenant_q_foreign_code(text)",
    "tenant_q_require_plain(text[], text[])",
)


def public() -> sql.Identifier:
    return sql.Identifier(tenancy.public_schema())


def make_functions(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(index_functions().as_string(), params=None)


def drop_functions(apps: Any, schema_editor: Any) -> None:
    for function in FUNCTIONS:
        schema_editor.execute(f"DROP FUNCTION IF EXISTS {public().as_string()}.{function} CASCADE", params=None)


class Migration(migrations.Migration):
    dependencies = [
        ("tenant_q", "0002_policies"),
    ]

    operations = [
        migrations.CreateModel(
            name="DueSchedule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("schema_name", models.CharField(max_length=63, verbose_name="schema")),
                ("schedule_id", models.BigIntegerField(verbose_name="schedule")),
                ("cluster", models.CharField(blank=True, max_length=100, verbose_name="cluster")),
                ("next_run", models.DateTimeField(verbose_name="next run")),
                ("due", models.DateTimeField(null=True, verbose_name="due")),
                ("held", models.CharField(blank=True, max_length=20, verbose_name="held because")),
            ],
            options={
                "verbose_name": "due schedule",
                "verbose_name_plural": "due schedules",
                "indexes": [models.Index(fields=["cluster", "due"], name="tenant_q_due")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("schema_name", "schedule_id"), name="tenant_q_one_entry_a_schedule"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="IndexedSchema",
            fields=[
                (
                    "schema_name",
                    models.CharField(max_length=63, primary_key=True, serialize=False, verbose_name="schema"),
                ),
                ("table_oid", models.BigIntegerField(verbose_name="table")),
            ],
            options={"verbose_name": "indexed schema", "verbose_name_plural": "indexed schemas"},
        ),
        migrations.RunPython(make_functions, drop_functions),
    ]
