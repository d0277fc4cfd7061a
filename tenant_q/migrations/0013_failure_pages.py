"""The page of all tenants' failures, with its permissions."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenant_q', '0012_failures'),
    ]

    operations = [
        migrations.CreateModel(
            name='FailedTask',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
            ],
            options={
                'verbose_name': 'failure',
                'verbose_name_plural': 'failures',
                'managed': False,
                'default_permissions': ('view', 'change', 'delete'),
            },
        ),
    ]
