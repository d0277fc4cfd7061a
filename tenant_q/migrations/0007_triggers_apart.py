"""Replace the functions of the due index's triggers by ones that do not couple tenants.

As in 0005 they keep their names and signatures, so that clusters of the previous version go on with them.
"""

from typing import Any

from django.db import migrations

from tenant_q.schedules.index_statements import index_functions


def replace_functions(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(index_functions().as_string(), params=None)


class Migration(migrations.Migration):
    dependencies = [("tenant_q", "0006_tenant_records")]

    operations = [migrations.RunPython(replace_functions, migrations.RunPython.noop)]
