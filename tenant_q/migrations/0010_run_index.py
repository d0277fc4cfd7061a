"""The functions of the index of workflow runs.

Those of the index of schedules are replaced too, by ones that also check a tenant's tables of workflows for foreign code.
They keep their names and signatures, so that clusters of the previous version go on with them.
"""

from typing import Any

from django.db import migrations, models

from tenant_q import tenancy
from tenant_q.schedules.index_statements import functions_of, index_functions

FUNCTIONS = (
    "tenant_q_index_run()",
    "tenant_q_run_change(text, oid, text, text, text[], text[])",
    "tenant_q_doubt_runs(text)",
    "tenant_q_install_run_triggers(text)",
    "tenant_q_install_runs(text)",
    "tenant_q_stale_run_schemas()",
    "tenant_q_forget_runs(text)",
    "tenant_q_run_errors(text)",
)


def make_functions(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(index_functions().as_string(), params=None)
    schema_editor.execute(functions_of("run_index").as_string(), params=None)


def drop_functions(apps: Any, schema_editor: Any) -> None:
    public = tenancy.public_schema().replace('"', '""')
    for function in FUNCTIONS:
        schema_editor.execute(f'DROP FUNCTION IF EXISTS "{public}".{function} CASCADE', params=None)


class Migration(migrations.Migration):
    dependencies = [("tenant_q", "0009_workflows")]

    operations = [
        migrations.AddField("DueWorkflow", "look_at", models.DateTimeField(null=True, verbose_name="next look")),
        migrations.AddIndex(
            "DueWorkflow",
            models.Index(
                fields=["cluster"],
                condition=models.Q(("state__in", ["pending", "running", "cancelling"])),
                name="tenant_q_open_runs",
            ),
        ),
        migrations.RunPython(make_functions, drop_functions),
    ]
