"""Tenants whose database roles PostgreSQL keeps apart."""

import pytest

pytest.register_assert_rewrite("tests.isolated.scene")
