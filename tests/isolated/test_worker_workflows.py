"""Workflows under "role" and "login": as whom their steps act when a run fails, is resumed and is cancelled."""

from __future__ import annotations

import json
from functools import partial

import pytest

from tenant_q.utils import QUtilities
from tenant_q.workflows import Run
from tests.conftest import wait_until
from tests.isolated.flows_roles import flow
from tests.isolated.test_worker_roles import BOTH, adopt
from tests.tasks import note, notes

A, B = "acme_corp", "globex_inc"


@pytest.fixture
def roles(isolated_site, monkeypatch) -> dict[str, str]:
    monkeypatch.setenv("TEST_APPS", json.dumps(["tests.isolated.flows_roles.Flows"]))
    return {schema: adopt(schema) for schema in (A, B)}


def has_ended(run: Run, state: str | None = None) -> bool:
    found = run.refresh()
    return found.has_ended and state in (None, str(found.state))


@BOTH
def test_a_run_fails_and_is_resumed_as_its_tenants_role(isolated_site, roles):
    isolated_site.mscluster(workers=2)
    keys = {schema: f"{isolated_site.cluster}-{schema}" for schema in roles}
    runs = {
        schema: QUtilities.start_workflow(flow.path, {"key": key}, schema_name=schema) for schema, key in keys.items()
    }
    for schema, run in runs.items():
        wait_until(partial(has_ended, run), what="the first end")
        assert run.refresh().state == "failed"
        note(f"{keys[schema]}-go")
        run.refresh().resume()
    for schema, run in runs.items():
        wait_until(partial(has_ended, run, "succeeded"), what="the end")
        who, orders, again, *_, items = [run.refresh().results["fourth"][place] for place in (0, 1, 2, 3, 4)]
        assert (who, again) == (roles[schema],) * 2
        assert [one for one, _ in items] == [roles[schema]] * 3
        assert {one["who"][0] for one in notes(keys[schema])} == {roles[schema]}
        assert orders == 0


@BOTH
def test_a_run_is_cancelled(isolated_site, roles):
    key = isolated_site.cluster
    run = QUtilities.start_workflow(flow.path, {"key": key}, schema_name=A)
    run.cancel()
    isolated_site.mscluster(workers=1)
    wait_until(lambda: run.refresh().has_ended, what="the end")
    assert run.refresh().state == "cancelled"
    assert [(one["state"], one["who"][0]) for one in notes(key)] == [("cancelled", roles[A])]
