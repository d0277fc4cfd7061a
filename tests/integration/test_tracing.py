"""Spans of OpenTelemetry: one for each task, linked to where it was enqueued; nothing where it is not set up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tenant_q.package.build import build
from tenant_q.package.envelope import seal
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import work

EXPORTER = InMemorySpanExporter()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What was exported. A process has one provider, for good."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
        trace.set_tracer_provider(provider)
    EXPORTER.clear()
    yield EXPORTER
    EXPORTER.clear()


@pytest.mark.seam
def test_a_task_has_a_span_that_is_linked_to_where_it_was_enqueued(tenants, worker, spans):
    with in_schema("acme_corp"), trace.get_tracer("test").start_as_current_span("a request") as request:
        id = QUtilities.add_async_task("tests.tasks.add", 1, 2)
    work(worker)
    (span,) = [one for one in spans.get_finished_spans() if one.name == "tests.tasks.add"]
    found = {name: span.attributes[f"tenant_q.{name}"] for name in ("schema", "task_id", "func")}
    assert found == {"schema": "acme_corp", "task_id": id, "func": "tests.tasks.add"}
    assert span.kind is trace.SpanKind.CONSUMER and span.parent is None
    enqueued_in = request.get_span_context()
    assert [(one.context.trace_id, one.context.span_id) for one in span.links] == [
        (enqueued_in.trace_id, enqueued_in.span_id)
    ]
    assert span.status.is_ok or span.status.status_code is trace.StatusCode.UNSET


@pytest.mark.parametrize(("func", "error"), [("tests.tasks.fail", "ValueError"), ("sys.exit", "SystemExit")])
def test_what_fails_is_an_error_of_its_span(tenants, worker, spans, func, error):
    with in_schema("acme_corp"):
        QUtilities.add_async_task(func, *((1,) if func == "sys.exit" else ()))
    work(worker)
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.ERROR and span.links == ()
    assert [event.attributes["exception.type"] for event in span.events] == [error]


@pytest.mark.parametrize("error", [SystemExit, ValueError])
def test_an_error_that_cannot_be_shown_is_the_task_s_all_the_same(tenants, worker, spans, error):
    with in_schema("acme_corp"):
        id = QUtilities.add_async_task("tests.integration.test_tracing.raise_what_breaks", error.__name__)
    work(worker)
    assert not QUtilities.fetch_task(id, schema_name="acme_corp").success
    (span,) = spans.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "Breaks")


def raise_what_breaks(how: str) -> None:
    class Breaks(Exception):
        def __str__(self) -> str:
            raise {"SystemExit": SystemExit, "ValueError": ValueError}[how]

    raise Breaks


def test_a_package_carries_nothing_where_there_is_no_span(tenants):
    package = build("tests.tasks.add", (1, 2), {}, schema="acme_corp")
    assert "trace" not in package.task and seal(package)


@pytest.mark.parametrize("first", ["", "from opentelemetry import trace; ", "sys.modules['opentelemetry'] = None; "])
def test_where_it_is_not_set_up_nothing_is_done(first):
    code = (
        f"import sys; {first}\n"
        "import django; django.setup()\n"
        "from tenant_q.lifecycle import execute; from tenant_q.support import tracing\n"
        "from tenant_q.package.build import build\n"
        "package = build('f', (), {}, schema='a')\n"
        "assert 'trace' not in package.task\n"
        "assert tracing.traced(lambda package: tracing._trace())(package) is None\n"
        "tracing.flush()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
