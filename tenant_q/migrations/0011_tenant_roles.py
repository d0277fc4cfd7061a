"""The database roles of tenants, and the operations on tenants that have not ended."""

import tenant_q.tenancy.names
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenant_q', '0010_run_index'),
    ]

    operations = [
        migrations.CreateModel(
            name='TenantOperation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('schema_name', models.CharField(max_length=63, unique=True, verbose_name='schema')),
                ('kind', models.CharField(max_length=20, verbose_name='kind')),
                ('step', models.CharField(blank=True, max_length=50, verbose_name='step')),
                ('arguments', models.JSONField(default=dict, verbose_name='arguments')),
                ('actor', models.CharField(max_length=150, verbose_name='actor')),
                ('started', models.DateTimeField(auto_now_add=True, verbose_name='started')),
            ],
            options={
                'verbose_name': 'operation on a tenant',
                'verbose_name_plural': 'operations on tenants',
            },
        ),
        migrations.CreateModel(
            name='TenantRole',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('schema_name', models.CharField(max_length=63, unique=True, validators=[tenant_q.tenancy.names.validate_schema_name], verbose_name='schema')),
                ('role', models.CharField(max_length=63, unique=True, verbose_name='role')),
                ('version', models.PositiveIntegerField(default=1, help_text='The version of its password.', verbose_name='version')),
                ('state', models.CharField(choices=[('provisioning', 'being provisioned'), ('active', 'active'), ('repair', 'to be repaired'), ('leaving', 'leaving')], db_index=True, default='provisioning', max_length=20, verbose_name='state')),
                ('connection_limit', models.IntegerField(blank=True, help_text='The most sessions at once. Empty: no limit.', null=True, verbose_name='connection limit')),
                ('problem', models.TextField(blank=True, help_text='Why it is to be repaired.', verbose_name='problem')),
                ('probed', models.DateTimeField(null=True, verbose_name='last probe')),
                ('crossings', models.PositiveIntegerField(help_text='What the last probe found open.', null=True, verbose_name='crossings')),
            ],
            options={
                'verbose_name': 'role of a tenant',
                'verbose_name_plural': 'roles of tenants',
            },
        ),
    ]
