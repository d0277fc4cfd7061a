

import django.db.models.lookups
import tenant_q.tenancy.names
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenant_q', '0008_code_schedules'),
    ]

    operations = [
        migrations.CreateModel(
            name='BrokerEpoch',
            fields=[
                ('cluster', models.CharField(max_length=100, primary_key=True, serialize=False, verbose_name='cluster')),
                ('number', models.BigIntegerField(default=0, verbose_name='number')),
                ('written', models.BigIntegerField(default=0, verbose_name='written')),
            ],
            options={
                'verbose_name': 'epoch of a broker',
                'verbose_name_plural': 'epochs of brokers',
            },
        ),
        migrations.CreateModel(
            name='IndexedRuns',
            fields=[
                ('schema_name', models.CharField(max_length=63, primary_key=True, serialize=False, verbose_name='schema')),
                ('table_oid', models.BigIntegerField(verbose_name='table')),
            ],
            options={
                'verbose_name': 'schema with indexed runs',
                'verbose_name_plural': 'schemas with indexed runs',
            },
        ),
        migrations.CreateModel(
            name='TenantConfiguration',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('schema_name', models.CharField(max_length=63, unique=True, validators=[tenant_q.tenancy.names.validate_schema_name], verbose_name='schema')),
                ('display_name', models.CharField(blank=True, max_length=200, verbose_name='display name')),
                ('settings', models.JSONField(blank=True, default=dict, verbose_name='settings')),
                ('features', models.JSONField(blank=True, default=dict, verbose_name='features')),
                ('limits', models.JSONField(blank=True, default=dict, help_text="max_items, max_open_workflows and max_connections are whole numbers; others are the project's.", verbose_name='limits')),
            ],
            options={
                'verbose_name': 'tenant configuration',
                'verbose_name_plural': 'tenant configurations',
                'db_table': 'tenant_q_tenantconfig',
                'constraints': [
                    models.CheckConstraint(condition=django.db.models.lookups.Exact(models.Func(models.F('settings'), function='jsonb_typeof', output_field=models.TextField()), models.Value('object')), name='tenant_q_settings_is_an_object'),
                    models.CheckConstraint(condition=django.db.models.lookups.Exact(models.Func(models.F('features'), function='jsonb_typeof', output_field=models.TextField()), models.Value('object')), name='tenant_q_features_is_an_object'),
                    models.CheckConstraint(condition=django.db.models.lookups.Exact(models.Func(models.F('limits'), function='jsonb_typeof', output_field=models.TextField()), models.Value('object')), name='tenant_q_limits_is_an_object'),
                    models.CheckConstraint(
                        condition=models.Q(models.Func(models.F('limits'), models.Value('strict $ ? (@.type() == "object").keyvalue() ? ((@.key == "max_items" || @.key == "max_open_workflows" || @.key == "max_connections") && @.value != null && !(@.value.type() == "number" && @.value >= 1 && @.value.floor() == @.value))'), function='jsonb_path_exists', output_field=models.BooleanField()), _negated=True),
                        name='tenant_q_known_limits_are_counts',
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name='DueWorkflow',
            fields=[
                ('pk', models.CompositePrimaryKey('schema_name', 'run', blank=True, editable=False, primary_key=True, serialize=False)),
                ('schema_name', models.CharField(max_length=63, verbose_name='schema')),
                ('run', models.CharField(max_length=32, verbose_name='run')),
                ('cluster', models.CharField(max_length=100, verbose_name='cluster')),
                ('state', models.CharField(max_length=12, verbose_name='state')),
                ('due', models.DateTimeField(null=True, verbose_name='due')),
            ],
            options={
                'verbose_name': 'due workflow run',
                'verbose_name_plural': 'due workflow runs',
                'db_table': 'tenant_q_dueworkflow',
                'indexes': [models.Index(fields=['cluster', 'due'], name='tenant_q_due_runs')],
            },
        ),
    ]
