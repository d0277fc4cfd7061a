"""Let Django-Q2's own monitor commands count the rows of all tenants."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_q.models import Schedule, Task
from psycopg import sql

from tenant_q import tenancy
from tenant_q.exceptions import TenantQError
from tenant_q.sql import statement
from tenant_q.support.visible import visible


class OverTenants:
    """A mixin for a command of Django-Q2, which then counts the rows of all tenants, or with `--schema` of one."""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)  # type: ignore[misc]
        parser.add_argument("--schema", help="Count the rows of this tenant only.")

    def handle(self, *args: Any, **options: Any) -> None:
        schema = options.pop("schema")
        try:
            if schema:
                with tenancy.in_schema(schema):
                    super().handle(*args, **options)  # type: ignore[misc]
            else:
                if not options.get("ids") and not options.get("config"):  # with these options it counts no rows
                    show_all_tenants()
                super().handle(*args, **options)  # type: ignore[misc]
        except TenantQError as error:
            raise CommandError(visible(str(error))) from error


def show_all_tenants() -> None:
    """Let Django-Q2's commands see all tenants' rows, by a temporary view over each of its tables in this session.

    PostgreSQL looks for temporary relations first, so Django-Q2's own queries find the views.
    """
    with tenancy.as_owner_in_public(), tenancy.tenant_connection().cursor() as cursor:
        for model in (Task, Schedule):
            table = model._meta.db_table
            schemas = _schemas_with(cursor, table, _schemas())
            columns = sql.SQL(", ").join(sql.Identifier(field.column) for field in model._meta.fields)
            selects = [
                sql.SQL("SELECT {columns} FROM {table}").format(columns=columns, table=sql.Identifier(schema, table))
                for schema in schemas
            ]
            if selects:
                view = sql.SQL("CREATE OR REPLACE TEMPORARY VIEW {name} AS {body}").format(
                    name=sql.Identifier(table), body=sql.SQL(" UNION ALL ").join(selects)
                )
                cursor.execute(view.as_string(None))


def _schemas() -> list[str]:
    names = (
        tenancy.tenant_model()._default_manager.using(tenancy.database_alias()).values_list("schema_name", flat=True)
    )
    return [tenancy.physical_schema(name) for name in names]


def _schemas_with(cursor: Any, table: str, schemas: list[str]) -> list[str]:
    """Return the schemas that have a table which Django-Q2's commands count."""
    query = sql.SQL(statement("tables_to_read")).format(
        schemas=sql.Literal(schemas),
        table=sql.Literal(table),
        foreign=tenancy.is_foreign_query(sql.SQL("asked.name")),
        code=sql.Identifier(tenancy.public_schema(), "tenant_q_foreign_code"),
    )
    cursor.execute(query.as_string(None).replace("%", "%%"), [])
    return [name for (name,) in cursor.fetchall()]
