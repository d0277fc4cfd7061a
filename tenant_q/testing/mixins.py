"""A mixin for test cases of Django and of the tenancy packages."""

from __future__ import annotations

import unittest

from tenant_q.testing.collecting import TaskCollector, collect_tasks


class CollectTasksMixin(unittest.TestCase):
    """Collects the tasks of each test as `self.tasks`. Name it before `TestCase`, `TenantTestCase` or another."""

    tasks: TaskCollector

    def setUp(self) -> None:
        super().setUp()
        self.tasks = self.enterContext(collect_tasks())
