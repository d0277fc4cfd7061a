"""A project with the tenants acme_corp, globex_inc and initech_llc, and one cluster that runs while all tests do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connections

from tenant_q.cluster.reset import reset
from tests.conftest import RunningCluster, delete_keys, name_in_django_q
from tests.schemas import TENANTS, truncate

NAME = "first-steps"


@pytest.fixture(scope="package", autouse=True)
def cluster(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Run `python manage.py mscluster --workers 2`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "Q_CLUSTER", settings.Q_CLUSTER | {"name": NAME})
        name_in_django_q(NAME, patch)
        reset()
        truncate(TENANTS)
        log: Path = tmp_path_factory.mktemp("cluster") / "mscluster.log"
        running = RunningCluster("--workers", "2", env={"Q_NAME": NAME}, log=log)
        try:
            running.wait_for_workers(2)
            yield running
        finally:
            running.end()
            connections.close_all()
            delete_keys(NAME)
            reset()
