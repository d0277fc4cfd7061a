"""Functions that are safe where a hostile role owns a tenant's tables, in the place of those of before.

Their names and signatures are the same, so that a cluster of the version before works on with them, and so do the
triggers on the tenants' tables. Going back leaves them as they are: 0003 removes them.
"""

from typing import Any

from django.db import migrations

from tenant_q import tenancy
from tenant_q.schedules.index_statements import index_functions


def replace_functions(apps: Any, schema_editor: Any) -> None:
    public = tenancy.public_schema().replace('"', '""')
    schema_editor.execute(index_functions().as_string(), params=None)
    schema_editor.execute(
        f'DROP FUNCTION IF EXISTS "{public}".tenant_q_index_change(text, text, jsonb, jsonb)', params=None
    )


class Migration(migrations.Migration):
    dependencies = [
        ("tenant_q", "0004_admin_pages"),
    ]

    operations = [
        migrations.RunPython(replace_functions, migrations.RunPython.noop),
    ]
