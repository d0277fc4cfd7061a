

from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='WorkflowSignal',
            fields=[
                ('pk', models.CompositePrimaryKey('run', 'name', blank=True, editable=False, primary_key=True, serialize=False)),
                ('run', models.CharField(max_length=32, verbose_name='run')),
                ('name', models.CharField(max_length=100, verbose_name='name')),
                ('payload', models.JSONField(null=True, verbose_name='payload')),
                ('at', models.DateTimeField(verbose_name='at')),
                ('by', models.CharField(blank=True, default='', max_length=150, verbose_name='by')),
            ],
            options={
                'verbose_name': 'signal to a run',
                'verbose_name_plural': 'signals to runs',
                'db_table': 'tenant_q_workflows_signal',
            },
        ),
        migrations.CreateModel(
            name='WorkflowRun',
            fields=[
                ('id', models.CharField(max_length=32, primary_key=True, serialize=False, verbose_name='id')),
                ('workflow', models.CharField(max_length=256, verbose_name='workflow')),
                ('version', models.CharField(max_length=32, verbose_name='version')),
                ('key', models.CharField(max_length=500, null=True, verbose_name='key')),
                ('cluster', models.CharField(max_length=100, verbose_name='cluster')),
                ('state', models.CharField(choices=[('pending', 'pending'), ('running', 'running'), ('cancelling', 'cancelling'), ('succeeded', 'succeeded'), ('failed', 'failed'), ('cancelled', 'cancelled')], max_length=12, verbose_name='state')),
                ('plan', models.JSONField(verbose_name='plan')),
                ('input', models.JSONField(verbose_name='input')),
                ('config', models.JSONField(verbose_name='configuration')),
                ('generation', models.IntegerField(default=1, verbose_name='generation')),
                ('parent', models.CharField(max_length=32, null=True, verbose_name='parent run')),
                ('parent_step', models.CharField(max_length=100, null=True, verbose_name='step of the parent run')),
                ('created', models.DateTimeField(verbose_name='created')),
                ('started', models.DateTimeField(null=True, verbose_name='started')),
                ('ended', models.DateTimeField(null=True, verbose_name='ended')),
                ('deadline', models.DateTimeField(null=True, verbose_name='deadline')),
                ('look_at', models.DateTimeField(null=True, verbose_name='next look')),
                ('error', models.TextField(blank=True, default='', verbose_name='error')),
                ('by', models.CharField(blank=True, default='', max_length=150, verbose_name='by')),
            ],
            options={
                'verbose_name': 'workflow run',
                'verbose_name_plural': 'workflow runs',
                'db_table': 'tenant_q_workflows_run',
                'indexes': [models.Index(fields=['state', 'created'], name='tenant_q_runs_by_state'), models.Index(fields=['created'], name='tenant_q_runs_by_age')],
                'constraints': [models.UniqueConstraint(fields=('workflow', 'key'), name='tenant_q_one_run_a_key')],
            },
        ),
        migrations.CreateModel(
            name='WorkflowStep',
            fields=[
                ('pk', models.CompositePrimaryKey('run', 'index', 'name', blank=True, editable=False, primary_key=True, serialize=False)),
                ('run', models.CharField(max_length=32, verbose_name='run')),
                ('name', models.CharField(max_length=100, verbose_name='step')),
                ('index', models.IntegerField(default=-1, verbose_name='index')),
                ('item', models.JSONField(null=True, verbose_name='item')),
                ('at_once', models.IntegerField(null=True, verbose_name='items at once')),
                ('generation', models.IntegerField(default=1, verbose_name='generation')),
                ('state', models.CharField(choices=[('waiting', 'waiting'), ('ready', 'ready'), ('parked', 'parked'), ('mapping', 'mapping'), ('succeeded', 'succeeded'), ('failed', 'failed'), ('skipped', 'skipped'), ('cancelled', 'cancelled')], max_length=12, verbose_name='state')),
                ('output', models.JSONField(null=True, verbose_name='output')),
                ('context', models.JSONField(null=True, verbose_name='context')),
                ('attempts', models.IntegerField(default=0, verbose_name='attempts')),
                ('error', models.TextField(blank=True, default='', verbose_name='error')),
                ('task_id', models.CharField(max_length=32, null=True, verbose_name='task')),
                ('wake_at', models.DateTimeField(null=True, verbose_name='starts again')),
                ('ready_at', models.DateTimeField(null=True, verbose_name='ready')),
                ('started', models.DateTimeField(null=True, verbose_name='started')),
                ('ended', models.DateTimeField(null=True, verbose_name='ended')),
            ],
            options={
                'verbose_name': 'step of a run',
                'verbose_name_plural': 'steps of runs',
                'db_table': 'tenant_q_workflows_step',
                'indexes': [models.Index(fields=['run', 'name', 'state', 'index'], name='tenant_q_steps_by_state')],
            },
        ),
    ]
