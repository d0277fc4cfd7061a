"""Whose queue a process uses: the project's, or that of its tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django_q.brokers import get_broker as django_q_broker

from tenant_q import tenancy
from tenant_q.brokers import get_broker, get_impatient_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import work

ACME = "acme_corp"


@pytest.fixture
def in_test_database(tenants, monkeypatch) -> Iterator[str]:
    """The settings named another database, before the test environment replaced it by the one in use."""
    monkeypatch.setattr("tenant_q.tenancy.testing._configured", "real")
    name: str = connection.settings_dict["NAME"]
    yield name
    broker: Any = get_broker()
    for key in broker.client.scan_iter(f"{broker.tag}*"):
        broker.client.delete(key)


def test_a_test_database_that_is_the_configured_one_changes_nothing(tenants):
    assert tenancy.database_of_tests() is None
    assert get_broker().tag == f"{{tq:{get_broker().cluster}}}"


def test_every_broker_of_a_test_has_the_databases_name(in_test_database):
    brokers: list[Any] = [get_broker(), get_impatient_broker(), django_q_broker().inner, get_broker("other")]
    for broker in brokers:
        assert broker.tag == f"{{tq:{broker.cluster}--{in_test_database}}}"
        assert broker._site_tag == f"{{tq:{get_broker().cluster}--{in_test_database}}}"


def test_a_broker_that_was_there_before_is_not_used_in_the_test(tenants, monkeypatch):
    before = get_broker()
    monkeypatch.setattr("tenant_q.tenancy.testing._configured", "real")
    assert get_broker() is not before and get_broker() is get_broker()
    monkeypatch.undo()
    assert get_broker().tag == f"{{tq:{get_broker().cluster}}}"


def test_without_a_test_environment_no_name_changes(tenants, monkeypatch):
    """As when `connection.settings_dict` was changed by whatever else."""
    monkeypatch.setattr("tenant_q.tenancy.testing._configured", "real")
    monkeypatch.delattr("django.test.utils._TestState.saved_data")
    assert tenancy.database_of_tests() is None


def test_cached_results_and_groups_are_apart(in_test_database, worker, monkeypatch):
    with in_schema(ACME):
        single = QUtilities.add_async_task("tests.tasks.add", 1, cached=60)
        grouped = QUtilities.add_async_task("tests.tasks.add", 2, cached=60, group="g")
    get_broker()
    worker.broker = worker.completer.broker = worker.returns.broker = get_broker()
    work(worker)

    def found() -> Any:
        results = [QUtilities.get_result(id, cached=True, schema_name=ACME) for id in (single, grouped)]
        return [*results, QUtilities.get_group_count("g", cached=True, schema_name=ACME)]

    assert found() == [1, 2, 1]
    monkeypatch.setattr("tenant_q.tenancy.testing._configured", in_test_database)
    assert found() == [None, None, 0]
    monkeypatch.setattr("tenant_q.tenancy.testing._configured", "real")
    QUtilities.delete_task_from_cache(single, schema_name=ACME)
    QUtilities.delete_task_group("g", cached=True, schema_name=ACME)


def test_test_queue_serves_the_tests_of_the_configured_database(tenants, settings):
    settings.TENANT_Q = {"test_queue": True}
    name = connection.settings_dict["NAME"]
    assert tenancy.database_of_tests() == name
    assert get_broker().tag == f"{{tq:{get_broker().cluster}--{name}}}"


def test_production_imports_no_test_code():
    """Looking a broker up is on the way of each task, and a worker imports the rest of a cluster."""
    code = "import django, sys; django.setup(); from tenant_q.brokers import get_broker; get_broker(); " + (
        "import tenant_q.cluster.parent, tenant_q.utils, tenant_q.custom; "
        "print([name for name in sys.modules if name.startswith(('django.test', 'tenant_q.testing', 'pytest'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stdout + done.stderr
