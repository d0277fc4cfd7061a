from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenant_q", "0013_failure_pages")]

    operations = [
        migrations.CreateModel(
            name=name,
            fields=[("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))],
            options={
                "verbose_name": label,
                "verbose_name_plural": label,
                "managed": False,
                "default_permissions": ("view",),
            },
        )
        for name, label in (("Overview", "overview"), ("SiteOverview", "overview of all tenants"))
    ]
