"""The pages "Test your tasks" and "Test a workflow": their tests pass in a project, without a cluster.

Those of tasks also pass without Redis.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MANAGE
from tests.documents import DOCS, blocks, write_files

NO_REDIS = "redis://127.0.0.1:1/0"
pytestmark = pytest.mark.seam


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pages = (DOCS / "how-to/test.md", DOCS / "how-to/test-workflows.md")
    write_files([block for page in pages for block in blocks(page) if block.file and not block.why_not], tmp_path)
    (tmp_path / "__init__.py").unlink(missing_ok=True)  # `conftest.py` is in the folder itself
    return tmp_path


def run(folder: Path, settings, *command: str, redis: str = NO_REDIS) -> str:
    env = {
        **os.environ,
        "Q_NAME": settings.Q_CLUSTER["name"],
        "REDIS_URL": redis,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]]),
    }
    done = subprocess.run(
        [sys.executable, *command], env=env, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_tests_of_the_page_pass_with_djangos_runner(tenants, settings, folder):
    output = run(folder, settings, str(MANAGE), "test", "--noinput", "billing.tests", "billing.tenant_tests")
    assert "Ran 6 tests" in output


def test_the_tests_of_the_page_pass_with_pytest_django(tenants, settings, folder):
    (folder / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = config.settings\n")
    assert "2 passed" in run(
        folder, settings, "-m", "pytest", "-q", "-p", "no:cacheprovider", "billing/test_invoices.py"
    )


def test_the_tests_of_workflows_pass_with_djangos_runner(tenants, settings, folder):
    output = run(folder, settings, str(MANAGE), "test", "--noinput", "shipping.tests", redis=os.environ["REDIS_URL"])
    assert "Ran 2 tests" in output


def test_the_tests_of_workflows_pass_with_pytest_django(tenants, settings, folder):
    (folder / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = config.settings\n")
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "shipping/test_quotes.py"]
    assert "1 passed" in run(folder, settings, *command, redis=os.environ["REDIS_URL"])
