"""The fixture of the chaos tests of workflows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from tests.chaos import points
from tests.chaos import workflows as flows
from tests.chaos.field import SCHEMA, Field


@pytest.fixture
def battle(tenants, mscluster, tmp_path) -> Iterator[Field]:
    points.prepare(tmp_path)
    with connection.cursor() as cursor:
        cursor.execute(flows.CREATE.format(SCHEMA))
    yield Field(tmp_path, mscluster)
    connection.set_schema_to_public()
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {SCHEMA}.{flows.EFFECTS}")
