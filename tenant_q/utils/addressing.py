"""Enter the schema that a call addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tenant_q.tenancy import current_schema, in_verified_schema, public_schema, task_schema, verify


@contextmanager
def addressed(schema_name: str | None) -> Iterator[str]:
    """Run a block in the schema that a call addresses, which is verified, and yield its name.

    Args:
        schema_name: The schema of the tenant; None for the current one.
    """
    schema = task_schema(schema_name)
    if schema == current_schema():
        if schema != public_schema():
            verify(schema)  # otherwise a table that is missing there would be found, written or emptied in `public`
        yield schema
    else:
        with in_verified_schema(schema):
            yield schema
