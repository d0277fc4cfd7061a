"""A fixture for pytest. Name it in `conftest.py`: `pytest_plugins = ["tenant_q.testing.pytest_plugin"]`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenant_q.testing.collecting import TaskCollector, collect_tasks


@pytest.fixture
def collected_tasks() -> Iterator[TaskCollector]:
    """Collect the tasks that the test enqueues, instead of putting them on the queue."""
    with collect_tasks() as tasks:
        yield tasks
