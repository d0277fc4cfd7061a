"""A project's own tests, run by `test_test_queue.py` under Django's runner. They are no tests of this suite."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection
from django.test import TestCase
from django_q.tasks import async_task

from tenant_q.brokers import get_broker
from tenant_q.custom import Chain
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities

MANAGE = Path(__file__).parent.parent.parent / "testproject" / "manage.py"
NAME = "acme_corp"


def setUpModule() -> None:
    call_command("setupdata", NAME, verbosity=0)


def tearDownModule() -> None:
    broker: Any = get_broker()
    for key in broker.client.scan_iter(f"{broker.tag}*"):
        broker.client.delete(key)


class BesideARealCluster(TestCase):
    """What a test enqueues waits in the test's own queue."""

    def test_tasks_wait(self) -> None:
        with in_schema(NAME):
            ids = [
                QUtilities.add_async_task("tests.tasks.note_where", os.environ["KEY"]),
                QUtilities.add_async_task("tests.tasks.note_where", os.environ["KEY"], cached=True),
                async_task("tests.tasks.note_where", os.environ["KEY"]),
            ]
            Chain([("tests.tasks.note_where", (os.environ["KEY"],))]).run()
            self.assertEqual(QUtilities.get_queue_size(), 4)
            self.assertEqual([QUtilities.get_status(id) for id in ids], ["queued"] * 3)
        database = connection.settings_dict["NAME"]
        self.assertTrue(database.startswith("test_"), database)
        self.assertEqual(get_broker().tag, f"{{tq:{os.environ['Q_NAME']}--{database}}}")


class WithAClusterOfItsOwn(TestCase):
    """A cluster that is started with the test database and `test_queue` serves the queue of the test."""

    def setUp(self) -> None:
        url, _, query = os.environ["DATABASE_URL"].partition("?")
        url = f"{url.rpartition('/')[0]}/{connection.settings_dict['NAME']}" + (f"?{query}" if query else "")
        own = {"DATABASE_URL": url, "TEST_TENANT_Q": '{"test_queue": true}', "DJANGO_SETTINGS_MODULE": "tests.settings"}
        command = [sys.executable, str(MANAGE), "mscluster", "--workers", "1"]
        self.cluster = subprocess.Popen(command, env=os.environ | own)
        self.addCleanup(self.cluster.wait, 60)
        self.addCleanup(self.cluster.terminate)

    def test_it_runs(self) -> None:
        with in_schema(NAME):
            id = QUtilities.add_async_task("tests.tasks.note_where", os.environ["KEY"])
            cached = QUtilities.add_async_task("tests.tasks.where", cached=60)
            self.assertEqual(QUtilities.get_result(id, wait=60_000)["schema"], NAME)
            self.assertEqual(QUtilities.get_result(cached, wait=60_000, cached=True)["schema"], NAME)


class InAParallelProcess(TestCase):
    """Each process of `test --parallel` has a database, and so a queue, of its own."""

    def _look(self) -> None:
        with in_schema(NAME):
            before = QUtilities.get_queue_size()
            QUtilities.add_async_task("tests.tasks.note_where", os.environ["KEY"])
            time.sleep(0.2)
            self.assertEqual(QUtilities.get_queue_size(), before + 1)
        print("TAG", get_broker().tag, flush=True)

    test_one = _look


class InAnotherParallelProcess(InAParallelProcess):
    pass
