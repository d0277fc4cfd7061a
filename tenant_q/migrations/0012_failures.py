"""The index of the failures of all tenants, and the functions of its triggers."""

from django.db import migrations, models


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
    ]
