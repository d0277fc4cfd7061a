"""The series for Prometheus: the names, the bound on labels, counters that never go back, and who may ask."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.http import Http404
from django.test import RequestFactory
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tenant_q import views
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message, Settled
from tenant_q.exceptions import BrokerError
from tenant_q.operations.metrics import SiteCollector, registry
from tenant_q.tenancy import in_schema
from tests.documents import DOCS, rows
from tests.documents import names as names_in

REFERENCE = DOCS / "reference/metrics.md"
DASHBOARD = DOCS / "grafana/tenant_q.json"


def run(schema: str, count: int, func: str = "f", **settled: Any) -> None:
    broker = get_broker()
    broker.enqueue([Message(id=f"{schema}-{func}-{n}", schema=schema, func=func, payload="x") for n in range(count)])
    while leases := broker.fetch("w1").leases:
        broker.acknowledge("w1", [Settled(lease, **({"seconds": 0.01, "waited": 0.5} | settled)) for lease in leases])


def told() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples by name and labels."""
    return samples(generate_latest(registry()).decode())


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    by_key = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(by_key) == len(found), "no series twice"
    return by_key


def value(found: Any, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def test_what_is_told(tenants):
    run("acme_corp", 4)
    run("acme_corp", 1, func="g", failed=True, seconds=100.0)
    get_broker().enqueue([Message(id="q", schema="globex_inc", func="f", payload="x")])
    found = told()
    assert value(found, "tenant_q_tasks_total", schema="acme_corp", outcome="done") == 4
    assert value(found, "tenant_q_tasks_total", schema="acme_corp", outcome="failed") == 1
    assert value(found, "tenant_q_function_tasks_total", func="g", outcome="failed") == 1
    assert value(found, "tenant_q_task_wait_seconds_count", schema="acme_corp") == 5
    assert value(found, "tenant_q_task_wait_seconds_sum", schema="acme_corp") == 2.5
    assert value(found, "tenant_q_function_run_seconds_bucket", func="f", le="0.016") == 4
    assert value(found, "tenant_q_function_run_seconds_bucket", func="f", le="0.004") == 0
    assert value(found, "tenant_q_function_run_seconds_bucket", func="g", le="+Inf") == 1
    assert value(found, "tenant_q_packages", schema="globex_inc", place="queued") == 1
    assert value(found, "tenant_q_tenants") == 3
    assert value(found, "tenant_q_stale_acks_total") == 0


def test_the_rest_is_other_and_no_counter_goes_back(tenants, settings):
    settings.TENANT_Q = {"metrics_labels": 2}
    run("acme_corp", 3)
    run("globex_inc", 2, func="g")
    run("initech_llc", 1, func="h")
    first = told()
    assert value(first, "tenant_q_tasks_total", schema="other", outcome="done") == 1
    assert value(first, "tenant_q_function_tasks_total", func="other", outcome="done") == 1
    run("initech_llc", 20, func="i")
    run("elsewhere", 1, func="j")
    second = told()
    named = {dict(labels)["schema"] for name, labels in second if name == "tenant_q_tasks_total"}
    assert named == {"acme_corp", "globex_inc", "other"}, "who has series of its own keeps them"
    assert value(second, "tenant_q_tasks_total", schema="other", outcome="done") == 22
    counters = {key for key in first if key[0].endswith(("_total", "_count", "_bucket", "_sum"))}
    assert counters <= set(second)
    assert all(second[key] >= first[key] for key in counters)


def test_a_tenant_that_was_dropped_makes_room_for_a_new_one(tenants, settings, monkeypatch):
    settings.TENANT_Q = {"metrics_labels": 2}
    run("acme_corp", 3)
    run("globex_inc", 2)
    run("initech_llc", 1)
    assert value(told(), "tenant_q_tasks_total", schema="other", outcome="done") == 1
    left = ["acme_corp", "initech_llc"]
    monkeypatch.setattr("tenant_q.operations.site.tenancy.tenant_names", lambda: left)
    found = told()
    assert value(found, "tenant_q_tasks_total", schema="globex_inc", outcome="done") == 2, "it ran in the last hour"
    monkeypatch.setattr("tenant_q.brokers.redis.RedisBroker.loads", lambda broker: {})
    left.append("new_inc")
    assert value(told(), "tenant_q_tasks_total", schema="other", outcome="done") == 3
    run("new_inc", 4)
    found = told()
    assert value(found, "tenant_q_tasks_total", schema="new_inc", outcome="done") == 4
    assert value(found, "tenant_q_tasks_total", schema="acme_corp", outcome="done") == 3
    assert value(found, "tenant_q_tasks_total", schema="other", outcome="done") == 3
    settings.TENANT_Q = {"metrics_labels": 1}
    found = told()
    assert value(found, "tenant_q_tasks_total", schema="new_inc", outcome="done") == 4, "the busiest"
    assert value(found, "tenant_q_tasks_total", schema="other", outcome="done") == 6


def test_a_tenant_may_be_called_other(tenants, settings):
    settings.TENANT_Q = {"metrics_labels": 1}
    run("other", 3)
    run("acme_corp", 2)
    found = told()
    assert value(found, "tenant_q_tasks_total", schema="other", outcome="done") == 5
    assert value(found, "tenant_q_task_wait_seconds_count", schema="other") == 5


def test_the_names_of_metrics_are_in_the_reference_and_in_the_dashboard(tenants):
    families = {metric.name: metric for metric in SiteCollector().collect()}
    run("acme_corp", 1)
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    names = {f"{name}{ending}" for name, metric in families.items() for ending in endings[metric.type]}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= 15
    used = {name for expression in asked for name in re.findall(r"tenant_q_\w+", expression)}
    assert used <= names
    listed = {row[0].strip("`"): names_in(row[1]) for row in rows(REFERENCE.read_text())}
    assert listed == {
        f"{name}_total" if metric.type == "counter" else name: labels_of(metric) for name, metric in families.items()
    }


def labels_of(metric: Any) -> set[str]:
    """Also of one that has no sample yet."""
    return set(metric._labelnames)


@pytest.mark.seam
def test_the_view_answers_on_the_public_site_only(tenants):
    run("acme_corp", 1)
    request = RequestFactory().get("/metrics/")
    response = views.metrics(request)
    assert response.status_code == 200 and response["Content-Type"].startswith("text/plain")
    assert value(samples(response.content.decode()), "tenant_q_tenants") == 3
    with in_schema("acme_corp"), pytest.raises(Http404):
        views.metrics(request)


def test_the_view_says_that_the_broker_is_away(tenants, monkeypatch):
    def away() -> Any:
        raise BrokerError("Redis at nowhere does not serve")

    monkeypatch.setattr("tenant_q.operations.metrics.read_site", away)
    response = views.metrics(RequestFactory().get("/metrics/"))
    assert response.status_code == 503 and b"Redis at nowhere" in response.content
