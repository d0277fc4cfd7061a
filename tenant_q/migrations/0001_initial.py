from django.db import migrations, models

class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="GroupPart",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("schema_name", models.CharField(max_length=63, verbose_name="schema")),
                ("group", models.CharField(max_length=100, verbose_name="group")),
                ("index", models.CharField(max_length=64, verbose_name="index")),
                ("payload", models.TextField(verbose_name="signed part")),
                ("expires", models.DateTimeField(db_index=True, null=True, verbose_name="expires")),
            ],
            options={
                "verbose_name": "group part",
                "verbose_name_plural": "group parts",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("schema_name", "group", "index"), name="tenant_q_one_part_an_index"
                    )
                ],
            },
        ),
    ]
