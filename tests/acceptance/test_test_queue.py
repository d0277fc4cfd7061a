"""A project's tests beside its development cluster, which has a tenant of the same name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from typing import Any

import pytest

from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.conftest import MANAGE, wait_until

CASES = "tests.acceptance.queue_cases"
ACME = "acme_corp"
pytestmark = pytest.mark.seam


@pytest.fixture
def key(tenants) -> Any:
    key = f"test-queue-{uuid.uuid4().hex}"
    yield key
    tasks.client().delete(f"note:{key}")


def environment(settings: Any, key: str) -> dict[str, str]:
    own = {"Q_NAME": settings.Q_CLUSTER["name"], "KEY": key, "DJANGO_SETTINGS_MODULE": "config.settings"}
    return {**os.environ, **own}


def run_tests(settings: Any, key: str, *labels: str) -> str:
    """Run the project's tests with Django's runner. Returns what they say."""
    command = [sys.executable, str(MANAGE), "test", "--noinput", *labels]
    done = subprocess.run(command, env=environment(settings, key), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def settle_the_real_cluster() -> None:
    """The real cluster has run what was queued for the tenant before."""
    with in_schema(ACME):
        id = QUtilities.add_async_task("tests.tasks.where")
        assert QUtilities.get_result(id, wait=30_000)["schema"] == ACME


def test_a_real_cluster_runs_nothing_of_a_test(mscluster, settings, key):
    mscluster()
    run_tests(settings, key, f"{CASES}.BesideARealCluster")
    settle_the_real_cluster()
    assert tasks.notes(key) == []


def test_a_cluster_on_the_test_database_serves_the_test(mscluster, settings, key):
    mscluster()
    output = run_tests(settings, key, f"{CASES}.WithAClusterOfItsOwn")
    assert "serves the test queue of database 'test_" in output
    (note,) = wait_until(lambda: tasks.notes(key))
    assert note["schema"] == ACME
    settle_the_real_cluster()


def test_each_parallel_process_has_a_queue_of_its_own(mscluster, settings, key):
    mscluster()
    labels = [f"{CASES}.InAParallelProcess", f"{CASES}.InAnotherParallelProcess"]
    output = run_tests(settings, key, "--parallel", "2", *labels)
    assert {tag.rpartition("_")[2] for tag in re.findall(r"TAG {tq:\S+--test_\S+?_([12])}}?", output)} == {"1", "2"}, (
        output
    )
    settle_the_real_cluster()
    assert tasks.notes(key) == []


def test_the_test_projects_own_tests_pass_beside_a_cluster(mscluster, settings, key):
    mscluster()
    assert "OK" in run_tests(settings, key, "shop")


def test_so_it_is_with_pytest_django(mscluster, settings, key, tmp_path):
    mscluster()
    (tmp_path / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = config.settings\n")
    (tmp_path / "test_shop.py").write_text(
        textwrap.dedent(
            """
            import os
            import pytest
            from django.core.management import call_command
            from tenant_q.brokers import get_broker
            from tenant_q.tenancy import in_schema
            from tenant_q.utils import QUtilities

            @pytest.mark.django_db(transaction=True)
            def test_it():
                call_command("setupdata", "acme_corp", verbosity=0)
                with in_schema("acme_corp"):
                    QUtilities.add_async_task("tests.tasks.note_where", os.environ["KEY"])
                    assert QUtilities.get_queue_size() == 1
                assert "--test_" in get_broker().tag
                for key in get_broker().client.scan_iter(f"{get_broker().tag}*"):
                    get_broker().client.delete(key)
            """
        )
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    env = environment(settings, key)
    done = subprocess.run(command, env=env, cwd=Path(tmp_path), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    settle_the_real_cluster()
    assert tasks.notes(key) == []
