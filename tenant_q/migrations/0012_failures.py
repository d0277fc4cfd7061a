"""The index of the failures of all tenants, and the functions of its triggers.

Those of the index of schedules are replaced too, by ones that know these triggers. They keep their names and signatures,
so that clusters of the previous version go on with them.
"""

from typing import Any

from django.db import migrations, models

from tenant_q import tenancy
from tenant_q.schedules.index_statements import functions_of, index_functions

FUNCTIONS = (
    "tenant_q_index_failure()",
    "tenant_q_failure_change(text, oid, text, text, text[], text[])",
    "tenant_q_doubt_failures(text)",
    "tenant_q_install_failure_triggers(text)",
    "tenant_q_install_failures(text)",
    "tenant_q_sweep_failures(text, integer)",
    "tenant_q_stale_failure_schemas()",
    "tenant_q_forget_failures(text)",
    "tenant_q_failure_errors(text)",
)


def make_functions(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(index_functions().as_string(), params=None)
    schema_editor.execute(functions_of("failure_index").as_string(), params=None)


def drop_functions(apps: Any, schema_editor: Any) -> None:
    public = tenancy.public_schema().replace('"', '""')
    for function in FUNCTIONS:
        schema_editor.execute(f'DROP FUNCTION IF EXISTS "{public}".{function} CASCADE', params=None)


class Migration(migrations.Migration):

    dependencies = [
        ('tenant_q', '0011_tenant_roles'),
    ]

    operations = [
        migrations.CreateModel(
            name='Failure',
            fields=[
                ('pk', models.CompositePrimaryKey('schema_name', 'task_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('schema_name', models.CharField(max_length=63, verbose_name='schema')),
                ('task_id', models.CharField(max_length=32, verbose_name='task')),
                ('func', models.CharField(max_length=256, verbose_name='function')),
                ('cause', models.CharField(blank=True, default='', max_length=100, verbose_name='cause')),
                ('schedule', models.CharField(blank=True, default='', max_length=100, verbose_name='schedule')),
                ('attempts', models.IntegerField(default=0, verbose_name='attempts')),
                ('stopped', models.DateTimeField(verbose_name='stopped')),
                ('again', models.CharField(blank=True, default='', max_length=32, verbose_name='run again as')),
                ('is_pending', models.BooleanField(default=True, verbose_name='pending')),
            ],
            options={
                'verbose_name': 'failure',
                'verbose_name_plural': 'failures',
                'default_permissions': (),
                'indexes': [models.Index(condition=models.Q(('again', '')), fields=['cause', 'func', 'stopped'], name='tenant_q_failed_like'), models.Index(condition=models.Q(('again', '')), fields=['stopped'], name='tenant_q_failed_at'), models.Index(condition=models.Q(('is_pending', True)), fields=['schema_name'], name='tenant_q_failed_pending')],
            },
        ),
        migrations.CreateModel(
            name='IndexedFailures',
            fields=[
                ('schema_name', models.CharField(max_length=63, primary_key=True, serialize=False, verbose_name='schema')),
                ('table_oid', models.BigIntegerField(verbose_name='table')),
                ('swept', models.CharField(max_length=32, null=True, verbose_name='swept')),
            ],
            options={
                'verbose_name': 'schema with indexed failures',
                'verbose_name_plural': 'schemas with indexed failures',
                'indexes': [models.Index(condition=models.Q(('swept__isnull', False)), fields=['schema_name'], name='tenant_q_unswept')],
            },
        ),
        migrations.RunPython(make_functions, drop_functions),
    ]
