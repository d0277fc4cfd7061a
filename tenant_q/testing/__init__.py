"""Test tasks without a cluster and without Redis: collect what is enqueued, assert it, and run it in its schema.

Nothing in production imports this package.
"""

from tenant_q.testing.collecting import CollectedTask, TaskCollector, collect_tasks
from tenant_q.testing.mixins import CollectTasksMixin

__all__ = ["CollectTasksMixin", "CollectedTask", "TaskCollector", "collect_tasks"]
